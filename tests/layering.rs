//! Checks the import rules in the table of ARCHITECTURE.md, and that every path on that page
//! exists.
//!
//! Textual, so it can be fooled: it reads `crate::…` paths (and those of crates that touch the
//! world) in `src/**`, without comments, strings and the tests at the end of a file. It does not
//! see through macros, re-exports or `super::…`; paths across areas are therefore written
//! `crate::…`.
#![allow(clippy::disallowed_methods, reason = "reads the tree")]

use std::{
    collections::BTreeSet,
    fs,
    iter::Peekable,
    path::{Path, PathBuf},
    str::Chars,
};

/// The rules of ARCHITECTURE.md.
struct Rules {
    /// Module and what it may import besides itself. The longest matching module applies; an empty
    /// import stands for everything.
    imports: Vec<(String, Vec<String>)>,
    /// Modules that may touch the world, besides `io` folders.
    worldly: Vec<String>,
}

impl Rules {
    fn read() -> Self {
        let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
        let section = page.split("## Import rules").nth(1).expect("a section of import rules");
        let section = section.split("\n## ").next().unwrap_or_default();
        let mut imports = Vec::new();
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let (modules, allowed) = row.trim_matches('|').split_once('|').expect("two columns");
            let allowed = match allowed.trim() {
                "nothing" => Vec::new(),
                "everything" => vec![String::new()],
                _ => quoted(allowed),
            };
            for path in quoted(modules) {
                assert!(root().join(&path).exists(), "{path} does not exist");
                imports.push((module_of(&root().join(&path)), allowed.clone()));
            }
        }
        let sentence =
            section.split("\nOnly `io` folders").nth(1).and_then(|text| text.split("may use").next());
        let worldly = quoted(sentence.expect("the sentence about the world"));
        let worldly = worldly.iter().filter(|w| w.starts_with("src/"));
        Self { imports, worldly: worldly.map(|path| module_of(&root().join(path))).collect() }
    }
}

/// The parts of a line in backticks.
fn quoted(line: &str) -> Vec<String> {
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Paths that touch the world.
const WORLD: &[&str] = &[
    "tokio",
    "hyper",
    "hyper_util",
    "rtnetlink",
    "netlink_sys",
    "nix",
    "socket2",
    "sd_notify",
    "caps",
    "landlock",
    "seccompiler",
    "kube::Client",
    "kube::Api",
    "kube::client",
    "kube::api::Api",
    "kube::runtime",
    "std::fs",
    "std::env",
    "std::process::Command",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "std::time::SystemTime",
];

#[test]
fn modules_import_only_what_their_rule_allows() {
    let rules = Rules::read();
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("src")) {
        let module = module_of(&file);
        wrong.extend(breaches(&rules, &module, &fs::read_to_string(&file).unwrap()));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn planted_breaches_are_found() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, usize)] = &[
        ("bgp::wire::open", "use crate::bgp::session::State;", 1),
        ("bgp::wire::open", "use crate::{bgp::{session, wire::attr}, net::Prefix};", 1),
        ("bgp::wire::open", "fn f() -> crate::fib::Route {}", 1),
        ("bgp::wire::open", "// use crate::fib::Route;\nlet s = \"crate::fib\";", 0),
        ("bgp::wire::open", "use std::{collections::BTreeMap, fs};", 1),
        ("bgp::io::peer", "use std::fs; use tokio::net; use crate::bgp::session::Session;", 0),
        ("bgp::io::peer", "use crate::fib::route::Route;", 1),
        ("fib::diff", "#[cfg(test)]\nmod tests { use crate::plan::Plan; }", 0),
        ("garage", "use crate::net::Prefix;", 1),
        ("k8s::node", "use kube::{Client, CustomResource};", 1),
    ];
    let rules = Rules::read();
    for (module, text, expected) in cases {
        let found = breaches(&rules, module, text);
        assert_eq!(found.len(), *expected, "{module}: {text}: {found:?}");
    }
}

#[test]
fn every_path_on_the_architecture_page_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let paths: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|part| is_path(part)).collect();
    assert!(paths.len() > 30, "the page lists paths in `backticks`: found only {paths:?}");
    let missing: Vec<_> = paths
        .iter()
        .filter(|path| !root().join(path).exists() && !root().join("src").join(path).exists())
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md lists what does not exist: {missing:?}");
}

/// Code that several suites share stands in `tests/common` or `tests/kit`.
#[test]
fn no_suite_borrows_files_of_another() {
    let mut borrowed = Vec::new();
    for file in rust_files(&root().join("tests")) {
        let text = fs::read_to_string(&file).expect("a readable file");
        let paths = text.lines().filter_map(|line| line.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
        for path in paths.map(|path| file.parent().expect("a folder").join(path)) {
            let real = path.canonicalize().expect("a file that exists");
            let shared = ["tests/common", "tests/kit", "fuzz"].map(|folder| root().join(folder));
            if !shared.iter().any(|folder| real.starts_with(folder)) {
                borrowed.push(format!("{}: {}", file.display(), path.display()));
            }
        }
    }
    assert!(borrowed.is_empty(), "{borrowed:?}");
}

#[test]
fn every_dependency_is_used() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let code = |dirs: &[&str]| -> String {
        let files = dirs.iter().flat_map(|dir| rust_files(&root().join(dir)));
        files.map(|file| fs::read_to_string(file).unwrap()).collect()
    };
    let (mut found, mut unused) = (0, Vec::new());
    for (section, code) in
        [("dependencies", code(&["src"])), ("dev-dependencies", code(&["src", "tests", "benches", "fuzz"]))]
    {
        let table = manifest.split(&format!("\n[{section}]\n")).nth(1).expect(section);
        let lines = table.lines().take_while(|line| !line.starts_with('['));
        for (name, _) in lines.filter_map(|line| line.split_once(" = ")) {
            found += 1;
            let path = name.replace('-', "_") + "::";
            let is_used = code.match_indices(&path).any(|(at, _)| {
                let before = code[..at].chars().next_back().unwrap_or(' ');
                !is_identifier(before) && before != ':'
            });
            if !is_used {
                unused.push(format!("{section}: {name}"));
            }
        }
    }
    assert!(found > 40, "the manifest lists dependencies: found only {found}");
    assert!(unused.is_empty(), "unused: {unused:?}");
}

/// `docs/troubles.md` lists tests as `file::name`; a test for a report is named
/// `PROJECT_NUMBER_behaviour`.
#[test]
fn the_page_of_failures_lists_every_test_for_a_report() {
    let page = fs::read_to_string(root().join("docs/troubles.md")).expect("docs/troubles.md");
    let listed: Vec<(&str, &str)> =
        page.split('`').skip(1).step_by(2).filter_map(|part| part.split_once(".rs::")).collect();
    assert!(listed.len() > 100, "the page lists tests: found only {listed:?}");
    let exists = |file: &str, name: &str| {
        let text = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        text.contains(&format!("fn {name}("))
    };
    let missing: Vec<_> = listed.iter().filter(|(file, name)| !exists(file, name)).collect();
    assert!(missing.is_empty(), "docs/troubles.md lists what does not exist: {missing:?}");

    let projects: BTreeSet<_> = listed.iter().filter_map(|(_, name)| project(name)).collect();
    for file in rust_files(&root().join("src")).into_iter().chain(rust_files(&root().join("tests"))) {
        let text = fs::read_to_string(&file).unwrap();
        for rest in text.split("fn ").skip(1) {
            let Some((name, _)) = rest.split_once("() ") else { continue };
            if project(name).is_some_and(|p| projects.contains(p)) {
                let is_listed =
                    listed.iter().any(|(path, n)| *n == name && file == root().join(format!("{path}.rs")));
                assert!(is_listed, "{name} of {} is not in docs/troubles.md", file.display());
            }
        }
    }
}

/// `kube_router` of `kube_router_792_a_rolling_update_…`.
fn project(test: &str) -> Option<&str> {
    let digit = test.find(|c: char| c.is_ascii_digit())?;
    let after = test[digit..].trim_start_matches(|c: char| c.is_ascii_digit());
    let plain = test.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    test[..digit].strip_suffix('_').filter(|p| plain && !p.is_empty() && after.starts_with('_'))
}

/// `docs/security.md` lists tests as `file::name`, one at least in each row of a table of claims.
#[test]
fn every_claim_of_the_security_page_has_a_test_that_exists() {
    let page = fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md");
    let listed: Vec<(&str, &str)> =
        page.split('`').skip(1).step_by(2).filter_map(|part| part.split_once(".rs::")).collect();
    let is_missing = |(file, name): &&(&str, &str)| {
        let text = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        !text.contains(&format!("fn {name}("))
    };
    let missing: Vec<_> = listed.iter().filter(is_missing).collect();
    assert!(
        missing.is_empty() && listed.len() > 20,
        "docs/security.md lists what does not exist: {missing:?}"
    );
    let mut is_claim = false;
    for line in page.lines() {
        is_claim = line.starts_with('|') && (is_claim || line.contains("| test |"));
        let is_head = line.contains("| test |") || line.contains("| --- |");
        assert!(!is_claim || is_head || line.contains(".rs::"), "a claim without a test: {line}");
    }
}

/// `docs/limits.md` lists tests as `file`: `name`.
#[test]
fn every_test_on_the_page_of_limits_exists() {
    let page = fs::read_to_string(root().join("docs/limits.md")).expect("docs/limits.md");
    let parts: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let mut listed = 0;
    for pair in parts.windows(2).filter(|pair| pair[0].ends_with(".rs") && pair[1].contains('_')) {
        let text = fs::read_to_string(root().join(pair[0])).unwrap_or_default();
        // A row may have a file alone; the next part in backticks is then of the next row.
        let is_test = page.contains(&format!("`{}`: `{}`", pair[0], pair[1]));
        assert!(!is_test || text.contains(&format!("fn {}(", pair[1])), "{pair:?} does not exist");
        listed += usize::from(is_test);
    }
    assert!(listed > 15, "the page lists its tests: found only {listed}");
    let files = parts.iter().filter(|part| part.ends_with(".rs"));
    let missing: Vec<_> = files.filter(|file| !root().join(file).exists()).collect();
    assert!(missing.is_empty(), "docs/limits.md lists what does not exist: {missing:?}");
}

/// Whether a part in backticks is a path of this tree: it ends with a slash or a known ending.
fn is_path(part: &str) -> bool {
    let plain =
        part.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) && !part.starts_with('/');
    let ending = [".rs", ".md", ".toml", ".yaml", ".service", "/"].iter().any(|end| part.ends_with(end));
    plain && ending
}

fn breaches(rules: &Rules, module: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let rule = rules.imports.iter().filter(|(prefix, _)| is_in(module, prefix)).max_by_key(|(p, _)| p.len());
    let Some((room, allowed)) = rule else {
        return vec![format!("{module} has no rule: add it to the table in ARCHITECTURE.md")];
    };
    let worldly =
        module.split("::").any(|part| part == "io") || rules.worldly.iter().any(|name| is_in(module, name));
    let mut wrong = Vec::new();
    for path in paths(&code) {
        if let Some(ours) = path.strip_prefix("crate::") {
            if !is_in(ours, room) && !allowed.iter().any(|prefix| is_in(ours, prefix)) {
                wrong.push(format!("{module} may not use {path}"));
            }
        } else if !worldly && WORLD.iter().any(|prefix| is_in(&path, prefix)) {
            wrong.push(format!("{module} may not use {path}: only `io` folders touch the world"));
        }
    }
    wrong
}

fn is_in(path: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The text without comments, strings and trailing tests.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut code = String::new();
    for line in text.lines() {
        let mut in_string = false;
        let mut before = ' ';
        for (at, c) in line.char_indices() {
            if !in_string && line[at..].starts_with("//") {
                break;
            }
            if c == '"' && before != '\\' && before != '\'' {
                in_string = !in_string;
            }
            if !in_string {
                code.push(c);
            }
            before = c;
        }
        code.push('\n');
    }
    code
}

/// Every path that starts at `crate` or at a crate of `WORLD`, with `{…}` groups taken apart.
fn paths(code: &str) -> Vec<String> {
    let mut roots: Vec<&str> =
        WORLD.iter().filter_map(|path| path.split("::").next()).chain(["crate"]).collect();
    roots.sort_unstable();
    roots.dedup();
    let mut found = Vec::new();
    for root in roots {
        let start = format!("{root}::");
        for (at, _) in code.match_indices(&start) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !is_identifier(before) && before != ':' {
                tree(&mut code[at + start.len()..].chars().peekable(), &start, &mut found);
            }
        }
    }
    found
}

/// Reads the path after `prefix` (which ends in `::`), or the group of paths in braces.
fn tree(rest: &mut Peekable<Chars<'_>>, prefix: &str, found: &mut Vec<String>) {
    let mut path = prefix.to_owned();
    loop {
        skip(rest, char::is_whitespace);
        if rest.next_if_eq(&'{').is_some() {
            loop {
                skip(rest, |c| c.is_whitespace() || c == ',');
                if rest.peek().is_none() || rest.next_if_eq(&'}').is_some() {
                    return;
                }
                tree(rest, &path, found);
            }
        }
        while let Some(c) = rest.next_if(|&c| is_identifier(c) || c == '*') {
            path.push(c);
        }
        if rest.next_if_eq(&':').is_none() {
            break;
        }
        rest.next_if_eq(&':');
        path.push_str("::");
    }
    found.push(path.trim_end_matches("::self").trim_end_matches("::").to_owned());
    skip(rest, |c| !matches!(c, ',' | '}' | ';'));
}

fn skip(rest: &mut Peekable<Chars<'_>>, unwanted: impl Fn(char) -> bool) {
    while rest.next_if(|&c| unwanted(c)).is_some() {}
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files
}

/// `src/bgp/wire/mod.rs` → `bgp::wire`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts.join("::")
}
