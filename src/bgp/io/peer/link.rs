//! One TCP connection: reads and writes without copying, and closes gracefully.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{ErrorKind, IoSlice},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

use super::{
    CLOSE_TIMEOUT, INITIAL_READ, MAX_LEFTOVER, MAX_READ, MAX_WRITE_CHUNKS, UNREACHABLE_CLOSE_TIMEOUT,
};
use crate::bgp::{io::tcp, session::Conn};

/// One TCP connection.
pub(super) struct Link {
    pub(super) conn: Conn,
    pub(super) stream: TcpStream,
    pub(super) rx: BytesMut,
    /// Octets of the next read.
    pub(super) read_size: usize,
    pub(super) tx: VecDeque<Bytes>,
    pub(super) unsent: usize,
    /// Its local address was removed from this host.
    pub(super) source_gone: bool,
}

/// An event of a connection.
pub(super) enum ConnectionEvent {
    Read(usize),
    Wrote(Conn, usize),
    Closed(Conn, Option<String>),
}

impl Link {
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEvent> {
        while !self.tx.is_empty() {
            if let Err(e) = std::task::ready!(self.stream.poll_write_ready(cx)) {
                return Poll::Ready(ConnectionEvent::Closed(self.conn, Some(e.to_string())));
            }
            let slices: Vec<_> = self.tx.iter().take(MAX_WRITE_CHUNKS).map(|b| IoSlice::new(b)).collect();
            match self.stream.try_write_vectored(&slices) {
                Ok(n) => {
                    self.wrote(n);
                    return Poll::Ready(ConnectionEvent::Wrote(self.conn, n));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(ConnectionEvent::Closed(self.conn, Some(e.to_string()))),
            }
        }
        Poll::Pending
    }

    fn wrote(&mut self, mut n: usize) {
        self.unsent -= n;
        while let Some(chunk) = self.tx.front_mut().filter(|_| n > 0) {
            let part = n.min(chunk.len());
            chunk.advance(part);
            n -= part;
            if chunk.is_empty() {
                self.tx.pop_front();
            }
        }
    }

    /// The buffer exists only while there is something to read: a thousand idle neighbors need
    /// none.
    fn poll_read(&mut self, cx: &mut Context<'_>, at: usize) -> Poll<ConnectionEvent> {
        loop {
            if let Err(e) = std::task::ready!(self.stream.poll_read_ready(cx)) {
                return Poll::Ready(ConnectionEvent::Closed(self.conn, Some(e.to_string())));
            }
            self.rx.reserve(self.read_size);
            let room = self.rx.capacity() - self.rx.len();
            // After a short read tokio knows that the socket is empty, and makes no further call.
            let read = std::pin::pin!(self.stream.read_buf(&mut self.rx)).poll(cx);
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(ConnectionEvent::Closed(self.conn, None)),
                Poll::Ready(Ok(n)) => {
                    self.read_size = if n == room { MAX_READ } else { INITIAL_READ };
                    return Poll::Ready(ConnectionEvent::Read(at));
                }
                Poll::Ready(Err(e)) => {
                    return Poll::Ready(ConnectionEvent::Closed(self.conn, Some(e.to_string())));
                }
                Poll::Pending if self.rx.is_empty() => self.rx = BytesMut::new(),
                Poll::Pending => {}
            }
        }
    }
}

/// The first event of any connection.
pub(super) async fn links_turn(links: &mut [Link], may_read: bool) -> ConnectionEvent {
    poll_fn(|cx| {
        for (at, link) in links.iter_mut().enumerate() {
            if let Poll::Ready(did) = link.poll_write(cx) {
                return Poll::Ready(did);
            }
            if may_read && let Poll::Ready(did) = link.poll_read(cx, at) {
                return Poll::Ready(did);
            }
        }
        Poll::Pending
    })
    .await
}

/// Closes a connection so that its last messages arrive: writes them, shuts down the sending side,
/// and reads until the other end closes too. (Closing with unread octets would send a reset, which
/// overtakes the NOTIFICATION.) Returns the first octets read.
pub(super) async fn linger(mut link: Link) -> BytesMut {
    let mut leftover = BytesMut::new();
    let last_words = async {
        for chunk in &link.tx {
            link.stream.write_all(chunk).await?;
        }
        if link.source_gone {
            time::sleep(UNREACHABLE_CLOSE_TIMEOUT).await;
            return tcp::reset_on_close(&link.stream);
        }
        link.stream.shutdown().await?;
        let mut rest = [0; MAX_LEFTOVER];
        loop {
            let n = link.stream.read(&mut rest).await?;
            if n == 0 {
                return std::io::Result::Ok(());
            }
            let room = MAX_LEFTOVER - leftover.len();
            leftover.extend_from_slice(&rest[..n.min(room)]);
        }
    };
    let _ = time::timeout(CLOSE_TIMEOUT, last_words).await;
    leftover
}
