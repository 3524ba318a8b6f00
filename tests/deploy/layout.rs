//! The layout of a release: `scripts/layout/ordered-cc` links functions in the order of a list.

use std::{fs, path::Path, process::Command};

use super::{guard::folder, root};

const PROGRAM: &str = r#"
mod parts {
    #[inline(never)] pub fn first(n: usize) -> usize { std::hint::black_box(n) + 1 }
    #[inline(never)] pub fn second(n: usize) -> usize { std::hint::black_box(n) + 2 }
    #[inline(never)] pub fn third(n: usize) -> usize { std::hint::black_box(n) + 3 }
}
fn main() {
    let n = std::env::args().count();
    println!("{}", parts::first(n) + parts::second(n) + parts::third(n));
}
"#;

/// Links the program with this list: what the compiler printed where that failed, else the functions of `parts` in the
/// order of their addresses.
fn link(dir: &Path, list: &str) -> Result<Vec<String>, String> {
    let (source, program, layout) = (dir.join("program.rs"), dir.join("routelet"), dir.join("functions"));
    fs::write(&source, PROGRAM).unwrap();
    fs::write(&layout, list).unwrap();
    let linker = root().join("scripts/layout/ordered-cc");
    let out = Command::new("rustc")
        .args(["-O", "-C", "symbol-mangling-version=v0", "-C", "target-feature=+crt-static"])
        .arg(format!("-Clinker={}", linker.display()))
        .arg("-o")
        .args([&program, &source])
        .env("ROUTELET_LAYOUT", &layout)
        .output()
        .unwrap();
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    assert_eq!(Command::new(&program).output().unwrap().stdout, b"9\n");
    let symbols = Command::new("nm").arg("-n").arg(&program).output().unwrap().stdout;
    let symbols = String::from_utf8(symbols).unwrap();
    let parts = symbols.lines().filter_map(|l| l.rsplit_once("5parts")).map(|(_, name)| name.to_owned());
    Ok(parts.collect())
}

/// A symbol of [`PROGRAM`] as the list has it: without the hash of its crate.
fn listed(name: &str) -> String {
    format!("_RNvNtC7program5parts{}{name}\n", name.len())
}

#[test]
fn functions_of_a_release_are_linked_in_the_order_of_the_list() {
    let dir = folder("layout");
    for order in [["third", "first", "second"], ["second", "third", "first"]] {
        let list: String = order.iter().map(|name| listed(name)).collect();
        let expected = order.map(|name| format!("{}{name}", name.len()));
        assert_eq!(link(dir.path(), &list).unwrap(), expected);
    }
}

#[test]
fn a_list_of_functions_that_no_longer_exist_fails_the_build() {
    let dir = folder("layout-stale");
    let list = listed("first") + &listed("gone") + &listed("renamed");
    let error = link(dir.path(), &list).unwrap_err();
    assert!(error.contains("run scripts/layout/record"), "{error}");
}
