//! What a path or a name of a job may be, before anybody looks whether it is there.

use super::member::PATH_BYTES_MAX;

/// True for what can stand as one word in a record and on a terminal.
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= PATH_BYTES_MAX && !text.chars().any(char::is_control)
}

/// True of the root, and of what the kernel's own file systems are mounted on.
pub(super) fn is_kernels(path: &str) -> bool {
    let first = path.split('/').find(|part| !part.is_empty() && *part != ".");
    first.is_none_or(|first| ["proc", "sys", "dev"].contains(&first))
}

pub(super) fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && is_plain(path) && !path.split('/').any(|part| part == "..")
}
