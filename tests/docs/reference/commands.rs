//! The page on commands, from the definitions of the command line.

use std::{collections::BTreeMap, fmt::Write as _};

use clap::{Arg, Command};
use routelet::cli::reference;

use super::{cell, wrapped};

/// An option that so many commands have is described once.
const COMMON: usize = 5;

const HEAD: &str = "# Commands

Commands may be abbreviated where that is unique: `routelet sh nei` is `routelet show neighbors`.
Where a command takes a neighbor it takes its address, its interface if it is unnumbered, its
description or the first part of it, or the name of the Node that it is. Errors are one line on
standard error with the cause and the remedy. [reference.md](../reference.md#1-commands) explains
what each is for.
";

/// Name and meaning of an option.
type Row = (String, String);

pub(super) fn page() -> String {
    let roots = reference::commands();
    let mut counts: BTreeMap<Row, usize> = BTreeMap::new();
    roots.iter().for_each(|root| count(root, &mut counts));
    let common: Vec<_> = counts.into_iter().filter(|(_, n)| *n >= COMMON).map(|(row, _)| row).collect();

    let mut page = format!("{HEAD}\n## Exit status\n\n| status | meaning |\n| --- | --- |\n");
    for (status, meaning) in reference::EXIT_STATUS {
        let _ = writeln!(page, "| {status} | {meaning} |");
    }
    page.push_str(
        "\n## Options of many commands\n\nA command has those that its usage or `--help` lists.\n\n",
    );
    table(&mut page, &common);
    for root in &roots {
        section(&mut page, root, &common, 2);
    }
    page
}

fn count(command: &Command, counts: &mut BTreeMap<Row, usize>) {
    for row in rows(command) {
        *counts.entry(row).or_default() += 1;
    }
    subcommands(command).for_each(|sub| count(sub, counts));
}

fn section(page: &mut String, command: &Command, common: &[Row], level: usize) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let about = command.get_long_about().or(command.get_about()).expect("each command has a text");
    let _ = write!(page, "\n{} {name}\n", "#".repeat(level));
    for paragraph in about.to_string().split("\n\n") {
        let end = if paragraph.ends_with(['.', ':']) { "" } else { "." };
        let _ = write!(page, "\n{}\n", wrapped(&format!("{paragraph}{end}")));
    }
    let usage = command.clone().render_usage().to_string();
    let _ = write!(page, "\n```usage\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
    let (shared, own): (Vec<_>, Vec<_>) = rows(command).into_iter().partition(|row| common.contains(row));
    if !own.is_empty() {
        page.push('\n');
        table(page, &own);
    }
    if !shared.is_empty() {
        let names: Vec<_> = shared.iter().map(|(name, _)| format!("`{name}`")).collect();
        let _ = write!(page, "\n{}\n", wrapped(&format!("Also {}.", names.join(", "))));
    }
    subcommands(command).for_each(|sub| section(page, sub, common, 3));
}

fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set())
}

fn table(page: &mut String, rows: &[Row]) {
    page.push_str("| argument | meaning |\n| --- | --- |\n");
    for (name, meaning) in rows {
        let _ = writeln!(page, "| `{}` | {} |", cell(name), cell(meaning));
    }
}

fn rows(command: &Command) -> Vec<Row> {
    let own = command
        .get_arguments()
        .filter(|a| !a.is_hide_set() && !["help", "version"].contains(&a.get_id().as_str()));
    own.map(|argument| (named(argument), meaning(argument))).collect()
}

fn named(argument: &Arg) -> String {
    let short = argument.get_short().map(|c| format!("-{c}, "));
    format!("{}{argument}", short.unwrap_or_default())
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help());
    let mut text = help.unwrap_or_else(|| panic!("no help of {argument}")).to_string();
    if argument.get_action().takes_values() && !argument.is_hide_possible_values_set() {
        let values: Vec<_> =
            argument.get_possible_values().iter().map(|v| format!("`{}`", v.get_name())).collect();
        if !values.is_empty() {
            let _ = write!(text, ": {}", values.join(", "));
        }
    }
    let defaults = argument.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy()));
    let defaults: Vec<_> = defaults.collect();
    if !defaults.is_empty() && argument.get_action().takes_values() {
        let _ = write!(text, " (default: {})", defaults.join(", "));
    }
    text
}
