//! Paths in containers.

/// Whether a path is that folder, or in it.
pub(super) fn is_in(path: &str, folder: &str) -> bool {
    normal(path).starts_with(&normal(folder))
}

/// A path as the container runtime resolves it.
pub(super) fn normal(path: &str) -> Vec<&str> {
    path.split('/').fold(Vec::new(), |mut parts, part| {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
        parts
    })
}
