//! Whether a file is a CNI plugin that may be run.

/// Why a file is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRunnable {
    #[error("it is not a regular file")]
    NoFile,
    #[error("it is not executable")]
    NotExecutable,
    #[error("it is writable by everybody, so it is not run")]
    WritableByAll,
}

/// Judges a file by its kind and its permission bits. The owner is not checked: release archives
/// are unpacked with the builder's user ID.
///
/// # Errors
///
/// Why it is not run.
pub fn check(is_file: bool, mode: u32) -> Result<(), NotRunnable> {
    match () {
        () if !is_file => Err(NotRunnable::NoFile),
        () if mode & 0o111 == 0 => Err(NotRunnable::NotExecutable),
        () if mode & 0o002 != 0 => Err(NotRunnable::WritableByAll),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_that_not_everybody_can_replace_are_run() {
        let cases = [
            (true, 0o755, Ok(())),
            (true, 0o100, Ok(())),
            (true, 0o775, Ok(())),
            (true, 0o644, Err(NotRunnable::NotExecutable)),
            (true, 0o757, Err(NotRunnable::WritableByAll)),
            (false, 0o755, Err(NotRunnable::NoFile)),
        ];
        for (is_file, mode, expected) in cases {
            assert_eq!(check(is_file, mode), expected, "{is_file} {mode:o}");
        }
    }
}
