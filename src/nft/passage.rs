//! Whether packets that this host is there to forward, between subnets of containers and uplinks,
//! are dropped by packet filters of others.

use std::collections::BTreeMap;

use super::verdict::{Dropper, Forwarded, Verdict};
use crate::net::{Diagnostic, Family, Prefix, Reason, Subject};

/// The table of firewalld, in each family.
const FIREWALLD: &str = "firewalld";

/// One direction between an advertised subnet and an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    pub subnet: Prefix,
    pub uplink: String,
    pub to_containers: bool,
    /// Examples with different addresses. The passage is closed if all of them are dropped: a rule
    /// for one container or one remote address is none of our business.
    pub packets: Vec<Forwarded>,
}

/// The problems of all passages, one per subnet and rule that drops.
pub fn problems(passages: &[Passage], verdict: impl Fn(&Forwarded) -> Verdict) -> Vec<Diagnostic> {
    let mut closed: BTreeMap<(Prefix, Dropper), Vec<&Passage>> = BTreeMap::new();
    for passage in passages {
        let droppers: Option<Vec<_>> = passage.packets.iter().map(|p| dropper(verdict(p))).collect();
        if let Some(by) = droppers.and_then(|all| all.into_iter().next()).filter(|by| !is_named_elsewhere(by))
        {
            closed.entry((passage.subnet, by)).or_default().push(passage);
        }
    }
    closed.into_iter().map(|((subnet, by), passages)| problem(subnet, &by, &passages)).collect()
}

fn dropper(verdict: Verdict) -> Option<Dropper> {
    match verdict {
        Verdict::Dropped { by, certain: true } => Some(by),
        _ => None,
    }
}

/// The policy of iptables and the rules of Docker are problems with a remedy of their own
/// (`ForwardDropped`, `DirectRoutingDropped`, `UnpublishedPortsDropped`).
fn is_named_elsewhere(by: &Dropper) -> bool {
    let is_policy = by.table.starts_with("filter") && by.chain == "FORWARD" && by.rule.is_none();
    is_policy || by.chain.starts_with("DOCKER") && by.chain != "DOCKER-USER"
}

fn problem(subnet: Prefix, by: &Dropper, passages: &[&Passage]) -> Diagnostic {
    let (to, from) = (passages.iter().any(|p| p.to_containers), passages.iter().any(|p| !p.to_containers));
    let which = match (to, from) {
        (true, true) => "to and from",
        (true, false) => "to",
        _ => "from",
    };
    let mut uplinks: Vec<_> = passages.iter().map(|p| p.uplink.as_str()).collect();
    uplinks.sort_unstable();
    uplinks.dedup();
    Diagnostic::new(
        Reason::ForwardFiltered,
        Subject::prefix(subnet),
        format!(
            "packets {which} containers in {subnet}, which is advertised, are dropped between them and {}: {by}",
            uplinks.join(", ")
        ),
        if by.table == FIREWALLD { firewalld_remedy(subnet) } else { remedy(subnet, by) },
    )
}

fn remedy(subnet: Prefix, by: &Dropper) -> String {
    let Dropper { family, table, chain, .. } = by;
    format!(
        "`nft list chain {family} {table} {chain}` lists the rule: remove it, or accept packets to and from \
         {subnet} before it"
    )
}

/// firewalld writes its table anew at each change, so that only its own settings last. A policy
/// applies between zones that have a source or an interface: the subnet gets into one, too.
fn firewalld_remedy(subnet: Prefix) -> String {
    let family = match subnet.family() {
        Family::Ipv4Unicast => "ipv4",
        Family::Ipv6Unicast => "ipv6",
    };
    let policy = "firewall-cmd --permanent --policy=routelet";
    format!(
        "`firewall-cmd --permanent --zone=trusted --add-source={subnet}; \
         firewall-cmd --permanent --new-policy=routelet; {policy} --add-ingress-zone=ANY; \
         {policy} --add-egress-zone=trusted; \
         {policy} --add-rich-rule='rule family={family} destination address={subnet} accept'; \
         firewall-cmd --reload` has firewalld forward packets to and from {subnet}, and accept what these containers \
         send to this host itself"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(subnet: &str, uplink: &str, to_containers: bool) -> Passage {
        let packet = |source: &str, destination: &str| Forwarded {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            arrives_on: if to_containers { uplink.into() } else { "br0".into() },
            leaves_by: if to_containers { "br0".into() } else { uplink.into() },
            is_reply: false,
        };
        let packets = match to_containers {
            true => vec![packet("10.1.0.1", "10.9.0.2"), packet("9.9.9.9", "10.9.0.254")],
            false => vec![packet("10.9.0.2", "10.1.0.1"), packet("10.9.0.254", "9.9.9.9")],
        };
        Passage { subnet: subnet.parse().unwrap(), uplink: uplink.into(), to_containers, packets }
    }

    fn by(table: &str, chain: &str, rule: Option<usize>) -> Dropper {
        Dropper { family: "inet", table: table.into(), chain: chain.into(), rule }
    }

    #[test]
    fn a_passage_on_which_all_packets_are_dropped_for_certain_is_a_problem() {
        let all =
            [("eth0", true), ("eth0", false), ("eth1", true)].map(|(u, to)| passage("10.9.0.0/24", u, to));
        let dropped = |certain| Verdict::Dropped { by: by("fw", "fwd", Some(2)), certain };
        let found = problems(&all, |_| dropped(true));
        let lines: Vec<_> = found.iter().map(Diagnostic::line).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("to and from containers in 10.9.0.0/24"), "{lines:?}");
        assert!(lines[0].contains("eth0, eth1: rule 2 of fwd in table fw"), "{lines:?}");
        assert!(lines[0].contains("nft list chain inet fw fwd"), "{lines:?}");
        assert!(problems(&all, |_| dropped(false)).is_empty(), "a rule may accept them");
        assert!(problems(&all, |_| Verdict::Accepted).is_empty());
        // One remote address, or one container.
        for blocked in ["9.9.9.9", "10.9.0.2"] {
            let blocked: std::net::IpAddr = blocked.parse().unwrap();
            let is_blocked = |p: &Forwarded| p.source == blocked || p.destination == blocked;
            let verdict = |p: &Forwarded| if is_blocked(p) { dropped(true) } else { Verdict::Accepted };
            assert!(problems(&all, verdict).is_empty());
        }
        let one_way = |p: &Forwarded| if p.arrives_on == "eth1" { dropped(true) } else { Verdict::Accepted };
        let found = problems(&all, one_way);
        assert!(found[0].contains("packets to containers") && found[0].contains("eth1: rule 2"), "{found:?}");
    }

    /// A rule that is added by nft is gone when firewalld reloads.
    #[test]
    fn for_rules_of_firewalld_the_remedy_is_a_setting_of_firewalld() {
        for (subnet, family) in [("10.9.0.0/24", "ipv4"), ("fd00:9::/64", "ipv6")] {
            let all = [passage(subnet, "eth0", true)];
            let by = by("firewalld", "filter_FORWARD", Some(7));
            let found = problems(&all, |_| Verdict::Dropped { by: by.clone(), certain: true });
            let line = found[0].line();
            assert!(line.contains("rule 7 of filter_FORWARD in table firewalld"), "{line}");
            assert!(line.contains(&format!("--zone=trusted --add-source={subnet};")), "{line}");
            let rule = format!("'rule family={family} destination address={subnet} accept'");
            assert!(line.contains(&rule) && !line.contains("nft list"), "{line}");
        }
    }

    #[test]
    fn what_has_a_problem_of_its_own_is_not_named_twice() {
        let all = [passage("10.9.0.0/24", "eth0", true)];
        for (table, chain, rule, expected) in [
            ("filter", "FORWARD", None, 0),
            ("filter of iptables-legacy", "FORWARD", None, 0),
            ("filter", "DOCKER", Some(1), 0),
            ("filter", "DOCKER-USER", Some(1), 1),
            ("filter", "FORWARD", Some(1), 1),
            ("fw", "FORWARD", None, 1),
        ] {
            let by = by(table, chain, rule);
            let found = problems(&all, |_| Verdict::Dropped { by: by.clone(), certain: true });
            assert_eq!(found.len(), expected, "{table} {chain} {rule:?}");
        }
    }
}
