use std::fmt::Write;

use super::layout::Layout;
use crate::net::{Diagnostic, Severity};

/// A paragraph for each problem, and their number.
pub(super) fn text(problems: &[Diagnostic], layout: Layout) -> String {
    let mut text = String::new();
    for problem in problems {
        let heading = format!("{}: {} ({})", problem.severity, problem.reason, problem.subject);
        text += &layout.wrap(&heading, "", "    ");
        text += &layout.wrap(&problem.text, "  ", "  ");
        if !problem.remedy.is_empty() {
            text += &layout.wrap(&problem.remedy, "  -> ", "     ");
        }
    }
    let count = |severity, name| match problems.iter().filter(|p| p.severity == severity).count() {
        1 => format!("1 {name}"),
        n => format!("{n} {name}s"),
    };
    let (errors, warnings) = (count(Severity::Error, "error"), count(Severity::Warning, "warning"));
    // Writing to a string cannot fail.
    let _ = match problems {
        [] => writeln!(text, "no problems found"),
        _ => writeln!(text, "problems: {errors}, {warnings}, {} in all", problems.len()),
    };
    text
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
        let shown = text(&problems, Layout::default());
        assert_eq!(
            shown,
            "error: ForwardingOff (sysctl net.ipv4.ip_forward)\n  net.ipv4.ip_forward: is 0 and may not be set here (read-only): packets of\n  \
             containers are not forwarded\n  -> run `sysctl -w net.ipv4.ip_forward=1` on the host\n\
             info: Drained (host)\n  this node is drained\nproblems: 1 error, 0 warnings, 2 in all\n"
        );
        assert_eq!(text(&[], Layout::default()), "no problems found\n");
    }
}
