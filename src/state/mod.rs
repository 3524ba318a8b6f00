//! The state folder: what a restart knows of the run before.
//!
//! A file that could not be written (the disk is full, or read-only) is written again until it is
//! there, with growing pauses: [`Pending`] decides when, [`io`] does it. Only the latest content of
//! each file counts. There is a log line when it begins and when it is over, and a problem in
//! between.
//!
//! What is on the disk meanwhile is out of date, and a start after a crash must not take it for
//! current. So a file that could not be replaced is renamed to `NAME.stale`, which needs no room;
//! it is read where there is nothing newer, with a warning. Where not even that is possible
//! (read-only) the age of the file in the log is all there is.

pub mod io;
mod pending;

pub use pending::{File, News, Pending, WriteError};
