//! A connection of the crate rtnetlink.

use std::{io, ops::Deref};

use rtnetlink::Handle;
use tokio::task::JoinHandle;

/// A socket in the present namespace, with the task that serves it. Both end when it is dropped.
#[derive(Debug)]
pub struct Connection {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Connection {
    /// # Errors
    ///
    /// If the kernel provides no socket.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }
}

impl Deref for Connection {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
