//! Follows the host's DNS resolvers, which the route guard protects.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use tracing::debug;

use crate::{
    fib::resolvers::{are_local, resolvers},
    mailbox::publish,
    pace::tick,
};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved and NetworkManager list the resolvers behind their stub.
const BEHIND_STUBS: [&str; 2] =
    ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// How often the file is read again. It may be replaced, written in place or reached through a link
/// that changes, so it is polled.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Limit of octets that are read.
const MAX_FILE_SIZE: u64 = 64 << 10;

/// The present resolvers, and their changes.
pub fn follow() -> watch::Receiver<Arc<BTreeSet<IpAddr>>> {
    let (current, resolvers) = watch::channel(Arc::new(read().unwrap_or_default()));
    tokio::spawn(async move {
        while !current.is_closed() {
            tick(POLL_INTERVAL).await;
            // A blocked disk holds up this task alone.
            let Ok(now) = tokio::task::spawn_blocking(read).await else { return };
            match now {
                Ok(now) => publish(&current, Arc::new(now)),
                // Those that are known stay protected.
                Err(error) => debug!(%error, "cannot read the host's DNS resolvers"),
            }
        }
    });
    resolvers
}

fn read() -> io::Result<BTreeSet<IpAddr>> {
    let mut found = read_file(Path::new(RESOLV_CONF))?;
    if are_local(&found) {
        for path in BEHIND_STUBS {
            found.extend(read_file(Path::new(path))?);
        }
    }
    Ok(found)
}

/// Empty if the file does not exist or is not for us: a host without resolvers has none to
/// protect.
///
/// # Errors
///
/// If there may be a file, which cannot be read now.
fn read_file(path: &Path) -> io::Result<BTreeSet<IpAddr>> {
    let mut octets = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE_SIZE).read_to_end(&mut octets)) {
        Ok(_) => Ok(resolvers(&String::from_utf8_lossy(&octets))),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Ok(BTreeSet::new())
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_not_one_without_resolvers() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        assert_eq!(read_file(&file).unwrap(), BTreeSet::new(), "there is none");
        std::fs::write(&file, "nameserver 10.0.0.53\n").unwrap();
        assert_eq!(read_file(&file).unwrap().len(), 1);
        assert!(read_file(dir.path()).is_err(), "a folder");
    }
}
