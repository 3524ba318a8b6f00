//! The daemons of a lab: routelet in every host, and the requested one in the leaf.

use std::{
    fs::{self, File},
    io,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};

use super::{
    super::topology::{Leaf, Topology},
    Error,
    build::{Net, Node},
    dir,
    docker::Engine,
    failed,
    netns::Namespace,
};

/// The running binary itself.
const ROUTELET: &str = "/proc/self/exe";
const FRR: &str = "/usr/lib/frr";
/// Number of log lines shown when a daemon ends.
const LAST_LINES: usize = 5;

/// A running daemon.
pub(super) struct Daemon {
    name: String,
    log: PathBuf,
    process: Child,
}

/// All daemons of a lab.
pub(super) struct Daemons {
    running: Vec<Daemon>,
    pid: u32,
    leaf: Leaf,
    leaves: &'static [&'static str],
}

/// Checks that the leaf's daemon is installed.
pub(super) fn present(leaf: Leaf) -> Result<(), Error> {
    let (program, package) = match leaf {
        Leaf::Routelet => return Ok(()),
        Leaf::Bird => ("/usr/sbin/bird".into(), "bird2"),
        Leaf::Frr => (format!("{FRR}/bgpd"), "frr"),
    };
    if Path::new(&program).exists() {
        return Ok(());
    }
    Err(Error::Runtime(format!("--peer {leaf}: no {program}: install it (apt install {package})")))
}

/// This program as a shell would find it, since it may not be installed yet.
pub(super) fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.contains('/') { called } else { "routelet".into() }
}

impl Daemons {
    pub(super) fn start(lab: Topology, net: &Net, leaf: Leaf) -> Result<Self, Error> {
        let mut daemons = Self { running: Vec::new(), pid: lab.pid, leaf, leaves: lab.leaves() };
        for ((name, ns), n) in lab.leaves().iter().zip(&net.leaves).zip(0..) {
            let folder = daemons.folder(name)?;
            match leaf {
                Leaf::Routelet => daemons.routelet(ns, name, &lab.leaf_toml(n, &folder))?,
                Leaf::Bird => {
                    let config = write(&folder.join("bird.conf"), &lab.leaf_bird())?;
                    let mut command = Command::new("/usr/sbin/bird");
                    command.arg("-f").arg("-c").arg(config).arg("-s").arg(folder.join("bird.ctl"));
                    daemons.run(ns, name, command)?;
                }
                Leaf::Frr => daemons.frr(ns, &folder, &lab.leaf_frr())?,
            }
        }
        for Node { host, ns, .. } in &net.hosts {
            let folder = daemons.folder(&host.name())?;
            daemons.routelet(ns, &host.name(), &lab.host_toml(*host, &folder))?;
        }
        Ok(daemons)
    }

    fn folder(&self, node: &str) -> Result<PathBuf, Error> {
        let folder = dir(self.pid).join(node);
        fs::create_dir_all(folder.join("state"))
            .map_err(failed(format!("cannot make {}", folder.display())))?;
        Ok(folder)
    }

    fn routelet(&mut self, ns: &Namespace, node: &str, config: &str) -> Result<(), Error> {
        write(&dir(self.pid).join(node).join("routelet.toml"), config)?;
        self.launch(ns, node)
    }

    /// Starts routelet with the configuration that it has.
    pub(super) fn launch(&mut self, ns: &Namespace, node: &str) -> Result<(), Error> {
        let file = dir(self.pid).join(node).join("routelet.toml");
        let mut command = Command::new(ROUTELET);
        command.arg0("routelet").arg("run").arg("--config").arg(file);
        // The lab's daemons run without Kubernetes, wherever the lab itself runs.
        command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("NOTIFY_SOCKET");
        self.run(ns, node, command)
    }

    /// FRR runs as its own user, which needs access to its files.
    fn frr(&mut self, ns: &Namespace, folder: &Path, config: &str) -> Result<(), Error> {
        let user = User::from_name("frr").map_err(failed("cannot look up the user frr"))?;
        let user = user.ok_or_else(|| Error::Runtime("FRR has no user frr: reinstall it".into()))?;
        for (daemon, config) in [("zebra", ""), ("bgpd", config)] {
            let file = write(&folder.join(format!("{daemon}.conf")), config)?;
            for path in [folder, &file] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                    .map_err(failed("cannot chown to frr"))?;
            }
            let mut command = Command::new(Path::new(FRR).join(daemon));
            command.args(["-P", "0", "-f"]).arg(file).arg("-i").arg(folder.join(format!("{daemon}.pid")));
            command.arg("-z").arg(folder.join("zserv")).arg("--vty_socket").arg(folder);
            self.run(ns, &format!("leaf/{daemon}"), command)?;
            // bgpd looks for zebra's socket once, and then not again for a while.
            let socket = folder.join(format!("{daemon}.vty"));
            for _ in 0..500 {
                if socket.exists() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Starts a Docker engine in the namespace of a node.
    pub(super) fn docker(&mut self, ns: &Namespace, node: &str) -> Result<Engine, Error> {
        let engine = Engine::new(&dir(self.pid).join(node), self.pid)?;
        let command = engine.daemon();
        self.run_as(ns, &format!("{node}/dockerd"), command, || engine.isolate())?;
        Ok(engine)
    }

    fn run(&mut self, ns: &Namespace, name: &str, command: Command) -> Result<(), Error> {
        self.run_as(ns, name, command, || Ok(()))
    }

    /// Starts a daemon in a namespace, from a thread that calls `before` first.
    fn run_as(
        &mut self,
        ns: &Namespace,
        name: &str,
        mut command: Command,
        before: impl FnOnce() -> io::Result<()> + Send,
    ) -> Result<(), Error> {
        let log = dir(self.pid).join(format!("{name}.log"));
        let wrong = || failed(format!("cannot start the daemon of {name}"));
        let file = File::create(&log).map_err(wrong())?;
        let errors = file.try_clone().map_err(wrong())?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let process = ns.within(|| before().and_then(|()| command.spawn())).map_err(wrong())?;
        self.running.push(Daemon { name: name.to_owned(), log, process });
        Ok(())
    }

    /// Fails if a daemon has ended.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        for Daemon { name, log, process } in &mut self.running {
            if let Ok(Some(status)) = process.try_wait() {
                let text = fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n");
                return Err(Error::Runtime(format!("the daemon of {name} ended with {status}:\n{last}")));
            }
        }
        Ok(())
    }

    /// Kills the daemon of a node.
    pub(super) fn kill(&mut self, node: &str) -> Result<(), Error> {
        let at = self.running.iter().position(|d| d.name == node);
        let mut daemon = at
            .map(|at| self.running.remove(at))
            .ok_or_else(|| Error::Runtime(format!("{node} has no daemon")))?;
        daemon.process.kill().map_err(failed(format!("cannot kill the daemon of {node}")))?;
        daemon.process.wait().map(drop).map_err(failed(format!("cannot wait for the daemon of {node}")))
    }

    /// Output of `routelet show WHAT` for a node.
    pub(super) fn show(&self, node: &str, what: &[&str]) -> String {
        self.command(node, &[&["show"], what].concat())
    }

    /// Output of a command for a node.
    pub(super) fn command(&self, node: &str, what: &[&str]) -> String {
        let mut command = Command::new(ROUTELET);
        command.arg0("routelet").args(what).arg("--socket").arg(self.socket(node));
        output(command)
    }

    /// Sends a signal to the daemon of a node.
    pub(super) fn signal(&self, node: &str, signal: Signal) -> Result<(), Error> {
        let daemon = self.running.iter().find(|d| d.name == node);
        let pid = daemon.and_then(|d| i32::try_from(d.process.id()).ok()).map(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::Runtime(format!("{node} has no daemon")))?;
        kill(pid, signal).map_err(failed(format!("cannot send {signal} to the daemon of {node}")))
    }

    pub(super) fn socket(&self, node: &str) -> PathBuf {
        dir(self.pid).join(node).join("routelet.sock")
    }

    pub(super) fn first_leaf(&self) -> &'static str {
        self.leaves.first().copied().unwrap_or_default()
    }

    /// The commands that show the leaf's table.
    pub(super) fn leaf_commands(&self) -> Vec<String> {
        let folder = dir(self.pid).join("leaf");
        match self.leaf {
            Leaf::Routelet => {
                let socket = |leaf: &&str| self.socket(leaf).display().to_string();
                let show = |leaf| format!("{} show routes --socket {}", program(), socket(leaf));
                self.leaves.iter().map(show).collect()
            }
            Leaf::Bird => vec![format!("birdc -r -s {} show route", folder.join("bird.ctl").display())],
            Leaf::Frr => {
                let shell = format!("vtysh --vty_socket {}", folder.display());
                vec![
                    format!("{shell} -c 'show bgp ipv4 unicast'"),
                    format!("{shell} -c 'show bgp ipv6 unicast'"),
                ]
            }
        }
    }

    /// The output of these commands.
    pub(super) fn leaf_table(&self) -> String {
        let folder = dir(self.pid).join("leaf");
        match self.leaf {
            Leaf::Routelet => self.show(self.first_leaf(), &["routes"]),
            Leaf::Bird => {
                let mut command = Command::new("/usr/sbin/birdc");
                command.arg("-r").arg("-s").arg(folder.join("bird.ctl")).args(["show", "route"]);
                output(command)
            }
            Leaf::Frr => {
                let mut command = Command::new("vtysh");
                command.arg("--vty_socket").arg(folder);
                command.args(["-c", "show bgp ipv4 unicast", "-c", "show bgp ipv6 unicast"]);
                output(command)
            }
        }
    }
}

/// A command's output, including its errors.
fn output(mut command: Command) -> String {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        Err(why) => format!("{}: {why}\n", command.get_program().display()),
    }
}

fn write(path: &Path, text: &str) -> Result<PathBuf, Error> {
    fs::write(path, text).map_err(failed(format!("cannot write {}", path.display())))?;
    Ok(path.to_owned())
}
