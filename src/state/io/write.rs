//! One write of one file.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Replaces a file atomically: a reader finds the old or the new content, even after a crash. The
/// steps are a temporary file beside it (its name begins with a dot and ends in `.tmp`, which no
/// container runtime reads), fsync, rename, and fsync of the folder.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_by_steps(path, bytes, mode, &mut || {})
}

/// The same; `step` is called before each step and after the last, for the test that stops there.
pub(crate) fn write_by_steps(path: &Path, bytes: &[u8], mode: u32, step: &mut dyn FnMut()) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of a file"));
    };
    let temporary = dir.join(format!(".{name}.tmp"));
    let written = (|| {
        step();
        let _ = fs::remove_file(&temporary);
        step();
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        step();
        file.write_all(bytes)?;
        step();
        file.sync_all()?;
        step();
        fs::rename(&temporary, path)?;
        step();
        fs::File::open(dir)?.sync_all()?;
        step();
        Ok(())
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_left_over_temporary_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-routelet.conflist");
        fs::write(dir.path().join(".10-routelet.conflist.tmp"), "half").unwrap();
        write(&path, b"whole", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
