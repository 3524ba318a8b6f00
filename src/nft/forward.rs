//! Containers below a firewall that drops: what nobody accepts in iptables' FORWARD, where Docker has set its policy to DROP.
//!
//! An accept in a table of our own does not help, as each table has its word: the packet must be accepted in that very
//! chain. So a chain of our own in the same table, [`CHAIN`], accepts what comes from or goes to this node's pod CIDRs and advertised subnets, and
//! one jump to it is the last rule of FORWARD. There whoever denies has been asked before, wherever his rules are, and
//! only the policy comes after. iptables-nft shows both as rules of its own kind. Rules of others are read, to find that
//! place, and never changed.
//!
//! Not accepted is what goes to bridges of other containers: Docker relies on the policy to keep unpublished ports shut.
//!
//! Without the policy there is no chain of ours. That of iptables-legacy can only be seen, not mended (`io/legacy.rs`).
//! Why it is done so: docs/adr/0006-forward-policy.md.

use std::collections::{BTreeMap, BTreeSet};

use crate::net::{Diagnostic, Family, Prefix, Reason, Subject};

/// Our chain in the table `filter` of iptables.
pub const CHAIN: &str = "ROUTELET-FORWARD";

/// What the plan wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `kubernetes.accept-forwarded` or `docker.accept-forwarded`, where there is something to accept.
    pub enabled: bool,
    /// Where this node's pods have their addresses, and the subnets of containers that it advertises.
    pub pods: BTreeSet<Prefix>,
    /// Bridges of other containers.
    pub closed: BTreeSet<String>,
    /// All bridges of containers.
    pub inner: BTreeSet<String>,
    /// Advertised bridges with their subnets.
    pub routed: BTreeMap<String, BTreeSet<Prefix>>,
    /// Advertised subnets that are left to the operator (`docker.accept-forwarded = false`).
    pub named: BTreeSet<Prefix>,
}

/// One rule of our chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What leaves by it is left to the rules of others.
    Leave(String),
    /// What comes in by it is left to the rules of others.
    LeaveFrom(String),
    /// Accepts what comes from there.
    From(Prefix),
    /// Accepts what goes there.
    To(Prefix),
}

/// What the kernel holds, of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether something drops what is to be accepted: the policy of FORWARD, or Docker.
    pub drops: bool,
    /// Handles of the rules that jump to our chain.
    pub jumps: Vec<u64>,
    /// Whether one of them is where it belongs.
    pub is_placed: bool,
    /// The rule before which a jump belongs; none: at the end.
    pub behind: Option<u64>,
    /// How many rules our chain has, if it is there.
    pub rules: Option<usize>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// The chain is made anew in one transaction, and the jump to it comes last.
    Write,
    Remove,
}

/// The chain of a family; empty where there is nothing to accept.
pub fn rules(wanted: &Wanted, family: Family) -> Vec<Rule> {
    let pods = || wanted.pods.iter().filter(|p| wanted.enabled && p.family() == family);
    if pods().next().is_none() {
        return Vec::new();
    }
    let closed = wanted.closed.iter().cloned().map(Rule::Leave);
    closed.chain(pods().flat_map(|p| [Rule::From(*p), Rule::To(*p)])).collect()
}

/// `written`: what we have written into the chain, if we have.
pub fn step(rules: &[Rule], written: Option<&[Rule]>, seen: &Seen) -> Step {
    let ours = seen.rules.is_some() || !seen.jumps.is_empty();
    let whole = seen.rules == Some(rules.len()) && seen.jumps.len() == 1 && seen.is_placed;
    match seen.drops && !rules.is_empty() {
        true if whole && written == Some(rules) => Step::Nothing,
        true => Step::Write,
        false if ours => Step::Remove,
        false => Step::Nothing,
    }
}

/// What is said where only the operator can help.
pub fn legacy_problem(rules: &[Rule], family: Family) -> Diagnostic {
    let program = match family {
        Family::Ipv4Unicast => "iptables-legacy",
        Family::Ipv6Unicast => "ip6tables-legacy",
    };
    let commands = rules.iter().filter_map(|rule| match rule {
        Rule::From(p) => Some(format!("`{program} -A FORWARD -s {p} -j ACCEPT`")),
        Rule::To(p) => Some(format!("`{program} -A FORWARD -d {p} -j ACCEPT`")),
        Rule::Leave(_) | Rule::LeaveFrom(_) => None,
    });
    let commands: Vec<_> = commands.collect();
    Diagnostic::new(
        Reason::ForwardDropped,
        Subject::program(program),
        format!(
            "the policy of FORWARD in {program} is DROP (Docker sets it), which routelet cannot mend: {family} \
             packets of containers are dropped unless a rule there accepts them"
        ),
        format!(
            "run {}, or let Docker use iptables-nft; `accept-forwarded = false` in [docker] or [kubernetes] \
             ends this message",
            commands.join(" and ")
        ),
    )
}

/// What is said where Docker drops what is routed to its containers.
pub fn direct_problem(prefix: Prefix) -> Diagnostic {
    let mode = match prefix.family() {
        Family::Ipv4Unicast => "gateway_mode_ipv4",
        Family::Ipv6Unicast => "gateway_mode_ipv6",
    };
    Diagnostic::new(
        Reason::DirectRoutingDropped,
        Subject::prefix(prefix),
        format!(
            "Docker drops packets that are routed to containers in {prefix}, by rules of its own \
             nftables table, which routelet cannot mend"
        ),
        format!(
            "make the network with `-o com.docker.network.bridge.{mode}=nat-unprotected`, or set \
             \"allow-direct-routing\": true in /etc/docker/daemon.json, which opens published ports"
        ),
    )
}

/// What is said where Docker masquerades an advertised subnet: it works, with another source address.
pub fn masquerade_note(prefix: Prefix) -> Diagnostic {
    Diagnostic::new(
        Reason::Masqueraded,
        Subject::prefix(prefix),
        format!(
            "Docker masquerades what leaves {prefix}: others see an address of this host in place of a \
             container's"
        ),
        "for that of the container set \"ip-masq\": false in /etc/docker/daemon.json and restart Docker, or \
         make the network with `-o com.docker.network.bridge.enable_ip_masquerade=false`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Family = Family::Ipv4Unicast;
    const V6: Family = Family::Ipv6Unicast;

    fn wanted() -> Wanted {
        Wanted {
            enabled: true,
            pods: ["10.244.1.0/24", "fd00:244:1::/64"].map(|p| p.parse().unwrap()).into(),
            closed: ["docker0".to_owned()].into(),
            ..Wanted::default()
        }
    }

    #[test]
    fn only_own_pods_are_accepted_and_bridges_of_others_stay_shut() {
        let [v4, v6] = ["10.244.1.0/24", "fd00:244:1::/64"].map(|p| p.parse().unwrap());
        let docker = Rule::Leave("docker0".into());
        assert_eq!(rules(&wanted(), V4), [docker.clone(), Rule::From(v4), Rule::To(v4)]);
        assert_eq!(rules(&wanted(), V6), [docker, Rule::From(v6), Rule::To(v6)]);
        assert!(rules(&Wanted { enabled: false, ..wanted() }, V4).is_empty());
        assert!(rules(&Wanted { pods: [v6].into(), ..wanted() }, V4).is_empty());
    }

    #[test]
    fn steps() {
        let rules = rules(&wanted(), V4);
        let whole = Seen { drops: true, jumps: vec![7], is_placed: true, rules: Some(3), behind: None };
        let gone = Seen { drops: true, ..Seen::default() };
        #[rustfmt::skip]
        let cases = [
            ("nothing drops, nothing is there", &rules[..], false, Seen::default(), Step::Nothing),
            ("the policy has become DROP", &rules, false, gone.clone(), Step::Write),
            ("as we wrote it", &rules, true, whole.clone(), Step::Nothing),
            ("left by the last run", &rules, false, whole.clone(), Step::Write),
            ("somebody appended a rule", &rules, true, Seen { is_placed: false, ..whole.clone() }, Step::Write),
            ("two jumps", &rules, true, Seen { jumps: vec![7, 9], ..whole.clone() }, Step::Write),
            ("somebody took a rule out of our chain", &rules, true, Seen { rules: Some(2), ..whole.clone() }, Step::Write),
            ("somebody flushed FORWARD", &rules, true, Seen { jumps: vec![], is_placed: false, ..whole.clone() }, Step::Write),
            ("the policy is ACCEPT again", &rules, true, Seen { drops: false, ..whole.clone() }, Step::Remove),
            ("no pods here, or switched off", &[], true, whole, Step::Remove),
            ("no pods here, and nothing to remove", &[], false, gone, Step::Nothing),
        ];
        for (name, rules, written, seen, expected) in cases {
            assert_eq!(step(rules, written.then_some(rules), &seen), expected, "{name}");
        }
    }

    #[test]
    fn the_remedy_can_be_typed() {
        let text = legacy_problem(&rules(&wanted(), V6), V6);
        assert!(text.contains("`ip6tables-legacy -A FORWARD -s fd00:244:1::/64 -j ACCEPT`"), "{text}");
    }
}
