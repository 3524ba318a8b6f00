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
    socket: PathBuf,
    cgroup: String,
    dir: PathBuf,
}

impl Docker {
    /// With its default bridge, docker0, on `bridge` (address and length).
    pub(crate) fn start(net: &Net, ns: &Ns, bridge: &str) -> Self {
        let dir = net.dir().join("docker");
        std::fs::create_dir_all(&dir).unwrap();
        let image = dir.join("busybox.tar");
        run(Command::new("python3").arg(kit::script("mkimage.py")).arg(&image).args(["--name", IMAGE]));
        let socket = dir.join("docker.sock");
        let mut command = ns.command("dockerd");
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        command.arg("--pidfile").arg(dir.join("pid")).arg("-H").arg(format!("unix://{}", socket.display()));
        command.args(["--bip", bridge, "--ip-masq=false", "--storage-driver", "overlay2"]);
        command.args([
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
            "--cgroup-parent",
            &format!("/{}", ns.name),
        ]);
        let process = Process::start(&mut command, &dir.join("log"));
        let mut docker = Self { process, socket, cgroup: ns.name.clone(), dir };
        wait_for("dockerd answers", 20.0, || {
            assert!(docker.process.alive(), "dockerd ended:\n{}", docker.process.printed());
            docker.command().arg("info").output().ok()?.status.success().then_some(())
        });
        run(docker.command().arg("load").arg("-qi").arg(&image));
        docker
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.socket.display()));
        command
    }

    /// A container that sleeps.
    pub(crate) fn run(&self, name: &str) {
        run(self.command().args(["run", "-d", "--name", name, IMAGE]));
    }

    pub(crate) fn remove(&self, name: &str) {
        run(self.command().args(["rm", "-f", name]));
    }

    /// Whether an echo from inside is answered.
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
