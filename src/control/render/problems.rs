use std::fmt::Write;

use crate::net::{Diagnostic, Severity};

/// Columns of a line.
const WIDTH: usize = 80;

/// A paragraph for each, and their number.
pub(super) fn text(problems: &[Diagnostic]) -> String {
    let mut text = String::new();
    for problem in problems {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}: {} ({})", problem.severity, problem.reason, problem.subject);
        wrap(&mut text, &problem.text, "  ", "  ");
        if !problem.remedy.is_empty() {
            wrap(&mut text, &problem.remedy, "  -> ", "     ");
        }
    }
    let count = |severity, name| match problems.iter().filter(|p| p.severity == severity).count() {
        1 => format!("1 {name}"),
        n => format!("{n} {name}s"),
    };
    let (errors, warnings) = (count(Severity::Error, "error"), count(Severity::Warning, "warning"));
    let _ = match problems {
        [] => writeln!(text, "no problems found"),
        _ => writeln!(text, "problems: {errors}, {warnings}, {} in all", problems.len()),
    };
    text
}

fn wrap(text: &mut String, sentence: &str, first: &str, rest: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in sentence.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            rest.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Reason, Subject};

    #[test]
    fn each_problem_is_a_paragraph_of_80_columns() {
        let problems = [
            Diagnostic::new(
                Reason::ForwardingOff,
                Subject::sysctl("net.ipv4.ip_forward"),
                "net.ipv4.ip_forward: is 0 and may not be set here (read-only): packets of containers are not forwarded",
                "run `sysctl -w net.ipv4.ip_forward=1` on the host",
            ),
            Diagnostic::new(Reason::Drained, Subject::host(), "this node is drained", ""),
        ];
        let shown = text(&problems);
        assert_eq!(
            shown,
            "error: ForwardingOff (sysctl net.ipv4.ip_forward)\n  net.ipv4.ip_forward: is 0 and may not be set here (read-only): packets of\n  \
             containers are not forwarded\n  -> run `sysctl -w net.ipv4.ip_forward=1` on the host\n\
             info: Drained (host)\n  this node is drained\nproblems: 1 error, 0 warnings, 2 in all\n"
        );
        assert_eq!(text(&[]), "no problems found\n");
    }
}
