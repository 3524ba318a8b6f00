//! Commands may be abbreviated: `sh nei` is `show neighbors`.

use std::ffi::OsString;

use clap::Command;

/// An abbreviation fits several commands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is ambiguous: {}; write more of it", .fitting.join(", "))]
pub(super) struct Ambiguous {
    text: String,
    fitting: Vec<String>,
}

/// The arguments with the full names of commands.
///
/// # Errors
///
/// One line if an abbreviation fits several commands. Text that fits none is left to clap.
pub(super) fn expand(mut arguments: Vec<OsString>, root: &Command) -> Result<Vec<OsString>, Ambiguous> {
    let mut command = root;
    for argument in arguments.iter_mut().skip(1) {
        let Some(text) = argument.to_str() else { break };
        if !command.has_subcommands() || text.starts_with('-') || text.is_empty() {
            break;
        }
        let Some(name) = full_name(text, command)? else { break };
        *argument = name.clone().into();
        // `help` is added by clap when it parses.
        let Some(next) = command.find_subcommand(&name) else { break };
        command = next;
    }
    Ok(arguments)
}

/// The full name of the subcommand that begins with this text. If all matching names are beginnings
/// of the longest one, as with `neighbor` and `neighbors`, that one is meant.
fn full_name(text: &str, command: &Command) -> Result<Option<String>, Ambiguous> {
    let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
    if names.contains(&text) {
        return Ok(Some(text.to_owned()));
    }
    let mut fitting: Vec<_> = names.into_iter().filter(|name| name.starts_with(text)).collect();
    fitting.sort_unstable();
    let Some(last) = fitting.last() else { return Ok(None) };
    match fitting.iter().all(|name| last.starts_with(name)) {
        true => Ok(Some((*last).to_owned())),
        false => Err(Ambiguous {
            text: text.to_owned(),
            fitting: fitting.into_iter().map(str::to_owned).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    fn expanded(line: &str) -> Result<String, Ambiguous> {
        let arguments = line.split(' ').map(OsString::from).collect();
        let whole = expand(arguments, &command())?;
        Ok(whole.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn unique_beginnings_are_commands() {
        for (line, expected) in [
            ("routelet sh nei", "routelet show neighbors"),
            ("routelet show neighbor 10.0.0.1", "routelet show neighbor 10.0.0.1"),
            ("routelet sho ro 10.0.0.0/8 --longer", "routelet show routes 10.0.0.0/8 --longer"),
            ("routelet n ref 10.0.0.1", "routelet neighbor refresh 10.0.0.1"),
            ("routelet --help", "routelet --help"),
            ("routelet nothing", "routelet nothing"),
            ("routelet reload conf", "routelet reload conf"),
            ("routelet lab sc bfd", "routelet lab scene bfd"),
        ] {
            assert_eq!(expanded(line), Ok(expected.to_owned()));
        }
        assert_eq!(expanded("routelet"), Ok("routelet".into()));
    }

    #[test]
    fn an_ambiguous_beginning_lists_the_commands() {
        assert_eq!(expanded("routelet re"), Ok("routelet reload".into()), "one command");
        let error = expanded("routelet show n").unwrap_err().to_string();
        assert_eq!(error, "`n` is ambiguous: neighbor, neighbors, node; write more of it");
        let error = expanded("routelet neighbor re 10.0.0.1").unwrap_err().to_string();
        assert_eq!(error, "`re` is ambiguous: refresh, reset; write more of it");
    }
}
