//! The output of `kubectl routelet explain`.

use super::{Layout, pretty};
use crate::k8s::reports::pair::{Outcome, Pair, Step, Verdict};

/// A paragraph for each step, and the verdict.
pub fn text(pair: &Pair, layout: Layout) -> String {
    let heading = format!("packets between {} and {}", pair.from.name, pair.to.name);
    let mut text = layout.wrap(&heading, "", "  ") + "\n";
    for step in &pair.steps {
        text += &paragraph(step, layout);
    }
    let verdict = match (pair.verdict, pair.stopped_by) {
        (Verdict::Stopped, Some(step)) => format!("stopped by {step}"),
        (Verdict::Stopped, None) => "stopped".into(),
        (Verdict::Unknown, _) => "unknown".into(),
        (Verdict::Reachable, _) => "reachable".into(),
    };
    text.push('\n');
    text += &layout.wrap(&format!("{verdict}: {}", pair.text), "", "  ");
    if let Some(remedy) = &pair.remedy {
        text += &layout.wrap(remedy, "  -> ", "     ");
    }
    text
}

/// Indentation of lines below the text of a step.
const INDENT: &str = "                     ";

fn paragraph(step: &Step, layout: Layout) -> String {
    let head = format!("{:<8}{:<13}", step.result.as_str(), step.step);
    let node = step.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
    let mut text = layout.wrap(&format!("{node}{}", step.text), &head, INDENT);
    // The remedy of the step that stops the packets is printed with the verdict.
    if let Some(remedy) = step.remedy.as_ref().filter(|_| step.result != Outcome::Stop) {
        text += &layout.wrap(remedy, &format!("{INDENT}-> "), &format!("{INDENT}   "));
    }
    text
}

pub fn json(pair: &Pair) -> String {
    pretty(pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::reports::pair::Endpoint;

    #[test]
    fn each_step_is_a_paragraph_of_80_columns_and_the_verdict_comes_last() {
        let step = |step, node: Option<&str>, result, text: &str, remedy: Option<&str>| Step {
            step,
            node: node.map(str::to_owned),
            result,
            text: text.into(),
            remedy: remedy.map(str::to_owned),
        };
        let endpoint = |name: &str| Endpoint { name: name.into(), ..Endpoint::default() };
        let pair = Pair {
            from: endpoint("shop/web-1"),
            to: endpoint("shop/db-0"),
            verdict: Verdict::Stopped,
            stopped_by: Some("learned"),
            text: "node n1: the node has learned no route to 10.244.2.6".into(),
            remedy: Some(
                "run `kubectl -n kube-system exec routelet-abc -- /routelet explain 10.244.2.6`".into(),
            ),
            steps: vec![
                step("endpoints", None, Outcome::Ok, "10.244.1.5 on node n1, 10.244.2.6 on node n2", None),
                step(
                    "advertised",
                    Some("n2"),
                    Outcome::Note,
                    "10.244.2.0/24 is originated; to whom it is advertised is not in the report",
                    Some("on node n2, run `routelet show routes 10.244.2.0/24`"),
                ),
                step(
                    "learned",
                    Some("n1"),
                    Outcome::Stop,
                    "the node has learned no route to 10.244.2.6",
                    Some("run `kubectl -n kube-system exec routelet-abc -- /routelet explain 10.244.2.6`"),
                ),
            ],
        };
        let shown = text(&pair, Layout::default());
        insta::assert_snapshot!(shown, @r"
        packets between shop/web-1 and shop/db-0

        ok      endpoints    10.244.1.5 on node n1, 10.244.2.6 on node n2
        note    advertised   n2: 10.244.2.0/24 is originated; to whom it is advertised
                             is not in the report
                             -> on node n2, run `routelet show routes 10.244.2.0/24`
        stop    learned      n1: the node has learned no route to 10.244.2.6

        stopped by learned: node n1: the node has learned no route to 10.244.2.6
          -> run `kubectl -n kube-system exec routelet-abc -- /routelet explain
             10.244.2.6`
        ");
        assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
        let json: serde_json::Value = serde_json::from_str(&json(&pair)).unwrap();
        assert_eq!((&json["verdict"], &json["steps"][2]["result"]), (&"stopped".into(), &"stop".into()));
    }
}
