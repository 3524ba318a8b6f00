//! A Docker engine of its own in a namespace of the test.

use std::{path::PathBuf, process::Command};

use crate::{
    common::{
        Process,
        net::{Net, Ns},
        run, wait_for,
    },
    kit,
};

const IMAGE: &str = "localhost/lab/busybox:1";

/// Ends with the test, its containers before it. Declare it after the `Net`.
pub(crate) struct Docker {
    process: Process,
    ns: Ns,
    bridge: String,
    options: Vec<String>,
    socket: PathBuf,
    cgroup: String,
    dir: PathBuf,
}

impl Docker {
    /// With its default bridge, docker0, on `bridge` (address and length).
    pub(crate) fn start(net: &Net, ns: &Ns, bridge: &str) -> Self {
        Self::start_with(net, ns, bridge, &["--ip-masq=false"])
    }

    /// With these options besides.
    pub(crate) fn start_with(net: &Net, ns: &Ns, bridge: &str, options: &[&str]) -> Self {
        let dir = net.dir().join(format!("docker-{}", ns.name));
        std::fs::create_dir_all(&dir).unwrap();
        let image = dir.join("busybox.tar");
        run(Command::new("python3").arg(kit::script("mkimage.py")).arg(&image).args(["--name", IMAGE]));
        let nothing = Process::start(&mut Command::new("true"), &dir.join("log"));
        let mut docker = Self {
            process: nothing,
            ns: ns.clone(),
            bridge: bridge.to_owned(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            socket: dir.join("docker.sock"),
            cgroup: ns.name.clone(),
            dir,
        };
        docker.launch();
        run(docker.command().arg("load").arg("-qi").arg(&image));
        docker
    }

    /// Stops the engine and starts it again.
    #[allow(dead_code, reason = "not every suite does")]
    pub(crate) fn restart(&mut self) {
        self.process.stop();
        self.launch();
    }

    fn launch(&mut self) {
        let dir = &self.dir;
        let mut command = self.ns.command("dockerd");
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        command
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("-H")
            .arg(format!("unix://{}", self.socket.display()));
        command.args(["--bip", &self.bridge, "--storage-driver", "overlay2"]).args(&self.options);
        command.args([
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
            "--cgroup-parent",
            &format!("/{}", self.cgroup),
        ]);
        self.process = Process::start(&mut command, &dir.join("log"));
        wait_for("dockerd answers", 20.0, || {
            assert!(self.process.alive(), "dockerd ended:\n{}", self.process.printed());
            self.command().arg("info").output().ok()?.status.success().then_some(())
        });
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.socket.display()));
        command
    }

    /// `docker network create`.
    #[allow(dead_code, reason = "not every suite does")]
    pub(crate) fn network(&self, name: &str) {
        run(self.command().args(["network", "create", name]));
    }

    /// `docker network ARGUMENTS`.
    #[allow(dead_code, reason = "not every suite does")]
    pub(crate) fn networks(&self, arguments: &[&str]) {
        run(self.command().arg("network").args(arguments));
    }

    /// A container that sleeps, on a network.
    #[allow(dead_code, reason = "not every suite does")]
    pub(crate) fn run_on(&self, network: &str, name: &str) {
        run(self.command().args(["run", "-d", "--network", network, "--name", name, IMAGE]));
    }

    #[allow(dead_code, reason = "not every suite does")]
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    #[allow(dead_code, reason = "not every suite does")]
    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// A container that sleeps.
    pub(crate) fn run(&self, name: &str) {
        run(self.command().args(["run", "-d", "--name", name, IMAGE]));
    }

    #[allow(dead_code, reason = "not every suite does")]
    pub(crate) fn remove(&self, name: &str) {
        run(self.command().args(["rm", "-f", name]));
    }

    /// The address of a container.
    #[allow(dead_code, reason = "not every suite does")]
    pub(crate) fn address(&self, name: &str) -> String {
        let format = "{{.NetworkSettings.IPAddress}}";
        run(self.command().args(["inspect", "-f", format, name])).trim().to_owned()
    }

    /// Its addresses, IPv4 and IPv6.
    #[allow(dead_code, reason = "not every suite asks")]
    pub(crate) fn addresses(&self, name: &str) -> [String; 2] {
        let format = "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.GlobalIPv6Address}}";
        let text = run(self.command().args(["inspect", "-f", format, name]));
        let (v4, v6) = text.trim().split_once(' ').expect("two addresses");
        [v4.to_owned(), v6.to_owned()]
    }

    /// Whether an echo from inside is answered.
    #[allow(dead_code, reason = "not every suite does")]
    pub(crate) fn pings(&self, name: &str, address: &str) -> bool {
        let ping = self.command().args(["exec", name, "/bin/ping", "-c1", "-W1", address]).output();
        ping.is_ok_and(|out| out.status.success())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // What fails here is said by the test that failed before.
        if let Ok(all) = self.command().args(["ps", "-aq"]).output() {
            for id in String::from_utf8_lossy(&all.stdout).split_whitespace() {
                let _ = self.command().args(["rm", "-f", id]).output();
            }
        }
        self.process.stop();
        let _ = Command::new("umount").arg(self.dir.join("exec/netns/default")).output();
        let cgroups = format!("/sys/fs/cgroup/*/{0} /sys/fs/cgroup/{0}", self.cgroup);
        let sweep = format!(
            "for g in {cgroups}; do [ -d \"$g\" ] && find \"$g\" -depth -type d -exec rmdir {{}} +; done"
        );
        let _ = Command::new("sh").args(["-c", &sweep]).output();
    }
}
