//! Accepts forwarded packets of containers where the policy of iptables' FORWARD is DROP, as Docker
//! sets it.
//!
//! An accept in a table of our own does not help, because a drop in any table is final: the packet
//! must be accepted in the chain that has the policy. A chain of ours in the same table, [`CHAIN`],
//! therefore accepts packets from and to this node's pod CIDRs and advertised subnets, and one jump
//! to it is the last rule of FORWARD. All rules that deny have been evaluated there, and only the
//! policy follows. iptables-nft can display both. Rules of other programs are read to find that
//! place, and never changed.
//!
//! Packets to bridges of other containers are not accepted: Docker relies on the policy to keep
//! unpublished ports closed.
//!
//! There is no chain of ours without that policy. The policy of iptables-legacy is only read and
//! reported (`io/iptables_legacy.rs`). The reasons are in docs/adr/0006-forward-policy.md.

use std::collections::{BTreeMap, BTreeSet};

use crate::net::{Diagnostic, Family, Prefix, Reason, Subject};

/// Our chain in the table `filter` of iptables.
pub const CHAIN: &str = "ROUTELET-FORWARD";

/// The packets to accept, as computed by the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether `kubernetes.accept-forwarded` or `docker.accept-forwarded` applies to anything.
    pub enabled: bool,
    /// Ranges of this node's pod addresses, and the subnets of containers that it advertises.
    pub pods: BTreeSet<Prefix>,
    /// Bridges of other containers.
    pub closed: BTreeSet<String>,
    /// All bridges of containers.
    pub inner: BTreeSet<String>,
    /// Advertised bridges with their subnets.
    pub routed: BTreeMap<String, BTreeSet<Prefix>>,
    /// Advertised subnets whose packets the operator accepts (`docker.accept-forwarded = false`).
    pub named: BTreeSet<Prefix>,
}

/// One rule of our chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Packets that leave by this interface are left to the rules of other programs.
    Leave(String),
    /// Packets that enter by this interface are left to the rules of other programs.
    LeaveFrom(String),
    /// Accepts packets from this prefix.
    From(Prefix),
    /// Accepts packets to this prefix.
    To(Prefix),
}

/// The state of the kernel, for one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether the packets to accept are dropped otherwise: by the policy of FORWARD, or by Docker.
    pub drops: bool,
    /// Handles of the rules that jump to our chain.
    pub jumps: Vec<u64>,
    /// Whether one of them is at its place.
    pub is_placed: bool,
    /// Handle of the rule before which the jump belongs; `None` if it belongs at the end.
    pub behind: Option<u64>,
    /// Number of rules in our chain, if it exists.
    pub rules: Option<usize>,
}

/// The change to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Writes the chain and the jump to it in one transaction, replacing existing ones.
    Write,
    Remove,
}

/// The rules of our chain for a family; empty if there is nothing to accept.
pub fn rules(wanted: &Wanted, family: Family) -> Vec<Rule> {
    let pods = || wanted.pods.iter().filter(|p| wanted.enabled && p.family() == family);
    if pods().next().is_none() {
        return Vec::new();
    }
    let closed = wanted.closed.iter().cloned().map(Rule::Leave);
    closed.chain(pods().flat_map(|p| [Rule::From(*p), Rule::To(*p)])).collect()
}

/// Decides the change to make. `written`: the rules that we wrote into the chain, if we did.
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

/// The problem that iptables-legacy drops the packets, which only the operator can change.
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
            "the policy of FORWARD in {program} is DROP (Docker sets it), which routelet cannot change: {family} \
             packets of containers are dropped unless a rule there accepts them"
        ),
        format!(
            "run {}, or let Docker use iptables-nft; `accept-forwarded = false` in [docker] or [kubernetes] \
             ends this message",
            commands.join(" and ")
        ),
    )
}

/// The problem that Docker drops packets routed to its containers in a table of its own.
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
             nftables table, which routelet cannot change"
        ),
        format!(
            "make the network with `-o com.docker.network.bridge.{mode}=nat-unprotected`, or set \
             \"allow-direct-routing\": true in /etc/docker/daemon.json, which opens published ports"
        ),
    )
}

/// The note that Docker masquerades an advertised subnet: its containers are reachable, but connect
/// with another source address.
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
