//! Values that shells complete from the running daemon: neighbors, prefixes and policies.
//!
//! The script of a shell calls `routelet completions --values LINE` with the line up to the cursor,
//! and gets the values that fit the word there, one per line. There are none if no daemon runs, or
//! if it does not respond in time.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Arg, ArgAction, Command};

use super::{Failure, abbreviation, io};
use crate::control::{Query, Response, RouteFilter, io::client};

/// How long a shell waits.
const TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum number of values; nobody reads more.
const MAX_VALUES: usize = 200;
/// The control socket, unless the line contains another one.
const SOCKET: &str = "/run/routelet/routelet.sock";

/// The kinds of values that the word at the cursor can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Neighbor,
    NeighborOrAll,
    Prefix,
    Policy,
}

/// The word at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    kind: Kind,
    /// The part of it that is written already.
    word: String,
    socket: PathBuf,
}

/// Prints the values that fit the end of a line.
pub(super) fn print(line: &str, root: &Command) -> Result<(), Failure> {
    let Some(wanted) = wanted(line, root) else { return Ok(()) };
    let Wanted { kind, word, socket } = wanted;
    let values = io::values_within(TIMEOUT, MAX_VALUES, move |found| {
        read(kind, &socket, &mut |value| !value.starts_with(&word) || found(value));
    });
    let values: BTreeSet<_> = values.into_iter().collect();
    io::print(&values.into_iter().map(|value| value + "\n").collect::<String>())
}

/// Requests the values, until `found` returns that enough were found. After an error there are
/// none.
fn read(kind: Kind, socket: &Path, found: &mut dyn FnMut(String) -> bool) {
    let query = match kind {
        Kind::Neighbor | Kind::NeighborOrAll => Query::Neighbors,
        Kind::Prefix => Query::Routes(RouteFilter::default()),
        Kind::Policy => Query::Policies(None),
    };
    let Ok(mut responses) = client::open(socket, query) else { return };
    while let Ok(Some(response)) = responses.read() {
        let values: Vec<String> = match response {
            Response::Neighbors(list) => {
                let all = (kind == Kind::NeighborOrAll).then(|| "all".to_owned());
                list.into_iter().map(|n| n.address).chain(all).collect()
            }
            Response::Routes(list) => list.into_iter().map(|route| route.prefix.to_string()).collect(),
            Response::Policies(list) => list.into_iter().map(|policy| policy.name).collect(),
            _ => return,
        };
        if !values.into_iter().all(&mut *found) {
            return;
        }
    }
}

/// The value at the end of the line, if the daemon knows such values.
fn wanted(line: &str, root: &Command) -> Option<Wanted> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let word = if line.ends_with(char::is_whitespace) { "" } else { words.pop()? };
    let arguments = abbreviation::expand(words.iter().map(OsString::from).collect(), root).ok()?;
    let arguments: Vec<&str> = arguments.iter().filter_map(|a| a.to_str()).collect();
    let (mut command, mut path, mut rest) = (root, Vec::new(), arguments.get(1..)?);
    while let [name, further @ ..] = rest
        && let Some(next) = command.find_subcommand(name)
    {
        (command, rest) = (next, further);
        path.push(next.get_name());
    }
    let (argument, socket) = at_the_end(command, rest, word)?;
    let kind = kind(&path, argument.get_id().as_str())?;
    Some(Wanted { kind, word: word.to_owned(), socket })
}

/// The argument to which `word` belongs if it follows `words`, and the socket in `words`.
fn at_the_end<'c>(command: &'c Command, words: &[&str], word: &str) -> Option<(&'c Arg, PathBuf)> {
    let (mut places, mut option, mut socket) = (0, None, SOCKET);
    for &text in words {
        if let Some(argument) = option.take() {
            if is(argument, "socket") {
                socket = text;
            }
        } else if let Some(name) = text.strip_prefix("--") {
            match name.split_once('=') {
                Some(("socket", value)) => socket = value,
                Some(_) => {}
                None => {
                    option =
                        command.get_arguments().find(|a| a.get_long() == Some(name)).filter(|a| has_value(a))
                }
            }
        } else if let Some(name) = text.strip_prefix('-') {
            let short = name.chars().last();
            option = command.get_arguments().find(|a| a.get_short() == short).filter(|a| has_value(a));
        } else {
            places += 1;
        }
    }
    let argument = match option {
        Some(argument) => Some(argument),
        None if word.starts_with('-') => None,
        None => command.get_positionals().nth(places),
    };
    Some((argument?, socket.into()))
}

fn is(argument: &Arg, id: &str) -> bool {
    argument.get_id().as_str() == id
}

/// Whether the next word is the value of this argument.
fn has_value(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Set | ArgAction::Append) && !argument.is_require_equals_set()
}

fn kind(path: &[&str], argument: &str) -> Option<Kind> {
    match (path, argument) {
        (["show", "neighbor" | "neighbors"], "address") => Some(Kind::Neighbor),
        (["show", "routes"], "neighbor" | "received" | "advertised" | "not_advertised") => {
            Some(Kind::Neighbor)
        }
        (["show", "routes"], "prefix") => Some(Kind::Prefix),
        (["show", "policy"], "name") => Some(Kind::Policy),
        (["neighbor", _], "address") => Some(Kind::NeighborOrAll),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    #[test]
    fn the_word_at_the_cursor_is_a_neighbor_a_prefix_or_a_policy() {
        let root = command();
        #[rustfmt::skip]
        let cases = [
            ("routelet show neighbor ",                             Some((Kind::Neighbor, ""))),
            ("routelet sh nei 10.",                                 Some((Kind::Neighbor, "10."))),
            ("routelet show neighbor --no-headers 10.",             Some((Kind::Neighbor, "10."))),
            ("routelet show neighbor -o json 10.",                  Some((Kind::Neighbor, "10."))),
            ("routelet show neighbor 10.0.0.1 ",                    None),
            ("routelet show neighbor -",                            None),
            ("routelet show routes 2001:db8:",                      Some((Kind::Prefix, "2001:db8:"))),
            ("routelet show routes --received ",                    Some((Kind::Neighbor, ""))),
            ("routelet show routes --received 10.0.0.1 10.",        Some((Kind::Prefix, "10."))),
            ("routelet show routes --refused --community 1:1 10.",  Some((Kind::Prefix, "10."))),
            ("routelet show routes --community 1:",                 None),
            ("routelet show routes --watch 10.",                    Some((Kind::Prefix, "10."))),
            ("routelet show policy fr",                             Some((Kind::Policy, "fr"))),
            ("routelet neighbor reset ",                            Some((Kind::NeighborOrAll, ""))),
            ("routelet neighbor reset --message ",                  None),
            ("routelet show ",                                      None),
            ("routelet",                                            None),
            ("routelet ",                                           None),
            ("",                                                    None),
            ("routelet nothing ",                                   None),
            ("routelet explain ",                                   None),
        ];
        for (line, expected) in cases {
            let found = wanted(line, &root);
            let found = found.as_ref().map(|w| (w.kind, w.word.as_str()));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn the_socket_is_that_of_the_line() {
        let root = command();
        let socket = |line| wanted(line, &root).map(|w| w.socket.display().to_string());
        for (line, expected) in [
            ("routelet show policy ", SOCKET),
            ("routelet show policy --socket /tmp/a ", "/tmp/a"),
            ("routelet show policy --socket=/tmp/a ", "/tmp/a"),
        ] {
            assert_eq!(socket(line).as_deref(), Some(expected), "{line}");
        }
    }
}
