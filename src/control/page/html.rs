//! Writes HTML: all texts are escaped and bounded, except for constant markup.

use std::fmt::Write;

/// Maximum characters of one text. No problem, event or description of routelet is longer.
const MAX_TEXT: usize = 1024;

/// A page, or a part of one.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Constant markup.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0 += markup;
        self
    }

    /// A text or the value of an attribute in double quotes.
    pub(super) fn text(&mut self, text: impl std::fmt::Display) -> &mut Self {
        // Writing only fails if the text is too long, which is then cut.
        let _ = write!(Escaped { to: &mut self.0, left: MAX_TEXT }, "{text}");
        self
    }

    /// `<tag>text</tag>`.
    pub(super) fn element(&mut self, tag: &'static str, text: impl std::fmt::Display) -> &mut Self {
        self.raw("<").raw(tag).raw(">").text(text).raw("</").raw(tag).raw(">")
    }

    /// `<tag class="class">text</tag>`.
    pub(super) fn classed(
        &mut self,
        tag: &'static str,
        class: &'static str,
        text: impl std::fmt::Display,
    ) -> &mut Self {
        self.raw("<").raw(tag).raw(" class=\"").raw(class).raw("\">").text(text);
        self.raw("</").raw(tag).raw(">")
    }

    /// Opens a row whose heading is this; the caller closes it.
    pub(super) fn row(&mut self, heading: impl std::fmt::Display) -> &mut Self {
        self.raw("<tr><th scope=\"row\">").text(heading).raw("</th>")
    }

    /// A table in a region that can be scrolled by keyboard; `rows` writes the rows.
    pub(super) fn table(
        &mut self,
        caption: &'static str,
        heading: &[&'static str],
        rows: impl FnOnce(&mut Self),
    ) -> &mut Self {
        self.raw("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"")
            .raw(caption)
            .raw("\">");
        self.raw("<table><caption>").raw(caption).raw("</caption><thead><tr>");
        for name in heading {
            self.raw("<th scope=\"col\">").raw(name).raw("</th>");
        }
        self.raw("</tr></thead><tbody>\n");
        rows(self);
        self.raw("</tbody></table></div>\n")
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// Escapes text. Replaces characters that do not print: control characters, and those that change
/// the direction of text, with which a name could forge the text next to it.
struct Escaped<'s> {
    to: &'s mut String,
    left: usize,
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                self.to.push('…');
                return Err(std::fmt::Error);
            }
            self.left -= 1;
            match c {
                '<' => *self.to += "&lt;",
                '>' => *self.to += "&gt;",
                '&' => *self.to += "&amp;",
                '"' => *self.to += "&quot;",
                '\'' => *self.to += "&#39;",
                '\\' => self.to.push(c),
                c if c.escape_debug().next() == Some('\\') => self.to.push('\u{fffd}'),
                c => self.to.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_place() {
        let mut html = Html::default();
        html.element("td", "<script>alert('x')</script>\u{202e}\n\\\"&");
        let expected =
            "<td>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\u{fffd}\u{fffd}\\&quot;&amp;</td>";
        assert_eq!(html.finish(), expected);
    }

    #[test]
    fn a_long_text_is_cut_and_what_follows_it_is_not() {
        let mut html = Html::default();
        html.element("td", format_args!("{}{}", "é".repeat(MAX_TEXT), "<x".repeat(9))).element("td", "next");
        assert_eq!(html.finish(), format!("<td>{}…</td><td>next</td>", "é".repeat(MAX_TEXT)));
        let mut html = Html::default();
        html.element("td", "x".repeat(MAX_TEXT));
        assert_eq!(html.finish(), format!("<td>{}</td>", "x".repeat(MAX_TEXT)), "fits exactly");
    }
}
