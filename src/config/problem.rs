use std::{fmt, path::PathBuf};

/// Something in the configuration that the operator must mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; 0 where the file as a whole is meant.
    pub line: usize,
    pub column: usize,
    /// Dotted, as `bgp.neighbor[1].remote-as`; empty for syntax errors.
    pub key: String,
    /// What is wrong and what is allowed.
    pub what: String,
}

/// All that is wrong with one file: one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    pub file: PathBuf,
    /// In the order of the file.
    pub list: Vec<Problem>,
}

impl Problems {
    /// One problem of the file as a whole.
    pub(crate) fn of_file(file: PathBuf, what: String) -> Self {
        Self { file, list: vec![Problem { line: 0, column: 0, key: String::new(), what }] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Problem { line, column, key, what }) in self.list.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.file.display())?;
            if *line > 0 {
                write!(f, "{line}:{column}:")?;
            }
            match key.as_str() {
                "" => write!(f, " {what}")?,
                key => write!(f, " {key}: {what}")?,
            }
        }
        Ok(())
    }
}
