//! BGP-4: our own speaker, table and decisions.

pub mod bfd;
pub mod contest;
pub mod event_limit;
pub mod exchange;
pub mod io;
pub mod md5;
pub mod outage;
pub mod peer;
pub mod policy;
pub mod retention;
pub mod rib;
pub mod session;
pub mod standing;
pub mod view;
pub mod wire;
