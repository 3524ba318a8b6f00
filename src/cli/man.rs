use std::path::PathBuf;

use clap::Args;

use super::{Failure, command, io};

/// Write man pages into a directory
#[derive(Args, Debug)]
pub(super) struct Man {
    /// Folder for the pages, which must exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        io::write_man(command(), &self.folder).map_err(|e| {
            let folder = self.folder.display();
            Failure::Runtime(format!("man pages cannot be written to {folder}: {e}; name a writable folder"))
        })
    }
}
