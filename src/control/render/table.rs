use std::fmt::{self, Write};

use comfy_table::{Row, presets::NOTHING};

/// Columns separated by two spaces.
pub(super) struct Table(comfy_table::Table);

impl Table {
    pub(super) fn plain() -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        Self(table)
    }

    pub(super) fn with_heading<T: Into<Row>>(heading: T) -> Self {
        let mut table = Self::plain();
        table.0.set_header(heading);
        table
    }

    pub(super) fn row<T: Into<Row>>(&mut self, row: T) {
        self.0.add_row(row);
    }

    /// A name and its value.
    pub(super) fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.row([name.to_owned(), value.into()]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = self.0.clone();
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 2));
        });
        for line in table.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A table that arrives in pages and is never held as a whole. The first page sets the column
/// widths; a page with a wider cell widens that column from there on.
#[derive(Clone, Debug)]
pub(super) struct Columns<const N: usize> {
    widths: [usize; N],
}

impl<const N: usize> Columns<N> {
    pub(super) fn new() -> Self {
        Self { widths: [0; N] }
    }

    /// These rows as lines, each followed by a line break.
    pub(super) fn lines(&mut self, rows: &[[String; N]]) -> String {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for (width, cell) in self.widths.iter().zip(row) {
                // Writing to a string cannot fail.
                let _ = write!(line, "{cell:<width$}  ");
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}
