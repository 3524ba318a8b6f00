//! Follows the host's resolvers, which the route guard protects.

use std::{collections::BTreeSet, fs::File, io::Read, net::IpAddr, path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::fib::resolvers::{are_local, resolvers};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved and NetworkManager keep the resolvers that their stub asks.
const BEHIND_STUBS: [&str; 2] =
    ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// How often the file is read again. It is replaced, written in place or reached by a link that changes: nothing but
/// reading it tells.
const PERIOD: Duration = Duration::from_secs(2);
/// Octets of it that are read.
const MOST: u64 = 64 << 10;

/// The resolvers as they are now, and as they change.
pub fn follow() -> watch::Receiver<Arc<BTreeSet<IpAddr>>> {
    let (publish, resolvers) = watch::channel(Arc::new(read()));
    tokio::spawn(async move {
        while !publish.is_closed() {
            tokio::time::sleep(PERIOD).await;
            // A disk that hangs holds up this task alone.
            let Ok(now) = tokio::task::spawn_blocking(read).await else { return };
            publish.send_if_modified(|old| {
                let differs = **old != now;
                if differs {
                    *old = Arc::new(now);
                }
                differs
            });
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

/// None where there is no such file: a host without resolvers has nothing to protect.
fn read_file(path: &Path) -> BTreeSet<IpAddr> {
    let mut octets = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut octets));
    read.map(|_| resolvers(&String::from_utf8_lossy(&octets))).unwrap_or_default()
}
