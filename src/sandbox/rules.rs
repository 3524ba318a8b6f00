//! Which folders the daemon needs, and how it uses them.

use std::path::{Path, PathBuf};

/// How a file, or a folder with its content, may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Read,
    /// Read and executed.
    Execute,
    /// Reading and overwriting existing files; nothing is created or removed.
    Overwrite,
    /// Sockets are created, and files are renamed and removed.
    Socket,
    /// Files are read, written, created, renamed and removed.
    Write,
}

/// A folder or a file, and how it may be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub path: PathBuf,
    pub access: Access,
    /// Whether the closest existing parent may be used instead if the path does not exist; but
    /// never one directly below the root, which would be half of the machine.
    pub or_parent: bool,
}

impl Rule {
    pub fn new(path: impl Into<PathBuf>, access: Access) -> Self {
        Self { path: path.into(), access, or_parent: false }
    }

    pub fn or_parent(mut self) -> Self {
        self.or_parent = true;
        self
    }

    /// The paths to which the rule can apply, in order of preference.
    pub fn candidates(&self) -> impl Iterator<Item = &Path> {
        let parents = self.path.ancestors().skip(1).take_while(|p| p.components().count() > 2);
        std::iter::once(self.path.as_path()).chain(parents.take(if self.or_parent { usize::MAX } else { 0 }))
    }
}

/// The parts of the configuration that determine the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub state_dir: PathBuf,
    /// The control socket: it may move within its folder, and its file is removed at the end.
    pub socket: PathBuf,
    /// The configuration, read again by `reload`.
    pub config: PathBuf,
    /// Files with passwords, read again by `reload`.
    pub passwords: Vec<PathBuf>,
    /// Credentials of the API server, and the files that they refer to.
    pub credentials: Vec<PathBuf>,
    /// Whether a program creates the credentials (`exec` of a kubeconfig), which may need anything.
    pub runs_credential_program: bool,
    /// Under Kubernetes.
    pub cni: Option<Cni>,
}

/// Folders of the container network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cni {
    pub conf_dir: PathBuf,
    pub bin_dir: PathBuf,
    /// Where `host-local` keeps the leases of pods.
    pub leases: PathBuf,
    /// Whether our conflist is written.
    pub writes: bool,
}

/// Read by the daemon, or by the C library for it. Files in `/etc` and `/run` are replaced at any
/// time (`resolv.conf`, `hosts`, tokens), and a rule for a file ends with the file: therefore the
/// rules are for the folders.
const READ: [&str; 7] = ["/etc", "/run", "/var/run", "/proc", "/sys", "/dev/urandom", "/dev/random"];

/// Files that the distribution ships: the dynamic linker and libraries of CNI plugins, the shell of
/// plugins that are scripts, certificates. Programs that are run are as restricted as the daemon.
const PROGRAMS: [&str; 5] = ["/bin", "/sbin", "/lib", "/lib64", "/usr"];

/// Folder in which kubelets keep the credentials that their kubeconfig refers to.
const KUBELET: &str = "/var/lib/kubelet/pki";

/// The sysctls of the network. `/proc/sys/kernel` is excluded: root can make the kernel run
/// programs through it.
pub(super) const SYSCTLS: &str = "/proc/sys/net";

impl Demand {
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<_> = READ.iter().map(|path| Rule::new(path, Access::Read)).collect();
        rules.extend(PROGRAMS.iter().map(|path| Rule::new(path, Access::Execute)));
        rules.push(Rule::new("/dev/null", Access::Overwrite));
        rules.push(Rule::new(SYSCTLS, Access::Overwrite));
        rules.push(Rule::new(&self.state_dir, Access::Write));
        rules.extend(self.socket.parent().map(|folder| Rule::new(folder, Access::Socket)));
        let read = std::iter::once(&self.config).chain(&self.passwords).chain(&self.credentials);
        rules.extend(read.map(|file| readable(file)));
        if !self.credentials.is_empty() {
            rules.push(Rule::new(KUBELET, Access::Read).or_parent());
        }
        if self.runs_credential_program {
            rules.push(Rule::new("/", Access::Execute));
        }
        if let Some(cni) = &self.cni {
            let access = if cni.writes { Access::Write } else { Access::Read };
            // Other programs may recreate the folder, and only a rule for its parent survives this.
            rules.push(Rule::new(cni.conf_dir.parent().unwrap_or(&cni.conf_dir), access));
            rules.push(Rule::new(&cni.conf_dir, access));
            rules.push(Rule::new(&cni.bin_dir, Access::Execute).or_parent());
            rules.push(Rule::new(&cni.leases, Access::Write).or_parent());
        }
        // A parent directly below the root is half of the machine.
        rules.retain(|r| r.access != Access::Write || r.path.components().count() > 2);
        rules.sort();
        rules.dedup();
        rules
    }
}

/// A file is readable through its folder, so that it may be replaced. The root folder is never
/// allowed as a whole: a file directly in it is readable until it is replaced.
fn readable(file: &Path) -> Rule {
    match file.parent().filter(|folder| folder.components().count() > 1) {
        Some(folder) => Rule::new(folder, Access::Read).or_parent(),
        None => Rule::new(file, Access::Read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand() -> Demand {
        Demand {
            state_dir: "/var/lib/routelet".into(),
            socket: "/run/routelet/routelet.sock".into(),
            config: "/etc/routelet/routelet.toml".into(),
            passwords: vec!["/srv/keys/tor".into()],
            ..Demand::default()
        }
    }

    fn cni() -> Cni {
        Cni {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dir: "/opt/cni/bin".into(),
            leases: "/var/lib/cni/networks/routelet".into(),
            writes: true,
        }
    }

    /// The paths that may be used in this way.
    fn with(demand: &Demand, access: Access) -> Vec<String> {
        let rules = demand.rules().into_iter().filter(|r| r.access == access);
        rules.map(|r| r.path.display().to_string()).collect()
    }

    #[test]
    fn a_bare_host_writes_its_state_and_the_sysctls_of_the_network_only() {
        assert_eq!(with(&demand(), Access::Write), ["/var/lib/routelet"]);
        assert_eq!(with(&demand(), Access::Overwrite), ["/dev/null", "/proc/sys/net"]);
        assert_eq!(with(&demand(), Access::Socket), ["/run/routelet"]);
        assert!(with(&demand(), Access::Read).contains(&"/srv/keys".to_owned()));
        assert!(!with(&demand(), Access::Execute).contains(&"/".to_owned()));
        let in_root = Demand { config: "/routelet.toml".into(), ..demand() };
        let read = with(&in_root, Access::Read);
        assert!(read.contains(&"/routelet.toml".to_owned()) && !read.contains(&"/".to_owned()), "{read:?}");
    }

    #[test]
    fn a_node_writes_the_folders_of_the_container_network_too() {
        let node = Demand { cni: Some(cni()), ..demand() };
        let written = ["/etc/cni", "/etc/cni/net.d", "/var/lib/cni/networks/routelet", "/var/lib/routelet"];
        assert_eq!(with(&node, Access::Write), written);
        assert!(with(&node, Access::Execute).contains(&"/opt/cni/bin".to_owned()));
        let reader = Demand { cni: Some(Cni { writes: false, ..cni() }), ..demand() };
        assert_eq!(with(&reader, Access::Write), ["/var/lib/cni/networks/routelet", "/var/lib/routelet"]);
    }

    #[test]
    fn no_folder_directly_below_the_root_can_be_written_to() {
        let node = Demand {
            state_dir: "/srv".into(),
            cni: Some(Cni { conf_dir: "/etc/net.d".into(), ..cni() }),
            ..demand()
        };
        let written = with(&node, Access::Write);
        assert_eq!(written, ["/etc/net.d", "/var/lib/cni/networks/routelet"]);
        let missing = Rule::new("/opt/cni/bin", Access::Execute).or_parent();
        let candidates: Vec<_> = missing.candidates().map(|p| p.display().to_string()).collect();
        assert_eq!(candidates, ["/opt/cni/bin", "/opt/cni"]);
    }

    #[test]
    fn a_program_that_makes_credentials_may_read_and_execute_everything_and_write_nothing_more() {
        let exec = Demand { runs_credential_program: true, ..demand() };
        assert!(with(&exec, Access::Execute).contains(&"/".to_owned()));
        assert_eq!(with(&exec, Access::Write), with(&demand(), Access::Write));
    }
}
