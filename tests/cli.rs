//! The binary as a user meets it: exit status, errors, help.
#![allow(clippy::disallowed_methods, reason = "starts the binary and writes its files")]

#[path = "common/guard.rs"]
mod guard;

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Output, Stdio},
};

use guard::folder;

fn routelet(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_routelet"))
        .args(args)
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .expect("the binary starts")
}

/// Exit status, standard output, standard error.
fn outcome(args: &[&str]) -> (i32, String, String) {
    let output = routelet(args);
    let text = |octets| String::from_utf8(octets).expect("UTF-8");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("routelet.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn check_says_nothing_of_a_good_file() {
    let folder = folder("files");
    let good = file(
        folder.path(),
        "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"10.1.1.1\"\nremote-as = 10000\n\
         [advertise]\ninterfaces = [\"docker0\"]\n",
    );
    assert_eq!(outcome(&["check", "--config", &good]), (0, String::new(), String::new()));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/routelet.toml");
    assert_eq!(outcome(&["check", "--config", example]), (0, String::new(), String::new()));
}

/// The code blocks of this language in a page of Markdown.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().expect("a closed block")).collect()
}

#[test]
fn the_files_that_the_pages_print_are_good_and_the_files_that_they_install_exist() {
    let folder = folder("files");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["README.md", "docs/bare-host.md"] {
        let page = fs::read_to_string(root.join(name)).unwrap();
        let files = blocks(&page, "toml");
        // On a host that the README is for, no file is needed.
        assert!(!files.is_empty() || name == "README.md", "{name} prints a configuration");
        for text in files {
            let path = file(folder.path(), text);
            assert_eq!(
                outcome(&["check", "--config", &path]),
                (0, String::new(), String::new()),
                "{name}: {text}"
            );
        }
        let commands = blocks(&page, "sh install").concat();
        let installed = commands.split(['\n', '&']).map(str::trim).filter(|l| l.starts_with("install "));
        let sources: Vec<_> =
            installed.map(|l| l.split_whitespace().nth(4).expect("install -D -m MODE FILE")).collect();
        assert!(sources.len() > 1, "{name} installs the binary and its unit");
        for source in sources.into_iter().filter(|s| !s.starts_with("target/")) {
            assert!(root.join(source).is_file(), "{name} installs {source}");
        }
        let at = |text: &str| commands.find(text).unwrap_or_else(|| panic!("{name} has no `{text}`"));
        assert!(at("cargo build") < at("install -D -m 755"), "{name}: built before it is installed");
        if name == "README.md" {
            assert!(at("install -D -m 755") < at("routelet show host"), "{name}: installed before it is run");
        }
    }
}

#[test]
fn check_finds_all_five_mistakes_at_once() {
    let folder = folder("files");
    let bad = file(
        folder.path(),
        "[bgp]\nas = 65535\nhold_time = 90\n\n[[bgp.neighbor]]\naddress = \"10.1.1.1/24\"\nremote-as = 1\n\
         hold-time = 2\n\n[advertise]\nnetworks = [\"10.1.2.3/8\"]\n",
    );
    let (status, out, err) = outcome(&["check", "--config", &bad]);
    assert_eq!((status, out.as_str()), (2, ""));
    let shown = err.replace(&bad, "routelet.toml");
    insta::assert_snapshot!(shown, @r###"
    routelet.toml:2:6: bgp.as: must be 1 to 4294967294 without 23456 and 65535, not 65535
    routelet.toml:3:1: bgp.hold_time: unknown key; did you mean `hold-time`?
    routelet.toml:6:11: bgp.neighbor[0].address: `10.1.1.1/24` is not an IP address; write 10.1.1.1, 2001:db8::1, fe80::1%eth0 or "gateway", without a length
    routelet.toml:8:13: bgp.neighbor[0].hold-time: must be 0, or 3 to 65535 seconds, not 2
    routelet.toml:11:13: advertise.networks[0]: `10.1.2.3/8` has host bits set; write 10.0.0.0/8
    "###);
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_line() {
    let folder = folder("files");
    let missing = folder.path().join("none.toml");
    let password = file(
        folder.path(),
        "[bgp]\nas = 1\n[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 2\npassword-file = \"none\"\n",
    );
    let cases = [
        (missing.to_str().unwrap(), "none.toml: cannot be read: No such file or directory"),
        (folder.path().to_str().unwrap(), "cannot be read: Is a directory"),
        (&*password, ":6:17: bgp.neighbor[0].password-file: "),
    ];
    for (path, expected) in cases {
        let (status, out, err) = outcome(&["check", "--config", path]);
        assert_eq!((status, out.as_str(), err.lines().count()), (2, "", 1), "{err}");
        assert!(err.contains(expected), "{err}");
    }
}

#[test]
fn a_password_file_is_found_beside_the_configuration() {
    let folder = folder("files");
    fs::write(folder.path().join("password"), "x".repeat(80) + "\n").unwrap();
    let text = "[bgp]\nas = 1\n[[bgp.neighbor]]\naddress = \"10.0.0.1\"\nremote-as = 2\npassword-file = \"password\"\n";
    assert_eq!(outcome(&["check", "--config", &file(folder.path(), text)]).0, 0);
    fs::write(folder.path().join("password"), "x".repeat(81)).unwrap();
    let (status, _, err) = outcome(&["check", "--config", &file(folder.path(), text)]);
    assert!(status == 2 && err.contains("81 octets") && !err.contains("xxx"), "{err}");
}

#[test]
fn an_empty_file_will_do() {
    let folder = folder("files");
    let empty = file(folder.path(), "");
    assert_eq!(outcome(&["check", "--kubernetes", "--config", &empty]), (0, String::new(), String::new()));
    assert_eq!(outcome(&["check", "--config", &empty]), (0, String::new(), String::new()), "a bare host");
    let half = file(folder.path(), "[advertise]\nnetworks = [\"10.0.0.0/24\"]\n");
    let (status, _, err) = outcome(&["check", "--config", &half]);
    assert!(status == 2 && err.contains("bgp: required"), "{err}");
    let quiet = file(folder.path(), "[metrics]\nlisten = \"\"\n");
    let (status, _, err) = outcome(&["check", "--kubernetes", "--config", &quiet]);
    assert!(status == 0 && err.contains(":2:10: metrics.listen: turns /livez and /readyz off"), "{err}");
}

#[test]
fn without_a_daemon_each_question_ends_with_three_and_one_line() {
    let folder = folder("files");
    let socket = folder.path().join("routelet.sock");
    let socket = socket.to_str().unwrap();
    let questions: &[&[&str]] = &[
        &["show", "summary"],
        &["show", "neighbors", "--json"],
        &["show", "neighbor", "10.0.0.1"],
        &["show", "routes", "10.0.0.0/8", "--longer", "--family", "ipv4"],
        &["show", "routes", "--received", "10.0.0.1"],
        &["show", "fib"],
        &["show", "node"],
        &["show", "config"],
        &["show", "policy", "from-leaf"],
        &["explain", "10.0.0.1", "--from", "10.0.0.2"],
        &["show", "events", "--follow"],
        &["show", "events", "--since", "10m"],
        &["sh", "nei"],
        &["sh", "ro", "--refused", "--community", "65001:7"],
        &["show", "neighbors", "leaf 1", "-o", "yaml"],
        &["show", "routes", "--count"],
        &["neighbor", "reset", "10.0.0.1", "--message", "rack move"],
        &["neighbor", "refresh", "10.0.0.1"],
        &["neighbor", "disable", "10.0.0.1"],
        &["neighbor", "enable", "10.0.0.1"],
        &["reload"],
        &["reload", "--dry-run", "--json"],
        &["reload", "--confirm", "60", "--force"],
        &["reload", "confirm"],
    ];
    for question in questions {
        let (status, out, err) = outcome(&[question, &["--socket", socket][..]].concat());
        assert_eq!((status, out.as_str(), err.lines().count()), (3, "", 1), "{question:?}: {err}");
        assert!(err.contains(socket) && err.contains("routelet run"), "{err}");
    }
}

#[test]
fn cleanup_refuses_while_a_daemon_runs() {
    let folder = folder("files");
    let socket = folder.path().join("routelet.sock");
    let _daemon = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let config = file(folder.path(), &format!("[control]\nsocket = \"{}\"\n", socket.display()));
    let (status, out, err) = outcome(&["cleanup", "--config", &config]);
    assert_eq!((status, out.as_str(), err.lines().count()), (1, "", 1));
    assert!(err.contains("a daemon runs") && err.contains("stop it first"), "{err}");
}

#[test]
fn wrong_usage_ends_with_two() {
    let wrong: &[&[&str]] = &[
        &[],
        &["shwo"],
        &["show"],
        &["show", "routes", "10.0.0.0/33"],
        &["show", "routes", "--longer"],
        &["show", "routes", "--received", "10.0.0.1", "--advertised", "10.0.0.1"],
        &["show", "routes", "--family", "ipx"],
        &["show", "routes", "--origin-as", "x"],
        &["show", "routes", "--refused", "--advertised", "10.0.0.1"],
        &["show", "routes", "--json", "-o", "yaml"],
        &["show", "routes", "-o", "xml"],
        &["show", "events", "--since", "yesterday"],
        &["show", "events", "--follow", "--count"],
        &["show", "summary", "--watch=0"],
        &["show", "n"],
        &["neighbor", "re", "10.0.0.1"],
        &["neighbor", "reset"],
        &["run", "--log-level", "loud"],
        &["run", "--log-format", "xml"],
        &["lab", "--nodes", "1"],
        &["lab", "scene", "nothing"],
        &["lab", "--nodes", "2", "scene", "bfd"],
        &["lab", "--unnumbered", "--peer", "bird"],
        &["reload", "--confirm", "0"],
        &["reload", "--dry-run", "--force"],
        &["reload", "confirm", "--force"],
        &["reload", "now"],
        &["cleanup", "--config", "/nonexistent/routelet.toml"],
    ];
    for args in wrong {
        let (status, out, err) = outcome(args);
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}: {err}");
        let help = err.contains("Commands:");
        assert!(help || err.lines().count() == 1, "{args:?}: {err}");
    }
    let (_, _, err) = outcome(&["shwo"]);
    assert_eq!(
        err,
        "unrecognized subcommand 'shwo'; tip: a similar subcommand exists: 'show'; Usage: routelet <COMMAND>\n"
    );
}

#[test]
fn a_configuration_that_is_wrong_keeps_the_daemon_from_starting() {
    let folder = folder("files");
    let bad = file(folder.path(), "[bgp]\nas = 0\n");
    let (status, out, err) = outcome(&["run", "--config", &bad]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.contains("routelet.toml:2:6: bgp.as: must be 1 to 4294967294"), "{err}");
}

#[test]
fn every_command_explains_itself() {
    let (_, help, _) = outcome(&["--help"]);
    let listed = |help: &str| -> Vec<String> {
        let commands = help.split_once("Commands:").map_or("", |(_, rest)| rest);
        let lines = commands.lines().skip(1).take_while(|l| l.starts_with("  "));
        lines.filter_map(|l| l.split_whitespace().next().map(str::to_owned)).collect()
    };
    let top = listed(&help);
    for expected in ["run", "check", "show", "neighbor", "reload", "lab", "cleanup", "completions", "man"] {
        assert!(top.iter().any(|c| c == expected), "{expected}: {top:?}");
    }
    for command in top.iter().filter(|c| *c != "help") {
        let (status, help, err) = outcome(&[command, "--help"]);
        assert_eq!((status, err.as_str()), (0, ""), "{command}");
        for sub in listed(&help).iter().filter(|c| *c != "help") {
            let (status, help, _) = outcome(&[command, sub, "--help"]);
            assert!(status == 0 && help.contains("Usage: routelet"), "{command} {sub}");
            assert!(help.contains("--socket") || command == "lab", "{command} {sub} talks to the daemon");
        }
    }
    assert_eq!(outcome(&["--version"]).1, concat!("routelet ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn completions_and_man_pages_are_written() {
    for shell in ["bash", "zsh", "fish"] {
        let (status, out, _) = outcome(&["completions", shell]);
        assert!(status == 0 && out.contains("neighbors"), "{shell}");
    }
    let folder = folder("files");
    let pages = folder.path().join("man1");
    assert_eq!(outcome(&["man", pages.to_str().unwrap()]), (0, String::new(), String::new()));
    assert!(
        fs::read_to_string(pages.join("routelet-show-routes.1"))
            .unwrap()
            .contains("--longer".replace('-', "\\-").as_str())
    );
    let (status, _, err) = outcome(&["man", "/proc/none"]);
    assert!(status == 1 && err.lines().count() == 1, "{err}");
}

#[test]
fn a_shell_gets_no_values_and_waits_little_without_a_daemon_that_responds() {
    let folder = tempfile::tempdir().unwrap();
    let [absent, silent] = ["absent.sock", "silent.sock"].map(|name| folder.path().join(name));
    let _silent = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    for socket in [absent, silent] {
        let line = format!("routelet show neighbor --socket {} ", socket.display());
        let start = std::time::Instant::now();
        assert_eq!(outcome(&["completions", "--values", &line]), (0, String::new(), String::new()));
        // 200 ms, and a busy machine.
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "{line}: {:?}", start.elapsed());
    }
    let (status, _, err) = outcome(&["completions"]);
    assert!(status == 2 && err.contains("SHELL"), "{err}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_routelet"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn convert_prints_a_file_that_check_accepts_and_lists_what_needs_a_review() {
    let folder = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/convert");
    for (name, expected) in [("frr-1-host.conf", 0), ("frr-4-transit.conf", 4), ("bird-1-host.conf", 0)] {
        let input = examples.join(name);
        let (status, out, err) = outcome(&["convert", input.to_str().unwrap()]);
        assert_eq!(status, expected, "{name}: {err}");
        assert_eq!(err.contains(": differs: "), expected == 4, "{name}: {err}");
        let path = file(folder.path(), &out);
        assert_eq!(
            outcome(&["check", "--config", &path]),
            (0, String::new(), String::new()),
            "{name}: {out}"
        );
    }
    let input = examples.join("frr-4-transit.conf");
    let (status, out, err) = outcome(&["convert", "--json", input.to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, err.as_str(), &report["format"]), (4, "", &"frr".into()));
    assert!(
        report["lines"].as_array().unwrap().iter().any(|l| l["outcome"] == "differs" && l["line"].is_u64())
    );
}

#[test]
fn convert_overwrites_nothing_and_hides_passwords_from_others() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("bgpd.conf");
    let text = "router bgp 65001\n neighbor 10.0.0.2 remote-as 65002\n neighbor 10.0.0.2 password sesame\n";
    fs::write(&input, text).unwrap();
    let output = folder.path().join("new.toml");
    let args = ["convert", "--from", "quagga", input.to_str().unwrap(), "-o", output.to_str().unwrap()];
    let (status, out, err) = outcome(&args);
    assert_eq!((status, out.as_str()), (0, ""), "{err}");
    assert!(fs::read_to_string(&output).unwrap().contains("sesame") && !err.contains("sesame"));
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o600);
    let (status, _, err) = outcome(&args);
    assert!(status == 1 && err.contains("cannot be written"), "{err}");
    let (status, _, err) = outcome(&["convert", "/dev/null"]);
    assert!(status == 2 && err.contains("--from") && err.lines().count() == 1, "{err}");
}
