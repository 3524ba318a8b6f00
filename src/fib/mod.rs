//! From best routes to kernel routes.
pub mod host;
pub mod io;
pub mod view;
