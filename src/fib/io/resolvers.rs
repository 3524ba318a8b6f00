//! Follows the host's DNS resolvers, which the route guard protects.

use std::{collections::BTreeSet, fs::File, io::Read, net::IpAddr, path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    fib::resolvers::{are_local, resolvers},
    mailbox::publish,
};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved and NetworkManager list the resolvers behind their stub.
const BEHIND_STUBS: [&str; 2] =
    ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// How often the file is read again. It may be replaced, written in place or reached through a link
/// that changes, so it is polled.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Limit of octets that are read.
const MAX_FILE_SIZE: u64 = 64 << 10;

/// The present resolvers, and their changes.
pub fn follow() -> watch::Receiver<Arc<BTreeSet<IpAddr>>> {
    let (current, resolvers) = watch::channel(Arc::new(read()));
    tokio::spawn(async move {
        while !current.is_closed() {
            tokio::time::sleep(POLL_INTERVAL).await;
            // A blocked disk holds up this task alone.
            let Ok(now) = tokio::task::spawn_blocking(read).await else { return };
            publish(&current, Arc::new(now));
        }
    });
    resolvers
}

fn read() -> BTreeSet<IpAddr> {
    let mut found = read_file(Path::new(RESOLV_CONF));
    if are_local(&found) {
        found.extend(BEHIND_STUBS.iter().flat_map(|path| read_file(Path::new(path))));
    }
    found
}

/// Empty if the file does not exist: a host without resolvers has none to protect.
fn read_file(path: &Path) -> BTreeSet<IpAddr> {
    let mut octets = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_SIZE).read_to_end(&mut octets));
    read.map(|_| resolvers(&String::from_utf8_lossy(&octets))).unwrap_or_default()
}
