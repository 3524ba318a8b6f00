//! The commands' access to arguments, environment, clock and standard output.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

use std::{
    env,
    ffi::OsString,
    fs,
    io::{ErrorKind, IsTerminal, Read, Write, stderr, stdin, stdout},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::Failure;
use crate::{
    control::render::Layout,
    convert::{Input, MAX_INPUT},
    daemon::Environment,
};

pub(super) fn arguments() -> Vec<OsString> {
    env::args_os().collect()
}

/// The environment variables that routelet uses; empty ones count as not set.
pub(super) fn environment() -> Environment {
    let variable = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    Environment {
        node_name: variable("NODE_NAME"),
        kubernetes_service_host: variable("KUBERNETES_SERVICE_HOST"),
        kubernetes_service_port: variable("KUBERNETES_SERVICE_PORT"),
    }
}

pub(super) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The text that clears a terminal on standard output, or separates screens elsewhere.
pub(super) fn new_screen() -> &'static str {
    if stdout().is_terminal() { "\x1b[H\x1b[2J\x1b[3J" } else { "\n" }
}

/// The layout for the terminal on standard output, if it is one.
pub(super) fn layout() -> Layout {
    let columns = terminal_size::terminal_size_of(stdout()).map(|(columns, _)| columns.0.into());
    Layout::on_terminal(columns)
}

pub(super) fn wait(time: Duration) {
    thread::sleep(time);
}

/// The values that `read` finds within this time, at most `max`. `read` passes each value to its
/// argument, which returns whether more are wanted. After this time `read` is no longer waited for.
pub(super) fn values_within(
    time: Duration,
    max: usize,
    read: impl FnOnce(&mut dyn FnMut(String) -> bool) + Send + 'static,
) -> Vec<String> {
    let end = Instant::now() + time;
    let (sender, values) = mpsc::sync_channel(max);
    thread::spawn(move || read(&mut |value| sender.send(value).is_ok()));
    let mut found = Vec::new();
    while found.len() < max
        && let Ok(value) = values.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        found.push(value);
    }
    found
}

/// Writes to standard output. A closed pipe (`| head`) is not an error.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(format!("standard output cannot be written: {e}; is the disk full?")))
        }
        _ => Ok(()),
    }
}

/// Writes to standard output, and returns whether it is still open: for commands that keep
/// printing.
pub(super) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Failure::Runtime(format!("standard output cannot be written: {e}; is the disk full?"))),
    }
}

/// Writes to standard error.
pub(super) fn print_error(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Writes the man pages of `command` and all commands below it.
pub(super) fn write_man(command: clap::Command, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

/// A file to convert, up to one octet more than is converted; `-` is standard input.
pub(super) fn read_input(path: &Path) -> Result<Input, Failure> {
    let name = path.display().to_string();
    let cannot = |e: std::io::Error| Failure::Usage(format!("{name}: cannot be read: {e}"));
    let limit = u64::try_from(MAX_INPUT).unwrap_or(u64::MAX).saturating_add(1);
    let mut octets = Vec::new();
    if path == Path::new("-") {
        stdin().lock().take(limit).read_to_end(&mut octets).map_err(cannot)?;
    } else {
        fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut octets)).map_err(cannot)?;
    }
    let text = String::from_utf8(octets)
        .map_err(|_| Failure::Usage(format!("{name}: is not text in UTF-8; convert it with iconv first")))?;
    Ok(Input { name, text })
}

/// Writes a file that does not exist yet. It may contain passwords, so only its owner may read it.
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| {
        let advice =
            if e.kind() == ErrorKind::AlreadyExists { "; name another file, or remove it" } else { "" };
        Failure::Runtime(format!("{}: cannot be written: {e}{advice}", path.display()))
    })
}
