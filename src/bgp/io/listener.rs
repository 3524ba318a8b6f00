//! One listening socket: binds, retries while the port is taken, sets the passwords of neighbors,
//! and passes accepted connections to the manager, which assigns them to neighbors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    path::Path,
    sync::Arc,
    time::Duration,
};

use nix::libc;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time,
};
use tracing::{debug, info, warn};

use super::{Owners, tcp};
use crate::{
    bgp::peer::Secret,
    net::{Diagnostic, Prefix},
    supervise::supervise,
};

/// TCP MD5 passwords by address; the name is the interface of a link-local neighbor.
pub(super) type Passwords = BTreeMap<(Prefix, Option<String>), Secret>;

/// Settings of the listening sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) passwords: Passwords,
    /// Links on which a link-local address has another password than on other links, or none: they
    /// have listening sockets of their own. The number distinguishes successive interfaces of one
    /// name.
    pub(super) apart: BTreeSet<Device>,
    /// RFC 5082 §3: the smallest TTL that any neighbor may send with; segments with a smaller one
    /// are dropped. Larger values of single neighbors apply to their accepted connections.
    pub(super) least_ttl: u8,
}

/// An interface by name and number.
pub(super) type Device = (String, u32);

/// An accepted connection.
pub(super) type Call = (TcpStream, SocketAddr);

/// Interval of attempts to bind a port that is taken.
const BIND_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// How long to pause when the kernel cannot accept (too many files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Interval of warnings about that.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Listens on `addr`, optionally on one device, until the receiver of connections is dropped.
pub(super) async fn run(
    addr: SocketAddr,
    device: Option<Device>,
    terms: watch::Receiver<Arc<Terms>>,
    calls: mpsc::Sender<Call>,
    ports: Ports,
) {
    let start = || listen(addr, device.clone(), terms.clone(), calls.clone(), ports.clone());
    supervise("BGP listener", start).await;
}

/// Which addresses are taken, and by whom.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub(super) problems: watch::Sender<Vec<Diagnostic>>,
    pub(super) owners: Arc<Owners>,
}

impl Ports {
    /// Only these are wanted now.
    pub(super) fn retain(&self, addrs: &[SocketAddr]) {
        let wanted: Vec<_> = addrs.iter().map(|a| format!("TCP {a}")).collect();
        self.change(|all| all.retain(|p| wanted.contains(&p.subject.name)));
    }

    fn taken(&self, addr: SocketAddr, error: &io::Error) {
        let owner = owner(addr.port()).or_else(|| self.owners.get(&addr.port()).cloned());
        let problem = super::port_taken(addr, "bgp.listen", error, owner.as_ref());
        self.change(|all| {
            all.retain(|p| p.subject != problem.subject);
            all.push(problem.clone());
        });
    }

    fn free(&self, addr: SocketAddr) {
        let name = format!("TCP {addr}");
        self.change(|all| all.retain(|p| p.subject.name != name));
    }

    fn change(&self, change: impl Fn(&mut Vec<Diagnostic>)) {
        self.problems.send_if_modified(|all| {
            let before = all.clone();
            change(all);
            *all != before
        });
    }
}

async fn listen(
    addr: SocketAddr,
    device: Option<Device>,
    mut terms: watch::Receiver<Arc<Terms>>,
    calls: mpsc::Sender<Call>,
    ports: Ports,
) {
    let device = device.map(|(name, _)| name);
    let listener = match &device {
        None => bind(addr, &ports).await,
        Some(device) => bind_device(addr, device).await,
    };
    let mut set = Keys::new();
    let mut warned: Option<time::Instant> = None;
    loop {
        let wanted = terms.borrow_and_update().clone();
        apply(&listener, addr, &mut set, &keys(&wanted.passwords, device.as_deref()));
        if device.is_none()
            && addr.is_ipv6()
            && let Err(e) = tcp::share_port(&listener, !wanted.apart.is_empty())
        {
            warn!(%addr, error = %e, "cannot share the port between listening sockets of single links");
        }
        if let Err(e) = tcp::set_least_ttl(listener.as_fd(), addr.ip(), wanted.least_ttl) {
            warn!(%addr, error = %e, "cannot set the minimum TTL (GTSM)");
        }
        tokio::select! {
            accepted = listener.accept() => match accepted.and_then(enough_files) {
                Ok((stream, _)) if tcp::leads_back(&stream) => {}
                Ok(call) => if calls.send(call).await.is_err() { return },
                Err(e) => {
                    if warned.is_none_or(|at| at.elapsed() > ACCEPT_WARNING_INTERVAL) {
                        warned = Some(time::Instant::now());
                        warn!(%addr, error = %e, "cannot accept BGP connections");
                    }
                    time::sleep(ACCEPT_PAUSE).await;
                }
            },
            changed = terms.changed() => if changed.is_err() { return },
        }
    }
}

/// Refuses a connection that leaves too few open files.
fn enough_files(call: Call) -> io::Result<Call> {
    tcp::leaves_files(call.0.as_fd())?;
    Ok(call)
}

/// Binds, and retries until it succeeds. Logs one warning, with the process that has the port if
/// known.
async fn bind(addr: SocketAddr, ports: &Ports) -> TcpListener {
    let mut warned = false;
    loop {
        let mut pause = BIND_RETRY_INTERVAL;
        match tcp::listen(addr, None) {
            Ok(listener) => {
                info!(%addr, "listening for BGP neighbors");
                ports.free(addr);
                return listener;
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                debug!(%addr, error = %e, "cannot open the listening socket, retrying");
                pause = ACCEPT_PAUSE;
            }
            Err(e) if !warned => {
                warned = true;
                ports.taken(addr, &e);
            }
            Err(e) => debug!(%addr, error = %e, "cannot listen for BGP, retrying"),
        }
        time::sleep(pause).await;
    }
}

/// The same on one device, besides the socket for all.
async fn bind_device(addr: SocketAddr, device: &str) -> TcpListener {
    let mut warned = false;
    loop {
        match tcp::listen(addr, Some(device)) {
            Ok(listener) => {
                info!(%addr, device, "listening for BGP neighbors of this link");
                return listener;
            }
            // The other socket may not share the port yet.
            Err(e) if warned => warn!(%addr, device, error = %e, "cannot listen on a single link"),
            Err(_) => {}
        }
        time::sleep(if warned { BIND_RETRY_INTERVAL } else { ACCEPT_PAUSE * 5 }).await;
        warned = true;
    }
}

/// Passwords of one socket by address.
type Keys = BTreeMap<Prefix, Secret>;

/// The passwords of the socket for all, or of the one on a device, which of all link-local
/// neighbors only has those on its link.
fn keys(passwords: &Passwords, device: Option<&str>) -> Keys {
    let here = |interface: &Option<String>| match (interface.as_deref(), device) {
        (Some(interface), Some(device)) => interface == device,
        _ => true,
    };
    passwords.iter().filter(|((_, at), _)| here(at)).map(|((who, _), p)| (*who, p.clone())).collect()
}

/// Sets and removes passwords in the kernel. One that the kernel refuses is logged and left out.
fn apply(listener: &TcpListener, addr: SocketAddr, set: &mut Keys, wanted: &Keys) {
    let mine = |who: &Prefix| who.addr().is_ipv4() == addr.is_ipv4();
    let gone: Vec<_> = set.keys().filter(|k| !wanted.contains_key(k)).copied().collect();
    for key in gone {
        set.remove(&key);
        if let Err(e) = tcp::set_password(listener.as_fd(), key, None) {
            debug!(neighbor = %key, error = %e, "cannot remove a TCP MD5 password");
        }
    }
    for (key, password) in wanted.iter().filter(|(who, _)| mine(who)) {
        if set.get(key) == Some(password) {
            continue;
        }
        match tcp::set_password(listener.as_fd(), *key, Some(password)) {
            Ok(()) => {
                set.insert(*key, password.clone());
            }
            Err(e) => warn!(neighbor = %key, error = %e, "cannot set a TCP MD5 password"),
        }
    }
}

/// The process that listens on `port`, if /proc shows it: `bgpd (pid 812)`.
pub(super) fn owner(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let entries = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut processes = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let pid = processes.find(|pid| holds(*pid, &inodes).unwrap_or(false))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} (pid {pid})", name.trim()))
}

/// Inodes of the sockets that listen on `port`, from a table like /proc/net/tcp.
fn listening(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let row = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == "0A";
        listens.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
    };
    table.lines().filter_map(row).collect()
}

fn holds(pid: u32, inodes: &[String]) -> io::Result<bool> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(Result::ok);
    Ok(open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|l| inodes.iter().any(|i| l == Path::new(i))))
}

/// The address as configured: without scope, and IPv4 as IPv4.
pub(super) fn plain(addr: SocketAddr) -> IpAddr {
    addr.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn listening_sockets_are_found_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 00000000:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
            1: 0100007F:00B3 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
            2: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n";
        assert_eq!(listening(table, 179), ["socket:[4711]"]);
    }

    #[tokio::test]
    async fn the_owner_of_a_taken_port_is_named() {
        let listener = tcp::listen("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = format!("(pid {})", std::process::id());
        let owner = owner(port).unwrap();
        assert!(owner.ends_with(&me), "{owner}, not {me}");
        assert_eq!(
            tcp::listen(SocketAddr::from(([127, 0, 0, 1], port)), None).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
    }
}
