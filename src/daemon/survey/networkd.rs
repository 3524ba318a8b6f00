//! Whether systemd-networkd removes routes of others (networkd.conf(5)).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::read_start;
use crate::net::{Diagnostic, Reason, Subject};

/// Folders of its configuration; a file hides those of the same name in later ones.
const FOLDERS: [&str; 4] = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];
const FILE: &str = "networkd.conf";
/// Maximum number of files that are read.
const MAX_FILES: usize = 100;

/// The problem of a host with systemd-networkd, if any.
pub(super) fn problem(root: &Path) -> Option<Diagnostic> {
    let texts = files(root);
    let texts = texts.iter().filter_map(|file| read_start(file));
    removes_foreign_routes(texts).then(|| {
        Diagnostic::new(
            Reason::ForeignRoutesManaged,
            Subject::program("systemd-networkd"),
            "systemd-networkd removes routes of other programs, also those of routelet, whenever it starts",
            "write `[Network]` and `ManageForeignRoutes=no` into /etc/systemd/networkd.conf.d/routelet.conf \
             (deploy/networkd.conf), then run `systemctl restart systemd-networkd`",
        )
    })
}

/// The files that are in force, in the order in which they are read: the main file, then the
/// drop-ins by name.
fn files(root: &Path) -> Vec<PathBuf> {
    let main = FOLDERS.iter().map(|folder| root.join(folder).join(FILE)).find(|file| file.exists());
    let mut drop_ins = BTreeMap::new();
    for folder in FOLDERS {
        let entries = fs::read_dir(root.join(folder).join(format!("{FILE}.d"))).into_iter().flatten();
        for entry in entries.filter_map(Result::ok).take(MAX_FILES) {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "conf") {
                drop_ins.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    main.into_iter().chain(drop_ins.into_values()).collect()
}

/// The last value counts; without any, the default is to remove them.
fn removes_foreign_routes(texts: impl Iterator<Item = String>) -> bool {
    let mut removes = true;
    for text in texts {
        let mut in_network = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_network = line == "[Network]";
            } else if let Some((key, value)) = line.split_once('=')
                && in_network
                && key.trim() == "ManageForeignRoutes"
            {
                removes = match value.trim().to_ascii_lowercase().as_str() {
                    "" | "1" | "yes" | "y" | "true" | "t" | "on" => true,
                    "0" | "no" | "n" | "false" | "f" | "off" => false,
                    _ => removes,
                };
            }
        }
    }
    removes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn the_value_in_force_decides() {
        let no = "[Network]\nManageForeignRoutes=no\n";
        let yes = "[Network]\n ManageForeignRoutes = yes\n";
        let (main, ours) = ("etc/systemd/networkd.conf", "etc/systemd/networkd.conf.d/routelet.conf");
        let shipped = "usr/lib/systemd/networkd.conf.d/routelet.conf";
        let last = "run/systemd/networkd.conf.d/zz.conf";
        let commented = "[Network]\n#ManageForeignRoutes=no\n";
        let elsewhere = "[DHCPv4]\nManageForeignRoutes=no\n";
        #[rustfmt::skip]
        let cases: [(&str, &[(&str, &str)], bool); 10] = [
            ("no file",                  &[],                         true),
            ("a comment",                &[(main, commented)],        true),
            ("another section",          &[(main, elsewhere)],        true),
            ("the main file",            &[(main, no)],               false),
            ("a drop-in",                &[(main, yes), (ours, no)],  false),
            ("a later drop-in",          &[(ours, no), (last, yes)],  true),
            ("one that the package has", &[(shipped, no)],            false),
            ("hidden by /etc",           &[(shipped, no), (ours, "")], true),
            ("reset to the default",     &[(main, no), (ours, "[Network]\nManageForeignRoutes=\n")], true),
            ("no boolean",               &[(ours, "[Network]\nManageForeignRoutes=perhaps\n")],      true),
        ];
        for (name, files, removes) in cases {
            let root = tempfile::tempdir().unwrap();
            files.iter().for_each(|(file, text)| write(root.path(), file, text));
            assert_eq!(problem(root.path()).is_some(), removes, "{name}");
        }
    }
}
