//! Renders responses of many rows as they arrive: one array, or one table, in bounded memory.

use serde::Serialize;

use super::{
    layout::Layout,
    path,
    routes::{self, Routes},
    table::Columns,
    yaml,
};
use crate::control::Response;

/// State of a response that is rendered page by page.
#[derive(Clone, Debug)]
pub struct Pages(As);

#[derive(Clone, Debug)]
enum As {
    Json {
        begun: bool,
    },
    Yaml {
        begun: bool,
    },
    /// Only their number.
    Count(usize),
    /// A paragraph for each path.
    Paragraphs(Layout),
    Text {
        layout: Layout,
        routes: Option<Box<Routes>>,
        fib: Option<Box<Columns<5>>>,
        /// Text that follows the rows, if there were any.
        end: Option<String>,
    },
}

impl Pages {
    /// Renders one array, which is valid JSON only after its end.
    pub fn json() -> Self {
        Self(As::Json { begun: false })
    }

    /// Renders one sequence, of which every part is valid YAML.
    pub fn yaml() -> Self {
        Self(As::Yaml { begun: false })
    }

    /// Renders the number of rows.
    pub fn count() -> Self {
        Self(As::Count(0))
    }

    /// Renders a paragraph for each path.
    pub fn paragraphs(layout: Layout) -> Self {
        Self(As::Paragraphs(layout))
    }

    /// Renders one table with a heading and columns as wide as the first page requires.
    pub fn text(layout: Layout) -> Self {
        Self(As::Text { layout, routes: None, fib: None, end: None })
    }

    /// The next rows; empty for a response without rows.
    pub fn page(&mut self, response: &Response) -> String {
        match (&mut self.0, response) {
            (As::Json { begun }, Response::Routes(list)) => items(list, begun),
            (As::Json { begun }, Response::Fib(list)) => items(list, begun),
            (As::Count(count), page) => {
                *count += page.rows();
                String::new()
            }
            (As::Paragraphs(layout), Response::Routes(list)) => {
                list.iter().map(|r| path::paragraph(r, *layout)).collect()
            }
            (As::Yaml { begun }, Response::Routes(list)) => yaml_items(list, begun),
            (As::Yaml { begun }, Response::Fib(list)) => yaml_items(list, begun),
            (As::Text { layout, routes, end, .. }, Response::Routes(list)) => {
                if !list.is_empty() && layout.headings && !layout.is_wide() {
                    end.get_or_insert_with(|| routes::LEGEND.to_owned());
                }
                routes.get_or_insert_with(|| Box::new(Routes::new(*layout))).lines(list)
            }
            (As::Text { layout, fib, end, .. }, Response::Fib(list)) => {
                if let Some(first) = list.first().filter(|_| layout.headings) {
                    end.get_or_insert_with(|| routes::removal(first.protocol));
                }
                let rows: Vec<_> = list.iter().map(routes::fib).collect();
                fib.get_or_insert_with(|| Box::new(Columns::new(*layout, routes::FIB))).lines(&rows)
            }
            _ => String::new(),
        }
    }

    /// The text after the last page.
    pub fn end(self) -> String {
        match self.0 {
            As::Json { begun: false } => "[]\n".into(),
            As::Json { begun: true } => "\n]\n".into(),
            As::Yaml { begun } => {
                if begun {
                    String::new()
                } else {
                    "[]\n".into()
                }
            }
            As::Count(count) => format!("{count}\n"),
            As::Paragraphs(_) => String::new(),
            As::Text { routes, fib, end, .. } => {
                let headings = [routes.map(|table| table.end()), fib.map(|table| table.end()), end];
                headings.into_iter().flatten().collect()
            }
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

fn yaml_items<T: Serialize>(list: &[T], begun: &mut bool) -> String {
    *begun |= !list.is_empty();
    let values: Vec<_> = list.iter().filter_map(|item| serde_json::to_value(item).ok()).collect();
    let mut text = String::new();
    yaml::items(&values, &mut text, 0);
    text
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
        let yaml = written(Pages::yaml(), &parts);
        let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, serde_json::to_value(rows(0, 9)).unwrap());
        assert_eq!(written(Pages::yaml(), &[vec![]]), "[]\n");
    }

    #[test]
    fn the_heading_waits_for_the_first_rows() {
        let late = written(Pages::text(Layout::default()), &[vec![], rows(10, 12)]);
        assert!(late.starts_with("PREFIX        TABLE"), "aligned with rows that come later: {late}");
    }

    #[test]
    fn an_array_without_its_end_is_not_json() {
        let mut pages = Pages::json();
        let text = pages.page(&Response::Fib(rows(0, 3)));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_err(), "{text}");
    }

    #[test]
    fn a_table_in_pages_has_one_heading_and_the_columns_of_the_first_page() {
        let text = written(Pages::text(Layout::default()), &[rows(0, 3), rows(3, 12)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(text.contains("\n10.0.11.0/24  254") && text.contains("\n\nTo remove them"), "{text}");
        assert_eq!(text.matches("PREFIX").count(), 1);
        assert!(lines[0].starts_with("PREFIX       TABLE"), "{text}");
        assert!(lines[3].starts_with("10.0.2.0/24  254"), "{text}");
        assert!(
            lines[4].starts_with("10.0.3.0/24   254"),
            "a page with a wider cell has wider columns: {text}"
        );
        assert_eq!(
            written(Pages::text(Layout::default()), &[vec![]]).lines().count(),
            1,
            "the heading alone"
        );
    }
}
