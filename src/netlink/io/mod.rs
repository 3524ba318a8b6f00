//! The sockets of netlink.
//!
//! A [`Channel`] sends requests and reads the replies. [`Notifications`] report changes that anyone
//! makes, a [`Monitor`] also their content. A [`Connection`] is one of the crate rtnetlink, for
//! links and addresses.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

mod channel;
mod connection;
mod notifications;
mod transport;

pub use channel::{Channel, Protocol, Refused};
pub use connection::Connection;
pub use notifications::{Monitor, Notifications, subscribe};
pub use transport::{Transport, is_transient};
