//! The code blocks of the pages: each has a mark that decides what the tests do with it.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, reason = "not every suite uses all of it")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// `docs/switch.md:23`.
    pub place: String,
    /// What follows the fence: `sh host`.
    pub mark: String,
    /// Without the indentation of a list.
    pub text: String,
}

/// Pages with blocks that readers copy.
pub fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md", "deploy/README.md"]
            .into_iter()
            .map(|page| root().join(page))
            .collect();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// All blocks of all pages.
pub fn all() -> Vec<Block> {
    pages().iter().flat_map(|page| of(page)).collect()
}

/// Those with this mark, of which there must be some.
pub fn marked(mark: &str) -> Vec<Block> {
    let found: Vec<_> = all().into_iter().filter(|block| block.mark == mark).collect();
    assert!(!found.is_empty(), "no page has a block marked {mark}");
    found
}

fn of(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let name = page.strip_prefix(root()).unwrap_or(page).display().to_string();
    let (mut blocks, mut open): (Vec<Block>, Option<(Block, usize)>) = (Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(mark)) => {
                let indent = line.len() - line.trim_start().len();
                let place = format!("{name}:{}", number + 1);
                open = Some((Block { place, mark: mark.trim().to_owned(), text: String::new() }, indent));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(block, _)| block)),
            (Some((block, indent)), None) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{name}: a block without end");
    blocks
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
