//! Whether systemd is shutting the whole machine down. No program is started to find out.
//!
//! The property is read over systemd's private socket, which root can use until the end, or else
//! over the system bus, which anybody can use. If neither works, there is no systemd, or it cannot
//! be reached.

mod dbus;

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

/// systemd's private socket, for root only. It needs no message to a bus first.
const PRIVATE: &str = "/run/systemd/private";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// Timeout for both sockets together: a machine that shuts down waits for us.
const BUS_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum octets to read: the messages have some hundred.
const MAX_RECEIVED: usize = 64 * 1024;

/// Whether systemd is shutting the whole machine down, so that it will forward nothing for our
/// neighbors.
pub(super) async fn stops() -> bool {
    let state = async {
        match system_state(Path::new(PRIVATE), false).await {
            Ok(state) => Ok(state),
            Err(_) => system_state(Path::new(SYSTEM_BUS), true).await,
        }
    };
    match timeout(BUS_TIMEOUT, state).await {
        Ok(Ok(state)) => state == "stopping",
        Ok(Err(error)) => {
            tracing::debug!(%error, "state of systemd cannot be read");
            false
        }
        Err(_) => false,
    }
}

/// The property `SystemState` of systemd: "running", "degraded", "stopping" and some more.
async fn system_state(socket: &Path, is_bus: bool) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&dbus::authentication(nix::unistd::geteuid().as_raw())).await?;
    let mut received = Vec::new();
    while !dbus::is_authenticated(&received).map_err(io::Error::other)? {
        read(&mut stream, &mut received).await?;
    }
    received.clear();
    stream.write_all(dbus::BEGIN).await?;
    if is_bus {
        stream.write_all(&dbus::hello()).await?;
    }
    stream.write_all(&dbus::get_system_state()).await?;
    loop {
        read(&mut stream, &mut received).await?;
        if let Some(state) = dbus::system_state(&mut received).map_err(io::Error::other)? {
            return Ok(state);
        }
    }
}

async fn read(stream: &mut UnixStream, received: &mut Vec<u8>) -> io::Result<()> {
    if received.len() > MAX_RECEIVED || stream.read_buf(received).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bus that sends its replies octet by octet.
    async fn bus(path: &Path, state: &'static str) {
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut line = vec![0; 128];
        let n = stream.read(&mut line).await.unwrap();
        assert!(line[..n].starts_with(b"\0AUTH EXTERNAL ") && line[..n].ends_with(b"\r\n"));
        stream.write_all(b"OK 1234\r\n").await.unwrap();
        let mut calls = vec![0; 1024];
        let mut n = 0;
        while n < dbus::BEGIN.len() + dbus::hello().len() + dbus::get_system_state().len() {
            n += stream.read(&mut calls[n..]).await.unwrap();
        }
        for octet in dbus::tests::replies(state) {
            stream.write_all(&[octet]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_state_is_read_from_the_bus() {
        let dir = tempfile::tempdir().unwrap();
        for state in ["stopping", "running"] {
            let path = dir.path().join(state);
            let bus = tokio::spawn({
                let path = path.clone();
                async move { bus(&path, state).await }
            });
            while !path.exists() {
                tokio::task::yield_now().await;
            }
            assert_eq!(system_state(&path, true).await.unwrap(), state);
            bus.await.unwrap();
        }
        assert!(system_state(&dir.path().join("missing"), false).await.is_err());
    }
}
