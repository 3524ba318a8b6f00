//! Tables and lists of names with values. Nothing is cut: what does not fit continues on further
//! lines.

use std::fmt;

use super::layout::{Layout, padded, width};

/// Indentation of lines that belong to the row above.
const INDENT: &str = "    ";
/// Spaces between two columns.
const GAP: usize = 2;

/// A row: cells, the last of which is free text, and lines that follow.
#[derive(Clone, Debug)]
pub(super) struct Row<const N: usize> {
    cells: [String; N],
    notes: Vec<String>,
}

impl<const N: usize> From<[String; N]> for Row<N> {
    fn from(cells: [String; N]) -> Self {
        Self { cells, notes: Vec::new() }
    }
}

impl<const N: usize> Row<N> {
    /// Adds a line below the row.
    pub(super) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }
}

/// A table that arrives in pages and is never held as a whole. The first page sets the column
/// widths; a page with a wider cell widens that column from there on.
///
/// All columns but the last have a fixed position. If the table is too wide, the widest columns
/// become narrower: a longer cell is printed in full, and the rest of its row continues in its
/// columns on the next line. The last cell goes below the row if it does not fit.
#[derive(Clone, Debug)]
pub(super) struct Columns<const N: usize> {
    layout: Layout,
    heading: [&'static str; N],
    /// The different lengths of the cells in each column so far.
    lengths: Vec<Vec<usize>>,
    has_begun: bool,
}

impl<const N: usize> Columns<N> {
    pub(super) fn new(layout: Layout, heading: [&'static str; N]) -> Self {
        let lengths = heading.iter().map(|cell| vec![width(cell)]).collect();
        Self { layout, heading, lengths, has_begun: false }
    }

    /// These rows as lines, each followed by a line break, below the heading if they are the first.
    pub(super) fn lines(&mut self, rows: &[Row<N>]) -> String {
        if rows.is_empty() {
            // The heading is written with the first rows, which determine the widths.
            return String::new();
        }
        for row in rows {
            for (lengths, cell) in self.lengths.iter_mut().zip(&row.cells) {
                let length = width(cell);
                if let Err(at) = lengths.binary_search(&length) {
                    lengths.insert(at, length);
                }
            }
        }
        let widths = self.widths();
        let mut text = String::new();
        if !std::mem::replace(&mut self.has_begun, true) && self.layout.headings {
            text += &self.line(&widths, &self.heading.map(str::to_owned));
        }
        for row in rows {
            text += &self.line(&widths, &row.cells);
            for note in &row.notes {
                text += &self.layout.wrap(note, INDENT, INDENT);
            }
        }
        text
    }

    /// The heading, if there were no rows.
    pub(super) fn end(self) -> String {
        match self.has_begun || !self.layout.headings {
            true => String::new(),
            false => self.line(&self.widths(), &self.heading.map(str::to_owned)),
        }
    }

    /// Widths of the columns, the last of which has none.
    fn widths(&self) -> [usize; N] {
        let last = N.saturating_sub(1);
        let mut allowed: [usize; N] = std::array::from_fn(|n| self.lengths[n].len());
        let at = |allowed: &[usize; N], n: usize| {
            allowed[n].checked_sub(1).and_then(|i| self.lengths[n].get(i)).copied().unwrap_or(0)
        };
        let heading = |n: usize| width(self.heading.get(n).copied().unwrap_or(""));
        loop {
            let widths: [usize; N] = std::array::from_fn(|n| at(&allowed, n).max(heading(n)));
            let taken: usize = widths.iter().take(last).map(|w| w + GAP).sum();
            let widest = (0..last).filter(|n| widths[*n] > heading(*n)).max_by_key(|n| widths[*n]);
            match widest {
                Some(n) if taken + heading(last) > self.layout.width => allowed[n] -= 1,
                _ => return widths,
            }
        }
    }

    fn line(&self, widths: &[usize; N], cells: &[String; N]) -> String {
        let [fixed @ .., last] = &cells[..] else { return String::new() };
        let (mut text, mut line, mut column) = (String::new(), String::new(), 0);
        for (cell, room) in fixed.iter().zip(widths) {
            if width(&line) + GAP > column && !cell.is_empty() {
                flush(&mut text, &mut line);
            }
            line = padded(&line, column);
            if column + width(cell) > self.layout.width {
                flush(&mut text, &mut line);
                let wrapped = self.layout.wrap(cell, INDENT, INDENT);
                text += &wrapped;
            } else {
                line += cell;
            }
            column += room + GAP;
        }
        if width(&line) + GAP > column {
            // The last column begins on a new line if a fixed cell reaches into it.
            flush(&mut text, &mut line);
        }
        let start = padded(&line, column);
        if column.saturating_add(width(last)) <= self.layout.width {
            return text + (start + last).trim_end() + "\n";
        }
        flush(&mut text, &mut line);
        text + &self.layout.wrap(last, INDENT, INDENT)
    }
}

/// Ends a line, unless it is empty.
fn flush(text: &mut String, line: &mut String) {
    if !line.trim().is_empty() {
        *text += line.trim_end();
        text.push('\n');
    }
    line.clear();
}

/// A table in one piece.
pub(super) struct Table<const N: usize> {
    columns: Columns<N>,
    rows: Vec<Row<N>>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(layout: Layout, heading: [&'static str; N]) -> Self {
        Self { columns: Columns::new(layout, heading), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, row: impl Into<Row<N>>) {
        self.rows.push(row.into());
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns = self.columns.clone();
        f.write_str(&columns.lines(&self.rows))?;
        f.write_str(&columns.end())
    }
}

/// Names, each with a value on as many lines as it needs.
pub(super) struct Pairs {
    layout: Layout,
    list: Vec<(String, String)>,
}

impl Pairs {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, list: Vec::new() }
    }

    pub(super) fn add(&mut self, name: &str, value: impl Into<String>) {
        self.list.push((name.to_owned(), value.into()));
    }

    /// Adds a value if there is one.
    pub(super) fn add_some(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(name, value.to_string());
        }
    }
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.list.iter().map(|(name, _)| width(name)).max().unwrap_or(0) + GAP;
        for (name, value) in &self.list {
            f.write_str(&self.layout.wrap(value, &padded(name, column), &" ".repeat(column)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: usize, rows: &[[&str; 4]]) -> String {
        let layout = Layout { width, headings: true };
        let mut table = Table::new(layout, ["PREFIX", "NEXT HOP", "AGE", "REASON"]);
        rows.iter().for_each(|row| table.row(row.map(str::to_owned)));
        table.to_string()
    }

    #[test]
    fn columns_are_aligned_and_a_long_last_cell_goes_below() {
        let rows =
            [["10.0.0.0/8", "10.1.1.1", "3s", "only path"], ["::/0", "-", "1h2m", "guard: default route"]];
        assert_eq!(
            table(40, &rows),
            "PREFIX      NEXT HOP  AGE   REASON\n\
             10.0.0.0/8  10.1.1.1  3s    only path\n\
             ::/0        -         1h2m\n    guard: default route\n"
        );
        assert_eq!(table(usize::MAX, &rows).lines().count(), 3, "a line each");
    }

    #[test]
    fn a_long_cell_stands_alone_and_its_row_continues_in_its_columns() {
        let rows = [
            ["10.0.0.0/8", "10.1.1.1", "3s", "-"],
            ["2001:db8:1:2::/64", "2001:db8::1", "1h2m", "best"],
            ["2001:db8:1111:2222:3333:4444:5555:6666/128", "fe80::1", "1h2m", "best"],
        ];
        assert_eq!(
            table(40, &rows),
            "PREFIX      NEXT HOP     AGE   REASON\n\
             10.0.0.0/8  10.1.1.1     3s    -\n\
             2001:db8:1:2::/64\n            2001:db8::1  1h2m  best\n\
             \x20   2001:db8:1111:2222:3333:4444:5555:66\n    66/128\n            fe80::1      1h2m  best\n"
        );
    }

    #[test]
    fn values_continue_below_values() {
        let mut pairs = Pairs::new(Layout { width: 20, headings: true });
        pairs.add("as", "1000");
        pairs.add("router id", "10.0.0.1, of eth0");
        assert_eq!(pairs.to_string(), "as         1000\nrouter id  10.0.0.1,\n           of eth0\n");
    }
}
