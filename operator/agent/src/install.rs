//! Copies the agent into a volume, for pods that use another image.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

/// Copies this program to a path so that any user may execute it, and writes a file of users to which any user may add
/// a line. Doing it again, even while the old copy runs, is fine: the new file takes the old one's place.
///
/// # Errors
/// Those of the file system.
pub(crate) fn install(destination: &Path, passwd: Option<&Path>) -> io::Result<()> {
    if let Some(passwd) = passwd {
        // Of the container that uses it alone, which may run as any user.
        fs::write(passwd, "root:x:0:0:root:/root:/sbin/nologin\n")?;
        fs::set_permissions(passwd, fs::Permissions::from_mode(0o666))?;
    }

    if let Some(folder) = destination.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = destination.with_extension("new");
    fs::copy(std::env::current_exe()?, &temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))?;
    fs::rename(&temporary, destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_complete_and_executable_by_all() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("deep/fairway");
        let passwd = folder.path().join("passwd");
        install(&copy, None).unwrap();
        install(&copy, Some(&passwd)).unwrap();
        assert_eq!(fs::metadata(&passwd).unwrap().permissions().mode() & 0o777, 0o666);
        let (original, metadata) = (std::env::current_exe().unwrap(), fs::metadata(&copy).unwrap());
        assert_eq!(metadata.len(), fs::metadata(original).unwrap().len());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o755);
    }
}
