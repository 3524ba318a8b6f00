//! The width of a screen, and the wrapping of text to it.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Layout of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Maximum columns of a line; [`usize::MAX`] for no limit.
    pub width: usize,
    /// Whether tables have a heading, and a legend if they need one.
    pub headings: bool,
}

/// Columns of a screen without a terminal.
const COLUMNS: usize = 80;

impl Default for Layout {
    fn default() -> Self {
        Self { width: COLUMNS, headings: true }
    }
}

impl Layout {
    /// The layout for a terminal of this many columns; `None`: there is no terminal.
    pub fn on_terminal(columns: Option<usize>) -> Self {
        Self { width: columns.unwrap_or(COLUMNS).max(COLUMNS), ..Self::default() }
    }

    /// One line per row, with every column.
    pub fn wide() -> Self {
        Self { width: usize::MAX, ..Self::default() }
    }

    pub(super) fn is_wide(self) -> bool {
        self.width == usize::MAX
    }

    /// The text behind `first`, wrapped at words; further lines begin with `rest`, which is as
    /// wide or wider. Each line ends with a line break.
    pub(super) fn wrap(self, text: &str, first: &str, rest: &str) -> String {
        let room = self.width.saturating_sub(width(rest)).max(1);
        let mut out = String::new();
        for (n, line) in broken(text, room).iter().enumerate() {
            let before = if n == 0 { first } else { rest };
            out += format!("{before}{line}").trim_end();
            out.push('\n');
        }
        out
    }

    /// A problem or a note: `! text`.
    pub fn mark(self, text: &str) -> String {
        self.wrap(text, "! ", "  ")
    }
}

/// Columns that a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text with spaces up to this width.
pub(super) fn padded(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

/// Lines of at most `room` columns, broken between words; a longer word is broken inside. At least
/// one line.
fn broken(text: &str, room: usize) -> Vec<String> {
    if width(text) <= room {
        return vec![text.to_owned()];
    }
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        let gap = usize::from(!line.is_empty());
        if !line.is_empty() && width(&line) + gap + width(word) > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            if !line.is_empty() && width(&line) + c.width().unwrap_or(0) > room {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_words_and_nothing_of_it_is_lost() {
        let layout = Layout { width: 12, headings: true };
        assert_eq!(layout.wrap("one two three", "! ", "  "), "! one two\n  three\n");
        assert_eq!(layout.wrap("2001:db8:1:2:3::4 up", "", "  "), "2001:db8:1\n  :2:3::4 up\n");
        assert_eq!(layout.wrap("", "x", "  "), "x\n");
        assert_eq!(Layout::wide().wrap("one  two", "! ", "  "), "! one  two\n");
        let wide = "漢字漢字漢字漢字";
        let shown = layout.wrap(wide, "", "");
        assert!(shown.lines().all(|l| width(l) <= 12), "two columns per character: {shown}");
        assert_eq!(shown.replace('\n', ""), wide);
    }

    #[test]
    fn a_screen_has_80_columns_or_those_of_a_wider_terminal() {
        let cases = [(None, 80), (Some(40), 80), (Some(80), 80), (Some(132), 132)];
        for (columns, expected) in cases {
            assert_eq!(Layout::on_terminal(columns).width, expected);
        }
    }
}
