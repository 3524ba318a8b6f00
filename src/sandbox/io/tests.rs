//! Each test restricts a thread of its own, and tries from there.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::kill,
        socket::{AddressFamily, SockFlag, SockType, socket},
    },
    unistd::Pid,
};
use tempfile::TempDir;

use super::*;
use crate::sandbox::Cni;

/// Folders as on a node.
struct Host {
    dir: TempDir,
    demand: Demand,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["etc", "state", "run", "cni/net.d", "bin", "leases", "secret"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("etc/routelet.toml"), "as").unwrap();
        fs::write(at("secret/key"), "hidden").unwrap();
        fs::copy("/bin/cat", at("bin/cat")).unwrap();
        fs::copy("/bin/cat", at("secret/cat")).unwrap();
        fs::write(at("bin/script"), "#!/bin/sh\necho 0.4.0\n").unwrap();
        fs::set_permissions(at("bin/script"), fs::Permissions::from_mode(0o755)).unwrap();
        let cni = Cni { conf_dir: at("cni/net.d"), bin_dir: at("bin"), leases: at("leases"), writes: true };
        let demand = Demand {
            state_dir: at("state"),
            socket: at("run/routelet.sock"),
            config: at("etc/routelet.toml"),
            cni: Some(cni),
            ..Demand::default()
        };
        Self { dir, demand }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `work` in a restricted thread.
    fn inside<T: Send>(&self, work: impl FnOnce(SandboxView) -> T + Send) -> T {
        let keep = [Capability::NetAdmin, Capability::NetBindService];
        let run = || {
            let (view, _held) = enter(&self.demand, &keep);
            assert!(view.landlock, "this test needs a kernel with Landlock: {:?}", view.missing);
            work(view)
        };
        thread::scope(|scope| scope.spawn(run).join().unwrap())
    }
}

fn denied<T>(what: &str, result: io::Result<T>) {
    match result {
        Ok(_) => panic!("{what}: allowed"),
        Err(e) => assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{what}: {e}"),
    }
}

#[test]
fn files_of_others_are_out_of_reach_and_own_ones_are_written() {
    let host = Host::new();
    host.inside(|_| {
        denied("another program's file", fs::read(host.at("secret/key")));
        denied("a folder of others", fs::read_dir(host.at("secret")));
        denied("a new file beside the configuration", fs::write(host.at("etc/x"), ""));
        denied("the configuration", OpenOptions::new().append(true).open(host.at("etc/routelet.toml")));
        denied("a plugin", OpenOptions::new().append(true).open(host.at("bin/cat")));
        denied("a file beside the socket", fs::write(host.at("run/x"), ""));
        denied("the kernel's settings", OpenOptions::new().write(true).open("/proc/sys/kernel/core_pattern"));

        assert_eq!(fs::read(host.at("etc/routelet.toml")).unwrap(), b"as");
        for folder in ["state", "cni/net.d", "leases"] {
            let (new, file) = (host.at(folder).join(".x.tmp"), host.at(folder).join("x"));
            fs::write(&new, "1").unwrap();
            fs::rename(&new, &file).unwrap();
            File::open(host.at(folder)).unwrap().sync_all().unwrap();
            fs::remove_file(&file).unwrap();
        }
        fs::remove_dir(host.at("cni/net.d")).expect_err("what is not needed is not allowed");
    });
    host.inside(|_| {
        thread::scope(|s| {
            s.spawn(|| denied("in a later thread", fs::read(host.at("secret/key")))).join().unwrap()
        });
    });
}

#[test]
fn what_others_replace_stays_reachable() {
    let host = Host::new();
    let (begin, go) = std::sync::mpsc::channel::<()>();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        let host = &host;
        scope.spawn(move || {
            go.recv().unwrap();
            fs::write(host.at("etc/new"), "as 2").unwrap();
            fs::rename(host.at("etc/new"), host.at("etc/routelet.toml")).unwrap();
            fs::remove_dir_all(host.at("cni/net.d")).unwrap();
            fs::create_dir(host.at("cni/net.d")).unwrap();
            done.send(()).unwrap();
        });
        host.inside(move |_| {
            begin.send(()).unwrap();
            wait.recv().unwrap();
            assert_eq!(fs::read(host.at("etc/routelet.toml")).unwrap(), b"as 2");
            fs::write(host.at("cni/net.d/10-routelet.conflist"), "{}").unwrap();
        });
    });
}

#[test]
fn calls_that_take_a_machine_over_fail() {
    let host = Host::new();
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let id = Pid::from_raw(i32::try_from(other.id()).unwrap());
    let namespace = File::open("/proc/self/ns/net").unwrap();
    host.inside(|view| {
        assert!(view.seccomp && view.no_new_privileges, "{view:?}");
        let none: Option<&str> = None;
        let packet = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::empty(), None);
        #[rustfmt::skip]
        let tried = [
            ("a namespace",            unshare(CloneFlags::CLONE_NEWUSER).err()),
            ("a mount",                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).err()),
            ("another namespace",      setns(&namespace, CloneFlags::empty()).err()),
            ("a packet socket",        packet.err()),
            ("a signal for others",    kill(id, None).err()),
        ];
        for (what, error) in tried {
            assert_eq!(error, Some(Errno::EPERM), "{what}");
        }
        for family in [AddressFamily::Unix, AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Netlink] {
            socket(family, SockType::Datagram, SockFlag::empty(), None).unwrap();
        }
    });
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn plugins_run_as_restricted_as_the_daemon_and_other_programs_do_not() {
    let host = Host::new();
    let status = host.inside(|_| {
        denied("a program of others", Command::new(host.at("secret/cat")).output());
        let script = Command::new(host.at("bin/script")).output().unwrap();
        assert_eq!(script.stdout, b"0.4.0\n", "a plugin may be a script");
        let mut plugin = Command::new(host.at("bin/cat"));
        let output = plugin.arg("/proc/self/status").stderr(Stdio::null()).output().unwrap();
        denied("a file of others, by a plugin", {
            let code = Command::new(host.at("bin/cat")).arg(host.at("secret/key")).output().unwrap().status;
            if code.success() { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
        });
        String::from_utf8(output.stdout).unwrap()
    });
    let value = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("{name}: {status}")).to_owned()
    };
    assert_eq!((value("NoNewPrivs"), value("Seccomp")), ("1".to_owned(), "2".to_owned()));
    // CAP_NET_BIND_SERVICE is 10, CAP_NET_ADMIN 12.
    let allowed = 1_u64 << 10 | 1 << 12;
    for set in ["CapEff", "CapPrm"] {
        let has = u64::from_str_radix(&value(set), 16).unwrap();
        assert_eq!(has & !allowed, 0, "{set}: {has:x}");
    }
}

#[test]
fn exactly_what_is_kept_stays() {
    let view = Host::new().inside(|view| view);
    let kept: Vec<_> = view.capabilities.iter().map(String::as_str).collect();
    let expected = if view.user == 0 { vec!["CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"] } else { Vec::new() };
    assert_eq!(kept, expected);
}
