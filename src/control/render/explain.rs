use super::layout::Layout;
use crate::explain::{Explanation, Outcome, Step, Verdict};

/// A paragraph for each step, and the verdict.
pub(super) fn text(explanation: &Explanation, layout: Layout) -> String {
    let from = explanation.from.map(|a| format!(" from {a}")).unwrap_or_default();
    let mut text = layout.wrap(&format!("packets to {}{from}", explanation.address), "", "  ") + "\n";
    for step in &explanation.steps {
        text += &paragraph(step, layout);
    }
    let verdict = match (explanation.verdict, explanation.stopped_by) {
        (Verdict::Stopped, Some(step)) => format!("stopped by {}", step.as_str()),
        (Verdict::Stopped, None) => "stopped".into(),
        (Verdict::Reachable, _) => "reachable".into(),
    };
    text.push('\n');
    text += &layout.wrap(&format!("{verdict}: {}", explanation.text), "", "  ");
    if let Some(remedy) = &explanation.remedy {
        text += &layout.wrap(remedy, "  -> ", "     ");
    }
    text
}

fn paragraph(step: &Step, layout: Layout) -> String {
    let head = format!("{:<8}{:<16}", step.result.as_str(), step.step.as_str());
    let mut text = layout.wrap(&step.text, &head, INDENT);
    for line in &step.details {
        text += &layout.wrap(line, &format!("{INDENT}- "), &format!("{INDENT}  "));
    }
    // The remedy of the step that stops the packets is printed with the verdict.
    if let Some(remedy) = step.remedy.as_ref().filter(|_| step.result != Outcome::Stop) {
        text += &layout.wrap(remedy, &format!("{INDENT}-> "), &format!("{INDENT}   "));
    }
    text
}

/// Indentation of lines below the text of a step.
const INDENT: &str = "                        ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::StepName;

    #[test]
    fn each_step_is_a_paragraph_of_80_columns_and_the_verdict_comes_last() {
        let step = |step, result, text: &str, details: &[&str], remedy: Option<&str>| Step {
            step,
            result,
            text: text.into(),
            details: details.iter().map(|d| (*d).to_owned()).collect(),
            remedy: remedy.map(str::to_owned),
        };
        let explanation = Explanation {
            address: "10.9.0.5".parse().unwrap(),
            from: None,
            verdict: Verdict::Stopped,
            stopped_by: Some(StepName::Firewall),
            text: "10.9.0.5 is not reachable: packets are dropped".into(),
            remedy: Some("add a rule".into()),
            steps: vec![
                step(StepName::Address, Outcome::Ok, "in no subnet of this host", &[], None),
                step(
                    StepName::Rib,
                    Outcome::Ok,
                    "longest match 10.9.0.0/24, 1 path",
                    &["10.9.0.0/24 from 10.1.1.1, next hop 10.1.1.1, AS path 10000 10009: best: only path"],
                    None,
                ),
                step(StepName::Mtu, Outcome::Warning, "1400 octets by eth0", &[], Some("set the MTU")),
                step(StepName::Firewall, Outcome::Stop, "packets are dropped", &[], Some("add a rule")),
            ],
        };
        let shown = text(&explanation, Layout::default());
        insta::assert_snapshot!(shown, @r"
        packets to 10.9.0.5

        ok      address         in no subnet of this host
        ok      rib             longest match 10.9.0.0/24, 1 path
                                - 10.9.0.0/24 from 10.1.1.1, next hop 10.1.1.1, AS path
                                  10000 10009: best: only path
        warning mtu             1400 octets by eth0
                                -> set the MTU
        stop    firewall        packets are dropped

        stopped by firewall: 10.9.0.5 is not reachable: packets are dropped
          -> add a rule
        ");
        assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
    }
}
