//! BGP-4: our own speaker, table and decisions.

pub mod io;
pub mod peer;
pub mod policy;
pub mod rib;
pub mod session;
pub mod view;
pub mod wire;
