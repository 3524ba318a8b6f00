use clap::Args;
use clap_complete::Shell;

use super::{Failure, command, io};

/// Print shell completions
#[derive(Args, Debug)]
pub(super) struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "routelet", &mut text);
        io::print(&String::from_utf8_lossy(&text))
    }
}
