//! Checks that the documents agree with the tree: links and headings, pages that comments cite,
//! tests named in docs/rfc.md, and the width of comments and pages; pages that are written from the code
//! (`reference`), code blocks (`blocks`), and the site that is made of all (`site`).
#![allow(clippy::disallowed_methods, reason = "reads the tree")]

mod blocks;
#[path = "../common/blocks.rs"]
mod common;
mod reference;
mod site;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Columns of comments, which rustfmt does not wrap.
const WIDTH: usize = 100;

#[test]
fn links_lead_to_files_and_headings() {
    let mut broken = Vec::new();
    for page in files(&root(), &["md"]) {
        let text = without_code(&fs::read_to_string(&page).unwrap());
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let exists =
                target.exists() && (anchor.is_empty() || headings(&target).iter().any(|h| slug(h) == anchor));
            if !exists {
                broken.push(format!("{}: {link}", name(&page)));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// Paths of pages, optionally followed by `, section N`.
#[test]
fn pages_and_sections_that_comments_cite_exist() {
    let (mut cited, mut missing) = (0, Vec::new());
    for dir in ["src", "tests", "benches", "fuzz"] {
        for file in files(&root().join(dir), &["rs"]) {
            let text = comments(&fs::read_to_string(&file).unwrap());
            for (at, _) in text.match_indices("docs/") {
                let rest = &text[at..];
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/-_.".contains(c)));
                let path = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
                let Some(path) = path.ends_with(".md").then_some(path) else { continue };
                cited += 1;
                let target = root().join(path);
                let number = rest[path.len()..]
                    .strip_prefix(", section ")
                    .map(|s| s.chars().take_while(char::is_ascii_digit).collect::<String>());
                let found = target.exists()
                    && number
                        .is_none_or(|n| headings(&target).iter().any(|h| h.starts_with(&format!("{n}. "))));
                if !found {
                    let line: String = rest.chars().take(60).collect();
                    missing.push(format!("{}: {line}", name(&file)));
                }
            }
        }
    }
    assert!(cited > 10, "comments cite pages: found only {cited}");
    assert!(missing.is_empty(), "comments cite what does not exist:\n{}", missing.join("\n"));
}

/// The last column but one of docs/rfc.md has functions and tests.
#[test]
fn tests_that_the_page_of_rfcs_lists_exist() {
    let page = fs::read_to_string(root().join("docs/rfc.md")).unwrap();
    let rust = ["src", "tests", "fuzz"].map(|dir| files(&root().join(dir), &["rs"])).concat();
    let code: String = rust.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let is_test = |part: &&str| {
        part.matches('_').count() >= 3
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let tests: BTreeSet<_> = page.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(tests.len() > 50, "the page lists tests: found only {tests:?}");
    let missing: Vec<_> = tests.iter().filter(|t| !code.contains(&format!("fn {t}("))).collect();
    assert!(missing.is_empty(), "docs/rfc.md lists what does not exist: {missing:?}");
}

#[test]
fn comments_are_wrapped() {
    let src = root().join("src");
    let mut long = Vec::new();
    for file in files(&src, &["rs"]) {
        let path = file.strip_prefix(&src).unwrap().display().to_string();
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            // A link has no place to break.
            let is_long = line.chars().count() > WIDTH && line.trim_start().starts_with("//");
            if is_long && !line.contains("://") {
                long.push(format!("src/{path}:{}", number + 1));
            }
        }
    }
    assert!(long.is_empty(), "comments beyond column {WIDTH}:\n{}", long.join("\n"));
}

/// Tables, code, and what has no place to break are exempt.
#[test]
fn pages_are_wrapped() {
    let pages = ["README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];
    let pages = pages.map(|page| root().join(page)).into_iter();
    let mut long = Vec::new();
    for page in pages.chain(files(&root().join("docs"), &["md"])) {
        let text = fs::read_to_string(&page).unwrap();
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            let is_prose = !fenced && !line.trim_start().starts_with(['|', '<']);
            if is_prose && line.chars().count() > WIDTH && can_break(line) {
                long.push(format!("{}:{}", name(&page), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "prose beyond column {WIDTH}:\n{}", long.join("\n"));
}

/// Whether a line has a space after its beginning that is outside of code.
fn can_break(line: &str) -> bool {
    let text = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit() || "-*+.)# ".contains(c));
    text.split('`').step_by(2).any(|part| part.contains(' '))
}

/// The comments of a file, joined so that a reference may be wrapped.
fn comments(text: &str) -> String {
    let lines = text.lines().map(str::trim_start).filter_map(|line| line.strip_prefix("//"));
    lines.map(|line| line.trim_start_matches(['/', '!']).trim()).collect::<Vec<_>>().join(" ")
}

/// A page without code, in which `](` is not a link.
fn without_code(page: &str) -> String {
    let mut fenced = false;
    let lines = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    });
    lines.map(|line| line.split('`').step_by(2).collect::<Vec<_>>().join(" ") + "\n").collect()
}

fn headings(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines.map(|line| line.trim_start_matches('#').trim().to_owned()).collect()
}

/// The anchor that GitHub gives to a heading.
fn slug(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The Rust files at a path.
fn files_of(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() { files(path, &["rs"]) } else { vec![path.to_owned()] }
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory with one of these endings, except in build and hidden directories.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.') || n == "target");
        if path.is_dir() && !hidden {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|end| endings.iter().any(|e| end == *e)) {
            found.push(path);
        }
    }
    found
}
