//! What a migration reads from its App, beside its image and command.
//!
//! The hash of these inputs is a part of a run's identity in the ledger, so that a migration whose SQL stands in a ConfigMap or
//! a variable runs again when that changes. It covers the literal variables, which the operator hashes, and the contents of
//! the ConfigMaps, which the kubelet mounts for the agent; nothing that comes from a Secret.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::text::hex;

/// The hash of a run's inputs: SHA-256, hex.
///
/// # Errors
/// When a file of a ConfigMap cannot be read.
pub(crate) fn hash(literals: &str, folder: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    feed(&mut hash, literals.as_bytes());
    for file in files(folder)? {
        let name = file.strip_prefix(folder).unwrap_or(&file);
        feed(&mut hash, name.as_os_str().as_encoded_bytes());
        feed(&mut hash, &fs::read(&file)?);
    }
    Ok(hex(&hash.finalize()))
}

/// Hashes a text after its length, so that no two lists of texts hash the same bytes.
fn feed(hash: &mut Sha256, text: &[u8]) {
    hash.update(text.len().to_le_bytes());
    hash.update(text);
}

/// The files below a folder in the order of their paths; none where there is no such folder. The kubelet keeps the files of a
/// ConfigMap in a folder whose name begins with `..`, and links to them.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b"..") {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    let mut found = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}
