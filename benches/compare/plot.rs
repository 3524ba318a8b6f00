//! Bars side by side, as SVG.

use std::fmt::Write as _;

use super::{
    config::Kind,
    report::{Row, number},
};

/// In the order of [`Kind::ALL`].
const COLOURS: [&str; 11] =
    ["#0a7", "#36c", "#c63", "#93c", "#aa3", "#69f", "#03a", "#f96", "#c6f", "#dd6", "#888"];
/// The height of a bar, where it begins, and how wide the widest is.
const LINE: usize = 16;
const LEFT: f64 = 12.0;
const WIDE: f64 = 480.0;

/// Each row has a scale of its own.
pub fn bars(rows: &[&Row], kinds: &[Kind]) -> String {
    let mut body = String::new();
    let mut y = LINE;
    for row in rows {
        let seen: Vec<_> = kinds.iter().filter_map(|k| Some((*k, row.median(*k)?))).collect();
        let most = seen.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        let _ =
            writeln!(body, "<text x=\"4\" y=\"{y}\" font-weight=\"bold\">{}, {}</text>", row.what, row.unit);
        y += 6;
        for (kind, value) in seen {
            let colour = Kind::ALL.iter().zip(COLOURS).find(|(k, _)| **k == kind).map_or("#000", |(_, c)| c);
            let width = (value / most * WIDE).max(1.0);
            let _ = writeln!(
                body,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.0}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{:.0}\" y=\"{}\">{} {}</text>",
                LINE - 2,
                LEFT + width + 5.0,
                y + LINE - 5,
                kind.name(),
                number(value)
            );
            y += LINE;
        }
        y += 2 * LINE;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"{y}\" font-family=\"sans-serif\" \
         font-size=\"11\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}
