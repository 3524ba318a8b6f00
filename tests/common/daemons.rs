//! The daemons of the tests: routelet itself, and the switches it talks to.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{
    Process,
    net::{Net, Ns},
    run, speaker_program, wait_for,
};

/// A routelet in a namespace, with its files in a folder of the test.
pub struct Routelet {
    pub process: Process,
    pub ns: Ns,
    pub dir: PathBuf,
    /// A folder that the daemon sees in place of another.
    pub mount: Option<(PathBuf, PathBuf)>,
    /// Whether `/sys/class/net` has the interfaces of its namespace, from the next start.
    pub own_interfaces: bool,
    /// Seconds by which its monotonic and boot time are ahead of the machine's (a time namespace), from the next start.
    pub clock_offset: u32,
    /// The `cgroup.procs` of the cgroup in which it runs, from the next start.
    pub cgroup: Option<PathBuf>,
    /// Further seconds of boot time: for so long the machine was suspended.
    pub suspended: u32,
    /// The binary of the next start: the built one, or one of another version.
    pub binary: PathBuf,
    /// Variables of the next start.
    pub environment: Vec<(String, String)>,
    options: Vec<String>,
}

impl Routelet {
    /// Starts the built binary with this configuration (state folder, socket, metrics off are added).
    pub fn start(net: &Net, ns: &Ns, config: &str, options: &[&str]) -> Self {
        let mut this = Self::ready(net, ns, config, options);
        this.restart();
        this
    }

    /// The same up to the start itself.
    pub fn ready(net: &Net, ns: &Ns, config: &str, options: &[&str]) -> Self {
        let dir = net.dir().join(&ns.name);
        fs::create_dir_all(&dir).expect("a folder");
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        let this = Self {
            process: Process::start(&mut Command::new("true"), &dir.join("log")),
            ns: ns.clone(),
            dir,
            mount: None,
            own_interfaces: false,
            clock_offset: 0,
            cgroup: None,
            suspended: 0,
            binary: daemon_program(),
            environment: Vec::new(),
            options,
        };
        this.configure(config);
        // The machine's resolvers are protected addresses: a test would depend on where it runs.
        this.set_resolvers(&[]);
        this
    }

    /// Writes the resolv.conf that the daemon sees.
    pub fn set_resolvers(&self, addresses: &[&str]) {
        let text: String = addresses.iter().map(|a| format!("nameserver {a}\n")).collect();
        fs::write(self.dir.join("resolv.conf"), text).expect("a writable folder");
    }

    /// Writes the file, does not reload.
    pub fn configure(&self, config: &str) {
        let state = self.dir.join("state");
        let text = format!(
            "state-dir = \"{}\"\n{config}\n[control]\nsocket = \"{}\"\n{}",
            state.display(),
            self.socket().display(),
            if config.contains("[metrics]") { "" } else { "[metrics]\nlisten = \"\"\n" }
        );
        fs::write(self.dir.join("routelet.toml"), text).expect("a writable folder");
    }

    /// Starts it again after it was stopped or killed, and waits for its socket.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts it, without waiting.
    pub fn spawn(&mut self) {
        let mut command = self.ns.command("unshare");
        if self.clock_offset > 0 || self.suspended > 0 {
            let (monotonic, boot) = (self.clock_offset, self.clock_offset + self.suspended);
            command.args(["--time", "--monotonic", &monotonic.to_string(), "--boottime", &boot.to_string()]);
        }
        command.args(["--mount", "--propagation", "slave", "sh", "-c"]);
        let further = self.mount.as_ref().map_or_else(String::new, |(from, to)| {
            format!("mount --bind {} {} && ", from.display(), to.display())
        });
        let interfaces = if self.own_interfaces { "mount -t sysfs sysfs /sys && " } else { "" };
        let into = self
            .cgroup
            .as_ref()
            .map_or_else(String::new, |procs| format!("echo $$ > {} && ", procs.display()));
        command.arg(format!(
            "{further}{interfaces}{into}[ ! -e /etc/resolv.conf ] || mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""
        ));
        command.arg(self.dir.join("resolv.conf"));
        if !self.environment.is_empty() {
            // The daemon's alone: a library that is loaded before its own would disturb unshare, too.
            command.arg("env").args(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        }
        command.arg(&self.binary);
        command.args(["run", "--config"]).arg(self.dir.join("routelet.toml")).args(&self.options);
        let _ = fs::remove_file(self.socket());
        self.process = Process::start(&mut command, &self.dir.join("log"));
    }

    pub fn wait_ready(&mut self) {
        wait_for("routelet answers", 10.0, || {
            assert!(self.process.alive(), "routelet ended:\n{}", self.process.printed());
            self.try_cli(&["show", "summary"]).ok()
        });
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("routelet.sock")
    }

    /// A command of the client: standard output, or status and standard error.
    pub fn try_cli(&self, args: &[&str]) -> Result<String, (i32, String)> {
        let out = Command::new(&self.binary).args(args).arg("--socket").arg(self.socket()).output().unwrap();
        // Of a node that is not ready yet, `show summary` says so by its status, too.
        let told = out.status.success() || out.status.code() == Some(4) && args.contains(&"summary");
        if told {
            Ok(String::from_utf8(out.stdout).unwrap())
        } else {
            Err((out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stderr).into_owned()))
        }
    }

    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).unwrap_or_else(|(code, text)| panic!("routelet {args:?}: {code}: {text}"))
    }

    /// `show … --json`.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = match self.try_cli(&[args, &["--json"]].concat()) {
            // A prefix without path: an empty array, and status 1.
            Err((1, text)) if args.contains(&"routes") && text.contains("no path to") => "[]".into(),
            Err((code, text)) => panic!("routelet {args:?}: {code}: {text}"),
            Ok(text) => text,
        };
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
    }

    /// State of the session with `address`.
    pub fn session(&self, address: &str) -> Option<String> {
        let all = self.json(&["show", "neighbors"]);
        let one = all.as_array()?.iter().find(|n| n["address"] == address)?.clone();
        Some(one["state"].as_str()?.to_owned())
    }

    pub fn wait_established(&self, address: &str) {
        wait_for(format!("{} has a session with {address}", self.ns.name), 30.0, || {
            (self.session(address)? == "established").then_some(())
        });
    }
}

/// The daemon that the tests start: the built one, or what `ROUTELET_UNDER_TEST` names in its place, as
/// `scripts/layout/record` does with one that runs under valgrind.
fn daemon_program() -> PathBuf {
    env::var_os("ROUTELET_UNDER_TEST").map_or_else(|| env!("CARGO_BIN_EXE_routelet").into(), PathBuf::from)
}

/// FRR's zebra and bgpd in a namespace.
pub struct Frr {
    processes: Vec<Process>,
    dir: PathBuf,
}

impl Frr {
    /// `config` is bgpd's; zebra forwards and installs.
    pub fn start(net: &Net, ns: &Ns, config: &str) -> Self {
        Self::start_with(net, ns, config, &[])
    }

    /// With bfdd, whose configuration is what stands before `router bgp`.
    pub fn start_with_bfd(net: &Net, ns: &Ns, config: &str) -> Self {
        let (bfd, bgp) = config.split_at(config.find("router bgp").unwrap_or(0));
        Self::start_all(net, ns, &[("zebra", "", &[]), ("bfdd", bfd, &[]), ("bgpd", bgp, &[])])
    }

    /// With options of zebra's: `-K 120` keeps the routes of the one before for so many seconds.
    pub fn start_with(net: &Net, ns: &Ns, config: &str, zebra: &[&str]) -> Self {
        Self::start_all(net, ns, &[("zebra", "", zebra), ("bgpd", config, &[])])
    }

    /// Daemons with their configuration and options.
    pub fn start_all(net: &Net, ns: &Ns, daemons: &[(&str, &str, &[&str])]) -> Self {
        let dir = net.dir().join(format!("{}-frr", ns.name));
        fs::create_dir_all(&dir).unwrap();
        ns.sysctl("net.ipv4.ip_forward", "1");
        ns.sysctl("net.ipv6.conf.all.forwarding", "1");
        // FRR gives up root for a user of its own, which must reach and write the folder.
        run(Command::new("chmod").arg("755").arg(net.dir()));
        run(Command::new("chown").arg("frr:frr").arg(&dir));
        let mut processes = Vec::new();
        for (daemon, text, options) in daemons {
            let binary = speaker_program(daemon);
            let conf = dir.join(format!("{daemon}.conf"));
            fs::write(&conf, format!("log stdout\n{text}\n")).unwrap();
            run(Command::new("chown").arg("frr:frr").arg(&conf));
            let mut command = ns.command(binary.to_str().unwrap());
            command.args(["-P", "0", "-f"]).arg(&conf);
            command.arg("-i").arg(dir.join(format!("{daemon}.pid"))).arg("-z").arg(dir.join("zserv"));
            command.arg("--vty_socket").arg(&dir).args(*options);
            // Newer releases have no such socket.
            let help = |binary: &Path| Command::new(binary).arg("--help").output().expect("a program").stdout;
            if *daemon == "bfdd" && String::from_utf8_lossy(&help(&binary)).contains("--bfdctl") {
                command.arg("--bfdctl").arg(dir.join("bfdd.sock"));
            }
            // One that was killed leaves its socket.
            let _ = fs::remove_file(dir.join(format!("{daemon}.vty")));
            processes.push(Process::start(&mut command, &dir.join(format!("{daemon}.log"))));
            wait_for(format!("{daemon} listens"), 10.0, || {
                dir.join(format!("{daemon}.vty")).exists().then_some(())
            });
        }
        Self { processes, dir }
    }

    /// A vtysh command.
    pub fn vtysh(&self, command: &str) -> String {
        run(Command::new(speaker_program("vtysh")).arg("--vty_socket").arg(&self.dir).args(["-c", command]))
    }

    /// Lines of configuration, entered.
    pub fn configure(&self, lines: &[&str]) -> String {
        let mut command = Command::new(speaker_program("vtysh"));
        command.arg("--vty_socket").arg(&self.dir).args(["-c", "configure terminal"]);
        for line in lines {
            command.args(["-c", line]);
        }
        run(&mut command)
    }

    pub fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.vtysh(&format!("{command} json"))).unwrap_or(Value::Null)
    }

    /// zebra's process id, and bgpd's.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    pub fn kill(&mut self) {
        while let Some(mut p) = self.processes.pop() {
            p.kill();
        }
    }

    pub fn stop(&mut self) {
        while let Some(mut p) = self.processes.pop() {
            p.stop();
        }
    }
}

/// BIRD in a namespace.
pub struct Bird {
    pub process: Process,
    dir: PathBuf,
    client: PathBuf,
}

impl Bird {
    pub fn start(net: &Net, ns: &Ns, config: &str) -> Self {
        Self::start_with(net, ns, config, &[])
    }

    /// With `-R` it is back after a restart, and says so.
    pub fn start_with(net: &Net, ns: &Ns, config: &str, options: &[&str]) -> Self {
        Self::start_program(("bird", "birdc"), net, ns, config, options)
    }

    /// The same with another daemon and client.
    pub fn start_program(
        (program, client): (&str, &str),
        net: &Net,
        ns: &Ns,
        config: &str,
        options: &[&str],
    ) -> Self {
        let dir = net.dir().join(format!("{}-bird", ns.name));
        fs::create_dir_all(&dir).unwrap();
        ns.sysctl("net.ipv4.ip_forward", "1");
        ns.sysctl("net.ipv6.conf.all.forwarding", "1");
        let conf = dir.join("bird.conf");
        fs::write(&conf, config).unwrap();
        let mut command = ns.command(speaker_program(program).to_str().unwrap());
        command.args(["-f", "-c"]).arg(&conf).arg("-s").arg(dir.join("ctl")).arg("-P").arg(dir.join("pid"));
        command.args(options);
        // One that was killed leaves its socket.
        let _ = fs::remove_file(dir.join("ctl"));
        let process = Process::start(&mut command, &dir.join("log"));
        wait_for("bird listens", 10.0, || dir.join("ctl").exists().then_some(()));
        Self { process, dir, client: speaker_program(client) }
    }

    /// Some of its commands are others.
    pub fn is_version_3(&self) -> bool {
        self.birdc("show status").contains("BIRD 3")
    }

    /// A birdc command.
    pub fn birdc(&self, command: &str) -> String {
        run(Command::new(&self.client).arg("-s").arg(self.dir.join("ctl")).args(command.split_whitespace()))
    }
}
