//! Pages and files that are written from the code: `ROUTELET_WRITE=1 cargo test --test docs` writes
//! them, and the test fails while they differ.

mod commands;
mod json;
mod metrics;
mod objects;

use std::{collections::BTreeSet, fmt::Write as _, fs};

use routelet::{cli::reference, config, net::Reason};

use crate::{files, name, root};

/// Where a part begins that is written, in a page with other parts.
const BEGIN: &str = "<!-- Written from the code by `ROUTELET_WRITE=1 cargo test --test docs`. -->\n\n";
const END: &str = "<!-- End of what is written. -->\n";

#[test]
fn what_is_written_from_the_code_is_up_to_date() {
    let mut differ = Vec::new();
    for (path, wanted) in all() {
        let file = root().join(&path);
        if std::env::var_os("ROUTELET_WRITE").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, wanted).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != wanted {
            differ.push(path);
        }
    }
    let how = "`ROUTELET_WRITE=1 cargo test --test docs` writes them";
    assert!(differ.is_empty(), "these differ from the code, {how}: {differ:?}");
}

#[test]
fn the_folders_of_the_reference_have_no_other_files() {
    let known: BTreeSet<_> = all().into_iter().map(|(path, _)| path).collect();
    for folder in ["docs/reference", "docs/schema"] {
        for file in files(&root().join(folder), &["md", "json"]) {
            assert!(known.contains(&name(&file)), "{} is not written from the code: remove it", name(&file));
        }
    }
}

/// All files by their paths.
fn all() -> Vec<(String, String)> {
    let keys = serde_json::to_string_pretty(&config::reference::schema()).unwrap() + "\n";
    let mut all = vec![
        ("deploy/routelet.toml".to_owned(), config::reference::example()),
        ("docs/routelet.schema.json".to_owned(), keys),
        part_of("docs/reference.md", &config::reference::tables()),
        part_of("docs/problems.md", &problems()),
        page("commands", &commands::page()),
        page("json", &json::page()),
        page("metrics", &metrics::page()),
        page("objects", &objects::page()),
    ];
    all.extend(reference::schemas().into_iter().map(|printed| {
        let text = serde_json::to_string_pretty(&printed.schema).unwrap() + "\n";
        (format!("docs/schema/{}.json", printed.file), text)
    }));
    all
}

/// A page that is written as a whole, below its title.
fn page(name: &str, text: &str) -> (String, String) {
    let (title, rest) = text.split_once("\n\n").expect("a title");
    (format!("docs/reference/{name}.md"), format!("{title}\n\n{BEGIN}{}\n", rest.trim_end()))
}

/// A page with another part.
fn part_of(path: &str, part: &str) -> (String, String) {
    let page = fs::read_to_string(root().join(path)).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap_or_else(|| panic!("{path}: where it begins"));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{path}: where it ends"));
    (path.to_owned(), format!("{before}{BEGIN}{part}{END}{after}"))
}

/// The tables of docs/problems.md.
fn problems() -> String {
    let mut page = String::new();
    for (section, reasons) in Reason::SECTIONS {
        let _ = write!(
            page,
            "## {section}\n\n| reason | severity | meaning | remedy |\n| --- | --- | --- | --- |\n"
        );
        for reason in *reasons {
            let cells = [reason.meaning(), reason.remedy()].map(cell);
            let _ = writeln!(page, "| `{reason}` | {} | {} | {} |", reason.severity(), cells[0], cells[1]);
        }
        page.push('\n');
    }
    page
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// A paragraph of at most 100 columns.
fn wrapped(text: &str) -> String {
    let mut page = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width + 1 + length > 100 {
            page.push('\n');
            width = 0;
        }
        if width > 0 {
            page.push(' ');
            width += 1;
        }
        page.push_str(word);
        width += length;
    }
    page
}
