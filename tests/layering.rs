//! The import rules of ARCHITECTURE.md hold, and every path it names exists.
//!
//! Textual, so it can be fooled: it reads `crate::…` paths (and those of crates that touch the world) in `src/**`,
//! without comments, strings and the tests at the end of a file. It does not see through macros, re-exports or
//! `super::…`; paths across areas are therefore written `crate::…`.
#![allow(clippy::disallowed_methods, reason = "reads the tree")]

use std::{
    fs,
    iter::Peekable,
    path::{Path, PathBuf},
    str::Chars,
};

/// Module → what it may import besides itself. The longest prefix that matches counts.
#[rustfmt::skip]
const RULES: &[(&str, &[&str])] = &[
    ("net",          &[]),
    ("mailbox",      &[]),
    ("liveness",     &["net", "mailbox"]),
    ("bfd",          &["net"]),
    ("bfd::io",      &["net", "bfd", "mailbox", "liveness"]),
    ("drain",        &[]),
    ("ready",        &[]),
    ("supervise",    &[]),
    ("metrics",      &["net", "bfd::view", "bgp::view", "bgp::rib::view"]),
    ("config",       &["net", "bgp::peer", "bgp::policy"]),
    ("bgp",          &["net"]),
    ("bgp::wire",    &["net"]),
    ("bgp::policy",  &["net", "bgp::wire", "bgp::peer"]),
    ("bgp::peer",    &["net", "bgp::wire", "bgp::policy"]),
    ("bgp::session", &["net", "bgp::wire", "bgp::peer", "bgp::view"]),
    ("bgp::rib",     &["net", "bgp::wire", "bgp::peer", "bgp::policy"]),
    ("bgp::view",    &["net"]),
    ("bgp::io",      &["net", "bgp", "mailbox", "liveness", "supervise", "drain", "ready", "metrics"]),
    ("fib",          &["net"]),
    ("fib::io",      &["net", "fib", "mailbox", "drain", "ready", "metrics"]),
    ("masquerade",   &["net"]),
    ("masquerade::io", &["net", "masquerade", "mailbox", "drain", "ready", "metrics"]),
    ("k8s",          &["net"]),
    ("k8s::io",      &["net", "k8s", "state::io", "mailbox", "drain", "ready", "metrics"]),
    ("plan",         &["net", "config", "bgp::peer", "bgp::policy", "fib::host", "fib::guard", "fib::sysctl", "k8s::node", "k8s::objects", "k8s::services", "k8s::cni", "masquerade"]),
    ("state",        &[]),
    ("state::io",    &["state"]),
    ("sandbox",      &[]),
    ("sandbox::io",  &["sandbox"]),
    ("control",      &["net", "sandbox", "metrics", "bfd::view", "bgp::view", "bgp::rib::view", "fib::view", "fib::sysctl", "k8s::view"]),
    ("control::io",  &["net", "control", "mailbox", "supervise", "drain", "ready", "metrics"]),
    ("lab",          &["net", "config", "control"]),
    ("lab::io",      &["net", "lab", "control", "bgp::view", "bgp::rib::view", "fib::view"]),
    ("cli",          &["net", "config", "control", "daemon", "lab", "bgp::view", "bgp::rib::view", "fib::view"]),
    ("daemon",       &[""]),
    ("lib",          &[""]),
    ("main",         &["config", "daemon", "cli"]),
];

/// What touches the world, and who may name it besides `io` folders.
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
const WORLDLY: &[&str] = &["daemon", "main", "mailbox", "liveness", "drain", "ready", "supervise"];

#[test]
fn modules_import_only_what_their_rule_allows() {
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("src")) {
        let module = module_of(&file);
        wrong.extend(breaches(&module, &fs::read_to_string(&file).unwrap()));
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
    for (module, text, expected) in cases {
        let found = breaches(module, text);
        assert_eq!(found.len(), *expected, "{module}: {text}: {found:?}");
    }
}

#[test]
fn every_path_that_the_architecture_page_names_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let paths: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|word| is_path(word)).collect();
    assert!(paths.len() > 30, "the page names its rooms in `backticks`: found only {paths:?}");
    let missing: Vec<_> = paths
        .iter()
        .filter(|path| !root().join(path).exists() && !root().join("src").join(path).exists())
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}

/// `docs/security.md` names tests as `file::name`, one at least in each row of a table of claims.
#[test]
fn every_claim_of_the_security_page_has_a_test_that_exists() {
    let page = fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md");
    let named: Vec<(&str, &str)> =
        page.split('`').skip(1).step_by(2).filter_map(|word| word.split_once(".rs::")).collect();
    let is_missing = |(file, name): &&(&str, &str)| {
        let text = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        !text.contains(&format!("fn {name}("))
    };
    let missing: Vec<_> = named.iter().filter(is_missing).collect();
    assert!(missing.is_empty() && named.len() > 20, "docs/security.md names what is not there: {missing:?}");
    let mut is_claim = false;
    for line in page.lines() {
        is_claim = line.starts_with('|') && (is_claim || line.contains("| test |"));
        let is_head = line.contains("| test |") || line.contains("| --- |");
        assert!(!is_claim || is_head || line.contains(".rs::"), "a claim without a test: {line}");
    }
}

/// `docs/troubles.md` names tests as `file::name`.
#[test]
fn every_test_that_the_page_of_troubles_names_exists_and_none_is_left_out() {
    let page = fs::read_to_string(root().join("docs/troubles.md")).expect("docs/troubles.md");
    let named: Vec<(&str, &str)> =
        page.split('`').skip(1).step_by(2).filter_map(|word| word.split_once(".rs::")).collect();
    let there = |file: &str, name: &str| {
        let text = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        text.contains(&format!("fn {name}("))
    };
    let missing: Vec<_> = named.iter().filter(|(file, name)| !there(file, name)).collect();
    assert!(missing.is_empty(), "docs/troubles.md names what is not there: {missing:?}");

    // Each one of the list has its row.
    let numbers = (3..=7).chain(10..=22).map(|n| n.to_string());
    let letters = ('a'..='o').map(|c| format!("({c})"));
    for row in numbers.chain(letters) {
        let of_row = |line: &&str| line.starts_with(&format!("| {row} |")) && line.contains(".rs::");
        assert!(page.lines().any(|line| of_row(&line)), "docs/troubles.md has no row with a test for {row}");
    }
    // And each test that says to be for one is in it.
    for file in rust_files(&root().join("src")).into_iter().chain(rust_files(&root().join("tests"))) {
        let text = fs::read_to_string(&file).unwrap();
        let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
        for name in
            names.filter(|n| (n.starts_with("trouble_") || n.starts_with("trap_")) && !n.contains(' '))
        {
            let known = named.iter().any(|(path, n)| *n == name && file == root().join(format!("{path}.rs")));
            assert!(known, "{name} of {} is not in docs/troubles.md", file.display());
        }
    }
}

/// `docs/limits.md` names tests as `file`: `name`.
#[test]
fn every_test_that_the_page_of_limits_names_exists() {
    let page = fs::read_to_string(root().join("docs/limits.md")).expect("docs/limits.md");
    let words: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let mut named = 0;
    for pair in words.windows(2).filter(|pair| pair[0].ends_with(".rs") && pair[1].contains('_')) {
        let text = fs::read_to_string(root().join(pair[0])).unwrap_or_default();
        // A row may name a file alone; the next words in backticks are then of the next row.
        let is_test = page.contains(&format!("`{}`: `{}`", pair[0], pair[1]));
        assert!(!is_test || text.contains(&format!("fn {}(", pair[1])), "{pair:?} is not there");
        named += usize::from(is_test);
    }
    assert!(named > 15, "the page names its tests: found only {named}");
    let files = words.iter().filter(|word| word.ends_with(".rs"));
    let missing: Vec<_> = files.filter(|file| !root().join(file).exists()).collect();
    assert!(missing.is_empty(), "docs/limits.md names what is not there: {missing:?}");
}

/// A word in backticks that means a file or a folder of this tree: it has a slash at the end or a known ending.
fn is_path(word: &str) -> bool {
    let plain =
        word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) && !word.starts_with('/');
    let ending = [".rs", ".md", ".toml", ".yaml", ".service", "/"].iter().any(|end| word.ends_with(end));
    plain && ending
}

fn breaches(module: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let rule =
        RULES.iter().filter(|(prefix, _)| is_in(module, prefix)).max_by_key(|(prefix, _)| prefix.len());
    let Some((room, allowed)) = rule else {
        return vec![format!("{module} has no rule: add it to tests/layering.rs and ARCHITECTURE.md")];
    };
    let worldly =
        module.split("::").any(|part| part == "io") || WORLDLY.iter().any(|name| is_in(module, name));
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
            if !is_word(before) && before != ':' {
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
        while let Some(c) = rest.next_if(|&c| is_word(c) || c == '*') {
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

fn is_word(c: char) -> bool {
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
