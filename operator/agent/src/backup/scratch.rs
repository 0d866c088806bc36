//! Folders in the scratch volume.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fairway_protocol::{Failure, Reason};

use crate::failure::environment as environment_failure;

/// A folder in the scratch volume that does not outlive its use.
pub(crate) struct Scratch {
    /// The folder.
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Names the folder and removes what an earlier run left there; does not create it.
    pub(crate) fn new(volume: &Path, name: &str) -> Result<Self, Failure> {
        let scratch = Self {
            path: volume.join(name),
        };
        match fs::remove_dir_all(&scratch.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(&error)),
            _ => Ok(scratch),
        }
    }
}

/// The failure of a scratch volume that cannot be written to.
pub(crate) fn unusable(error: &io::Error) -> Failure {
    environment_failure(
        Reason::StoreReadOnly,
        format!("The scratch volume cannot be used ({error}). Check that the pod may write to it."),
    )
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next backup removes what could not be removed now.
        let _ = fs::remove_dir_all(&self.path);
    }
}
