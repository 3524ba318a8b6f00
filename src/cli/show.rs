use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::{Failure, events::Events, neighbor_name, output::Common};
use crate::{
    control::{Query, RouteFilter},
    net::{Asn, Family, Prefix, PrefixError},
};

#[derive(Debug, Subcommand)]
pub(super) enum Show {
    /// One screen: identity, sessions, routes, problems
    Summary(Common),
    /// Table of sessions
    Neighbors(Neighbors),
    /// Everything about one neighbor
    Neighbor(One),
    /// Routes with every path, the best one marked, and the rule that selected it
    ///
    /// With PREFIX every attribute of its paths, how next hops are resolved, and to whom each path
    /// is advertised; exit status 1 if there is no path.
    Routes(Routes),
    /// Routes that routelet has installed, compared with the kernel's table
    Fib(Common),
    /// The Kubernetes view: node, pod CIDRs, conflist, mesh members, API connection
    Node(Common),
    /// Sessions of BFD: state, intervals, last diagnostic
    Bfd(Common),
    /// Policies: statements, neighbors that have them, how many routes each statement matched
    Policy(Policy),
    /// Configuration of a host without Kubernetes, its interfaces, and problems
    Host(Common),
    /// Interfaces: neighbors, subnets, to whom advertised or why not
    Interfaces(Common),
    /// The effective configuration, secrets hidden
    Config(Common),
    /// Recent session, route and node events, newest last
    Events(Events),
}

#[derive(Args, Debug)]
pub(super) struct Neighbors {
    /// The same as `show neighbor ADDRESS`
    #[arg(value_parser = neighbor_name)]
    address: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(super) struct One {
    /// Address of the neighbor (fe80::1%eth0), its interface, description or Node
    #[arg(value_parser = neighbor_name)]
    address: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(super) struct Policy {
    /// Only this policy
    name: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(super) struct Routes {
    /// Prefix to show; for an address, its longest match
    #[arg(value_parser = subject)]
    prefix: Option<Subject>,
    /// Only paths from this neighbor that its import policy accepted
    #[arg(long, value_name = "ADDRESS", value_parser = neighbor_name)]
    neighbor: Option<String>,
    /// Adj-RIB-In: paths received from this neighbor, including rejected ones
    #[arg(long, value_name = "ADDRESS", value_parser = neighbor_name, conflicts_with_all = ["neighbor", "advertised"])]
    received: Option<String>,
    /// Adj-RIB-Out: routes advertised to this neighbor
    #[arg(long, value_name = "ADDRESS", value_parser = neighbor_name, conflicts_with = "neighbor")]
    advertised: Option<String>,
    /// Best paths that are not advertised to this neighbor
    #[arg(long, value_name = "ADDRESS", value_parser = neighbor_name, conflicts_with_all = ["received", "advertised"])]
    not_advertised: Option<String>,
    /// Only paths that import refuses
    #[arg(long, conflicts_with_all = ["advertised", "not_advertised"])]
    refused: bool,
    /// Only paths with this community: 65001:7, no-export, large:64496:1:2, rt:65001:7
    #[arg(long)]
    community: Option<String>,
    /// Only paths whose AS path fits this regular expression; `_` is a boundary between numbers
    #[arg(long, value_name = "REGEX")]
    as_path: Option<String>,
    /// Only paths with this last AS number
    #[arg(long, value_name = "AS")]
    origin_as: Option<Asn>,
    /// Only this family: ipv4-unicast (ipv4) or ipv6-unicast (ipv6)
    #[arg(long, value_parser = family)]
    family: Option<Family>,
    /// With PREFIX: a table of it and of more specific prefixes
    #[arg(long, requires = "prefix")]
    longer: bool,
    #[command(flatten)]
    common: Common,
}

/// Prefix argument of `show routes`.
#[derive(Clone, Copy, Debug)]
struct Subject {
    prefix: Prefix,
    /// An address rather than a prefix was given.
    longest: bool,
}

fn subject(text: &str) -> Result<Subject, PrefixError> {
    match text.parse::<IpAddr>() {
        Ok(addr) => Ok(Subject { prefix: Prefix::host(addr), longest: true }),
        Err(_) => {
            let prefix = text.parse::<Prefix>()?;
            Ok(Subject { prefix, longest: false })
        }
    }
}

/// The text is not the name of a family.
#[derive(Debug, thiserror::Error)]
#[error("write ipv4-unicast or ipv6-unicast")]
struct NoFamily;

fn family(text: &str) -> Result<Family, NoFamily> {
    match text {
        "ipv4" | "ipv4-unicast" => Ok(Family::Ipv4Unicast),
        "ipv6" | "ipv6-unicast" => Ok(Family::Ipv6Unicast),
        _ => Err(NoFamily),
    }
}

impl Show {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Summary(common) => common.show_summary(),
            Self::Neighbors(Neighbors { address: Some(address), common }) => {
                common.show(&Query::Neighbor(address))
            }
            Self::Neighbors(Neighbors { common, .. }) => common.show(&Query::Neighbors),
            Self::Neighbor(one) => one.common.show(&Query::Neighbor(one.address)),
            Self::Routes(routes) => routes.run(),
            Self::Fib(common) => common.show_pages(&Query::Fib),
            Self::Node(common) => common.show(&Query::Node),
            Self::Bfd(common) => common.show(&Query::Bfd),
            Self::Policy(policy) => policy.common.show(&Query::Policies(policy.name)),
            Self::Host(common) => common.show(&Query::Host),
            Self::Interfaces(common) => common.show(&Query::Interfaces),
            Self::Config(common) => common.show(&Query::Config),
            Self::Events(events) => events.run(),
        }
    }
}

impl Routes {
    fn run(self) -> Result<(), Failure> {
        let filter = RouteFilter {
            prefix: self.prefix.map(|p| p.prefix),
            longer: self.longer,
            longest: self.prefix.is_some_and(|p| p.longest),
            family: self.family,
            neighbor: self.neighbor,
            received: self.received,
            advertised: self.advertised,
            not_advertised: self.not_advertised,
            refused: self.refused,
            community: self.community,
            as_path: self.as_path,
            origin_as: self.origin_as,
        };
        let Some(Subject { prefix, longest }) = self.prefix else {
            return self.common.show_pages(&Query::Routes(filter));
        };
        let is_single = filter.is_single();
        let query = Query::Routes(filter);
        match (is_single, longest) {
            (false, _) => self.common.show_pages(&query),
            (true, true) => {
                let address = prefix.addr();
                self.common.show_paths(
                    &query,
                    &format!("no path to {address} fits; `routelet show routes` lists all"),
                )
            }
            (true, false) => {
                let missing = format!(
                    "no path to {prefix} fits; `routelet show routes {prefix} --longer` lists what lies in it"
                );
                self.common.show_paths(&query, &missing)
            }
        }
    }
}
