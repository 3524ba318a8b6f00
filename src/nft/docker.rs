//! Accepts packets routed to containers that Docker, from version 28, drops before the end of
//! FORWARD: in the table `raw` those that enter by another interface than the container's bridge,
//! and in the chain `DOCKER` those to unpublished ports.
//!
//! For advertised subnets that are dropped there, two chains of ours accept earlier: one at the
//! start of PREROUTING in `raw`, one at the end of `DOCKER-USER`, which Docker keeps for rules of
//! other programs. Packets from a bridge of containers are left to Docker, so that its networks
//! stay isolated. See docs/adr/0006-forward-policy.md.

use std::collections::BTreeSet;

use super::{
    chain::{self, Chain, Hook},
    forward::{Rule, Wanted},
};
use crate::net::{Diagnostic, Family, Prefix, Reason, Subject};

/// The rules of a chain in the kernel.
pub type Listed = [Vec<u8>];

/// The advertised subnets `among` these that Docker drops before `hook` could accept them.
/// `listed`: the rules of the chain [`drops_of`].
pub fn dropped(
    hook: Hook,
    wanted: &Wanted,
    among: &BTreeSet<Prefix>,
    family: Family,
    listed: &Listed,
) -> BTreeSet<Prefix> {
    let subnets = wanted.routed.iter().flat_map(|(bridge, all)| all.iter().map(move |p| (bridge, *p)));
    let subnets = subnets.filter(|(_, p)| among.contains(p));
    let is_dropped = |bridge: &str, prefix| match hook {
        Hook::Forward => false,
        Hook::DockerUser => listed.iter().any(|r| chain::drops_towards(r, bridge)),
        Hook::Raw => listed.iter().any(|r| chain::drops_to(r, prefix)),
    };
    subnets.filter(|(bridge, p)| p.family() == family && is_dropped(bridge, *p)).map(|(_, p)| p).collect()
}

/// The chain in which Docker drops, for [`dropped`].
pub fn drops_of(hook: Hook) -> Option<Chain> {
    match hook {
        Hook::Forward => None,
        Hook::DockerUser => Some(Chain::Docker),
        Hook::Raw => Some(Chain::Raw),
    }
}

/// The rules of our chain at this hook; empty if there is nothing to accept.
pub fn rules(wanted: &Wanted, dropped: &BTreeSet<Prefix>) -> Vec<Rule> {
    if !wanted.enabled || dropped.is_empty() {
        return Vec::new();
    }
    let inner = wanted.inner.iter().cloned().map(Rule::LeaveFrom);
    inner.chain(dropped.iter().map(|p| Rule::To(*p))).collect()
}

/// The problem that a subnet is dropped while routelet may not accept it (`docker.accept-forwarded
/// = false`) and no rule of the operator does. `listed`: the rules of the chain in which such a
/// rule would be.
pub fn left_to_the_operator(hook: Hook, prefix: Prefix, listed: &Listed) -> Option<Diagnostic> {
    if listed.iter().any(|rule| chain::accepts_to(rule, prefix)) {
        return None;
    }
    let program = match prefix.family() {
        Family::Ipv4Unicast => "iptables",
        Family::Ipv6Unicast => "ip6tables",
    };
    let (reason, what, remedy) = match hook {
        Hook::Forward => (
            Reason::ForwardDropped,
            "the policy of FORWARD is DROP",
            format!(
                "`{program} -A FORWARD -d {prefix} -j ACCEPT` and `{program} -A FORWARD -s {prefix} -j ACCEPT`"
            ),
        ),
        Hook::DockerUser => (
            Reason::UnpublishedPortsDropped,
            "Docker drops what goes to ports that are not published",
            format!("`{program} -I DOCKER-USER -d {prefix} -j ACCEPT`"),
        ),
        Hook::Raw => (
            Reason::DirectRoutingDropped,
            "Docker drops what is routed to a container",
            format!("`{program} -t raw -I PREROUTING -d {prefix} -j ACCEPT`"),
        ),
    };
    Some(Diagnostic::new(
        reason,
        Subject::prefix(prefix),
        format!("packets to containers in {prefix}, which is advertised, are dropped: {what}"),
        format!("run {remedy}, or set docker.accept-forwarded = true"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_docker_drops_is_accepted_and_nothing_between_its_networks() {
        let subnet: Prefix = "172.17.0.0/16".parse().unwrap();
        let wanted = Wanted {
            enabled: true,
            pods: [subnet].into(),
            inner: ["br-1", "docker0"].map(str::to_owned).into(),
            routed: [("docker0".to_owned(), [subnet].into())].into(),
            ..Wanted::default()
        };
        let leave = |name: &str| Rule::LeaveFrom(name.into());
        assert_eq!(rules(&wanted, &[subnet].into()), [leave("br-1"), leave("docker0"), Rule::To(subnet)]);
        assert!(rules(&wanted, &BTreeSet::new()).is_empty());
        assert!(rules(&Wanted { enabled: false, ..wanted.clone() }, &[subnet].into()).is_empty());
        for hook in Hook::ALL {
            assert!(dropped(hook, &wanted, &wanted.pods, Family::Ipv4Unicast, &[]).is_empty());
        }
    }

    #[test]
    fn what_is_left_to_the_operator_has_its_command() {
        for (hook, part) in [
            (Hook::Forward, "`ip6tables -A FORWARD -s fd00:17::/64 -j ACCEPT`"),
            (Hook::DockerUser, "`ip6tables -I DOCKER-USER -d fd00:17::/64 -j ACCEPT`"),
            (Hook::Raw, "`ip6tables -t raw -I PREROUTING -d fd00:17::/64 -j ACCEPT`"),
        ] {
            let text = left_to_the_operator(hook, "fd00:17::/64".parse().unwrap(), &[]).unwrap().line();
            assert!(text.contains(part), "{text}");
        }
    }
}
