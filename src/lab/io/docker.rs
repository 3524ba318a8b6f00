//! A Docker engine of the lab, in the network namespace of a host.
//!
//! It shares nothing with an engine of this machine: it has files, processes, mounts and a control
//! group of its own, and all its processes end with it, since they are in a process namespace of
//! which it is the first.

use std::{
    env, fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{super::topology::docker_socket, Error, failed};

/// Created from an empty archive: containers use the programs of this machine.
const IMAGE: &str = "routelet-lab";
/// Folders of this machine that a container has read-only, if they exist.
const FOLDERS: [&str; 5] = ["/bin", "/lib", "/lib32", "/lib64", "/usr"];
/// Prefix of the name of the engine's control group; the id of the lab's process follows.
const CGROUP: &str = "routelet-lab-";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Two blocks of zeros: the end of an archive.
const EMPTY_ARCHIVE: [u8; 1024] = [0; 1024];

/// An engine and its folder.
pub(super) struct Engine {
    folder: PathBuf,
    socket: PathBuf,
    cgroup: String,
}

/// Checks that the programs are installed.
pub(super) fn present() -> Result<(), Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = [("dockerd", "docker.io"), ("docker", "docker.io"), ("unshare", "util-linux")];
    for (program, package) in programs {
        if !env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            return Err(Error::Runtime(format!(
                "scene docker: no program `{program}` in the folders of PATH: install Docker Engine (apt install \
                 {package}), or extend PATH; the other scenes need no Docker"
            )));
        }
    }
    Ok(())
}

impl Engine {
    /// Prepares the engine of the lab of process `pid`, with its files in the folder of a node.
    pub(super) fn new(node: &Path, pid: u32) -> Result<Self, Error> {
        let (folder, socket) = (node.join("docker"), docker_socket(node));
        fs::create_dir_all(&folder).map_err(failed(format!("cannot make {}", folder.display())))?;
        // The newer image store has no driver `vfs`, which works on any file system.
        let config = r#"{"features": {"containerd-snapshotter": false}, "storage-driver": "vfs"}"#;
        let file = folder.join("daemon.json");
        fs::write(&file, config).map_err(failed(format!("cannot write {}", file.display())))?;
        Ok(Self { folder, socket, cgroup: format!("/{CGROUP}{pid}") })
    }

    /// The command that runs the engine.
    pub(super) fn daemon(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "dockerd"]);
        for (option, file) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "dockerd.pid"),
        ] {
            command.arg(option).arg(self.folder.join(file));
        }
        command.arg("--host").arg(format!("unix://{}", self.socket.display()));
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &self.cgroup]);
        command
    }

    /// Gives this thread, and the processes that it starts, a `/run` with nothing but the folder:
    /// containerd and its helpers have sockets at fixed paths there.
    pub(super) fn isolate(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let Ok(inside) = self.folder.strip_prefix("/run") else { return Ok(()) };
        let run = self.folder.join("run");
        fs::create_dir_all(&run)?;
        mount(Some("tmpfs"), &run, Some("tmpfs"), MsFlags::empty(), none)?;
        let kept = run.join(inside);
        fs::create_dir_all(&kept)?;
        mount(Some(&self.folder), &kept, none, MsFlags::MS_BIND, none)?;
        mount(Some(&run), "/run", none, MsFlags::MS_MOVE, none)?;
        Ok(())
    }

    /// Whether it responds.
    pub(super) fn is_ready(&self) -> bool {
        self.command(&["info"]).output().is_ok_and(|output| output.status.success())
    }

    /// Creates a network and the image of containers.
    pub(super) fn prepare(&self, network: &str, subnet: &str) -> Result<(), Error> {
        self.run(&["network", "create", "--subnet", subnet, network])?;
        let archive = self.folder.join("empty.tar");
        fs::write(&archive, EMPTY_ARCHIVE).map_err(failed("cannot write the archive of the image"))?;
        self.run(&["import", &archive.display().to_string(), IMAGE])
    }

    /// Starts a container that sleeps.
    pub(super) fn start(&self, name: &str, network: &str, address: Ipv4Addr) -> Result<(), Error> {
        let address = address.to_string();
        let mut arguments: Vec<String> =
            ["run", "--detach", "--name", name, "--network", network, "--ip", &address]
                .map(str::to_owned)
                .into();
        for folder in FOLDERS.into_iter().filter(|folder| Path::new(folder).is_dir()) {
            arguments.push(format!("--mount=type=bind,readonly,source={folder},target={folder}"));
        }
        arguments.extend([IMAGE, "sleep", "3600"].map(str::to_owned));
        self.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Ends a container.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        self.run(&["rm", "--force", name])
    }

    fn run(&self, arguments: &[&str]) -> Result<(), Error> {
        let what = format!("docker {}", arguments.first().unwrap_or(&""));
        let done = self.command(arguments).output().map_err(failed(&what))?;
        if done.status.success() {
            return Ok(());
        }
        Err(Error::Runtime(format!("{what}: {}", String::from_utf8_lossy(&done.stderr).trim_end())))
    }

    /// A command of the client, without the settings of any user.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.socket.display())).args(arguments);
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("DOCKER_CONFIG", &self.folder);
        command.stdin(Stdio::null());
        command
    }
}

/// Removes the control groups of the engine of a lab whose processes have ended.
pub(super) fn remove_cgroups(pid: u32) {
    let controllers = fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
    // One hierarchy for all, or one for each controller.
    for root in controllers.chain([PathBuf::from(CGROUPS)]) {
        let group = root.join(format!("{CGROUP}{pid}"));
        for _ in 0..ATTEMPTS {
            if !group.is_dir() || remove_tree(&group).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The kernel needs a moment to release a group whose processes have ended.
const ATTEMPTS: usize = 50;

/// The files of a control group cannot be removed, and need not be.
fn remove_tree(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(group)
}
