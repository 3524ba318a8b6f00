//! Where the test kit is: Kubernetes with its own test suite, the CNI plugins and GoBGP, which `tests/run` builds, and the
//! scripts beside this file.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, reason = "tests of the real world")]

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folder of the kit: `$ROUTELET_KIT`, else in the cache as `tests/run` has it.
pub fn dir() -> PathBuf {
    let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("ROUTELET_KIT").unwrap_or_else(|| {
        let cache = path("ROUTELET_CACHE").or_else(|| Some(path("XDG_CACHE_HOME")?.join("routelet")));
        cache.or_else(|| Some(path("HOME")?.join(".cache/routelet"))).expect("$HOME").join("kit")
    })
}

/// A program of the kit: `kube-lab`, `kubelet`, `gobgp`, `gobgpd`, `cnitool`, `cni/bridge`, …
pub fn tool(name: &str) -> PathBuf {
    let path = dir().join(name);
    assert!(path.exists(), "no {}: run tests/run once: it builds the test kit", path.display());
    path
}

/// A script of `tests/kit`.
pub fn script(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kit").join(name);
    assert!(path.exists(), "no {}", path.display());
    path
}
