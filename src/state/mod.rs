//! The state folder: what a restart knows from the previous run.
//!
//! A file that could not be written (the disk is full, or read-only) is retried with increasing
//! pauses: [`Pending`] decides when, [`io`] writes. Only the latest content of each file counts.
//! The beginning and the end of the failure are logged, and in between it is a problem.
//!
//! The content on the disk is out of date meanwhile, and a start after a crash must not mistake it
//! for current. A file that could not be replaced is therefore renamed to `NAME.stale`, which needs
//! no space; it is read, with a warning, if there is nothing newer. If not even the renaming
//! succeeds (read-only), only the age of the file in the log shows it.

pub mod io;
mod pending;

pub use pending::{File, News, Pending, WriteError};
