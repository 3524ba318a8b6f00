//! The site: mdbook makes it of `docs/`, and each link of it leads to a page, a file or a heading of
//! the site.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use crate::{files, name, root};

#[test]
fn each_page_has_its_place_in_the_summary() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let listed: BTreeSet<_> = summary.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    let pages = files(&root().join("docs"), &["md"]);
    let missing: Vec<_> = pages
        .iter()
        .map(|page| name(page).trim_start_matches("docs/").to_owned())
        .filter(|page| page != "SUMMARY.md" && !listed.contains(page.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md lacks {missing:?}");
}

/// What lies outside of docs/ is not on the site.
#[test]
fn pages_of_the_site_link_to_the_site_only() {
    let docs = root().join("docs");
    let mut out = Vec::new();
    for page in files(&docs, &["md"]) {
        let text = crate::without_code(&fs::read_to_string(&page).unwrap());
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or(link);
            if !link.contains("://") && !normal(&page.parent().unwrap().join(path)).starts_with(&docs) {
                out.push(format!("{}: {link}", name(&page)));
            }
        }
    }
    assert!(out.is_empty(), "name these files as code, the site does not have them:\n{}", out.join("\n"));
}

#[test]
fn the_site_is_built_and_each_of_its_links_leads_somewhere() {
    let made = tempfile::tempdir().unwrap();
    let done = Command::new(mdbook())
        .arg("build")
        .arg(root().join("docs"))
        .arg("--dest-dir")
        .arg(made.path())
        .output();
    let done = done.expect("mdbook");
    let output =
        [&done.stdout, &done.stderr].map(|octets| String::from_utf8_lossy(octets).into_owned()).concat();
    assert!(done.status.success() && !output.contains("WARN"), "mdbook: {output}");

    let pages = files(made.path(), &["html"]);
    assert!(pages.len() > 40, "{} pages", pages.len());
    let texts: BTreeMap<_, _> =
        pages.iter().map(|page| (page.clone(), fs::read_to_string(page).unwrap())).collect();
    let anchors: BTreeMap<_, BTreeSet<&str>> =
        texts.iter().map(|(page, text)| (page.clone(), attributes(text, "id").collect())).collect();
    let (mut links, mut broken) = (0, Vec::new());
    for (page, text) in &texts {
        for link in attributes(text, "href").chain(attributes(text, "src")) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { page.clone() } else { normal(&page.parent().unwrap().join(path)) };
            let has_anchor = || anchors.get(&target).is_some_and(|all| all.contains(anchor));
            if !target.is_file() || !(anchor.is_empty() || has_anchor()) {
                broken.push(format!("{}: {link}", page.strip_prefix(made.path()).unwrap().display()));
            }
        }
    }
    assert!(links > 1000, "only {links} links");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// The values of an attribute.
fn attributes<'t>(html: &'t str, attribute: &str) -> impl Iterator<Item = &'t str> {
    let begin = format!(" {attribute}=\"");
    let values: Vec<_> = html.match_indices(&begin).map(|(at, found)| &html[at + found.len()..]).collect();
    values.into_iter().filter_map(|rest| rest.split('"').next())
}

/// Without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// On the PATH, or where `tests/run` has put it.
fn mdbook() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("ROUTELET_CACHE").or_else(|| Some(set("XDG_CACHE_HOME")?.join("routelet")));
    let cache = cache.or_else(|| Some(set("HOME")?.join(".cache/routelet")));
    let folders = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let of_run = cache.map(|cache| cache.join("tools/bin"));
    let found =
        folders.into_iter().chain(of_run).map(|folder| folder.join("mdbook")).find(|path| path.is_file());
    found.expect("no mdbook: cargo install --locked mdbook --no-default-features, or run tests/run once")
}
