//! Renders responses of many rows as they arrive: one array, or one table, in bounded memory.

use serde::Serialize;

use super::{routes, table::Columns};
use crate::control::Response;

/// State of a response that is rendered page by page.
#[derive(Clone, Debug)]
pub struct Pages(As);

#[derive(Clone, Debug)]
enum As {
    Json {
        begun: bool,
    },
    Text {
        routes: Option<Columns<11>>,
        fib: Option<Columns<6>>,
        /// The protocol number of the fib's routes, once one was seen: the end of the table shows
        /// how to remove them.
        protocol: Option<u8>,
    },
}

impl Pages {
    /// Renders one array, which is valid JSON only after its end.
    pub fn json() -> Self {
        Self(As::Json { begun: false })
    }

    /// Renders one table with a heading and columns as wide as the first page requires.
    pub fn text() -> Self {
        Self(As::Text { routes: None, fib: None, protocol: None })
    }

    /// The next rows; empty for a response without rows.
    pub fn page(&mut self, response: &Response) -> String {
        match (&mut self.0, response) {
            (As::Json { begun }, Response::Routes(list)) => items(list, begun),
            (As::Json { begun }, Response::Fib(list)) => items(list, begun),
            (As::Text { routes, .. }, Response::Routes(list)) => {
                lines(routes, routes::ROUTES, list.iter().map(routes::route))
            }
            (As::Text { fib, protocol, .. }, Response::Fib(list)) => {
                *protocol = protocol.or(list.first().map(|r| r.protocol));
                lines(fib, routes::FIB, list.iter().map(routes::fib))
            }
            _ => String::new(),
        }
    }

    /// What follows the last page.
    pub fn end(self) -> String {
        match self.0 {
            As::Json { begun: false } => "[]\n".into(),
            As::Json { begun: true } => "\n]\n".into(),
            As::Text { protocol, .. } => protocol.map(routes::removal).unwrap_or_default(),
        }
    }
}

/// The items of an array without its end, indented as `serde_json` does it.
fn items<T: Serialize>(list: &[T], begun: &mut bool) -> String {
    if list.is_empty() {
        return String::new();
    }
    let array = serde_json::to_string_pretty(list).unwrap_or_default();
    let items = array.strip_prefix('[').and_then(|a| a.strip_suffix("\n]")).unwrap_or_default();
    let before = if std::mem::replace(begun, true) { ',' } else { '[' };
    format!("{before}{items}")
}

/// The rows as lines, with the heading before the first.
fn lines<const N: usize>(
    columns: &mut Option<Columns<N>>,
    heading: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let first = columns.is_none().then(|| heading.map(str::to_owned));
    let rows: Vec<_> = first.into_iter().chain(rows).collect();
    columns.get_or_insert_with(Columns::new).lines(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::view::FibView;

    fn rows(from: u8, to: u8) -> Vec<FibView> {
        let one = |n| FibView {
            prefix: format!("10.0.{n}.0/24").parse().unwrap(),
            table: 254,
            metric: 179,
            protocol: 179,
            next_hops: Vec::new(),
            in_kernel: true,
            problem: (n == 5).then(|| "taken".into()),
        };
        (from..to).map(one).collect()
    }

    fn written(mut pages: Pages, parts: &[Vec<FibView>]) -> String {
        let text: String = parts.iter().map(|part| pages.page(&Response::Fib(part.clone()))).collect();
        text + &pages.end()
    }

    #[test]
    fn an_array_in_pages_is_the_array_in_one_piece() {
        let whole = |list: &[FibView]| serde_json::to_string_pretty(list).unwrap() + "\n";
        let parts = [rows(0, 3), vec![], rows(3, 4), rows(4, 9)];
        assert_eq!(written(Pages::json(), &parts), whole(&rows(0, 9)));
        assert_eq!(written(Pages::json(), &[vec![]]), whole(&[]));
        assert_eq!(written(Pages::json(), &[]), "[]\n");
    }

    #[test]
    fn an_array_without_its_end_is_not_json() {
        let mut pages = Pages::json();
        let text = pages.page(&Response::Fib(rows(0, 3)));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_err(), "{text}");
    }

    #[test]
    fn a_table_in_pages_has_one_heading_and_the_columns_of_the_first_page() {
        let text = written(Pages::text(), &[rows(0, 3), rows(3, 12)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(text.contains("\n10.0.11.0/24  254") && text.contains("\n\nTo remove them"), "{text}");
        assert_eq!(text.matches("PREFIX").count(), 1);
        assert!(lines[0].starts_with("PREFIX       TABLE"), "{text}");
        assert!(lines[3].starts_with("10.0.2.0/24  254"), "{text}");
        assert!(
            lines[4].starts_with("10.0.3.0/24   254"),
            "a page with a wider cell has wider columns: {text}"
        );
        assert_eq!(written(Pages::text(), &[vec![]]).lines().count(), 1, "the heading alone");
    }
}
