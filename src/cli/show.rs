use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand};

use super::{Failure, Socket, io, neighbor_name};
use crate::{
    control::{Answer, Query, RouteFilter, render},
    net::{Family, Prefix},
};

#[derive(Debug, Subcommand)]
pub(super) enum Show {
    /// One screen: who am I, neighbors, routes, last error, problems
    Summary(Common),
    /// Table of the sessions
    Neighbors(Common),
    /// Everything about one neighbor
    Neighbor(One),
    /// The table with every path, the best marked and the reason why
    Routes(Routes),
    /// What routelet has put into the kernel, compared with what the kernel holds
    Fib(Common),
    /// The Kubernetes view: node, pod CIDRs, conflist, mesh members, API connection
    Node(Common),
    /// Sessions of BFD: state, intervals, last diagnostic
    Bfd(Common),
    /// The effective configuration, secrets hidden
    Config(Common),
    /// Recent session, route and node events, newest last
    Events(Events),
}

#[derive(Args, Debug)]
pub(super) struct Common {
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Args, Debug)]
pub(super) struct One {
    /// Its address (fe80::1%eth0), or the interface of an unnumbered neighbor
    #[arg(value_parser = neighbor_name)]
    address: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(super) struct Routes {
    /// Only this prefix; of an address the most specific route that covers it
    #[arg(value_parser = subject)]
    prefix: Option<Subject>,
    /// Only what this neighbor has sent and what passed its import policy
    #[arg(long, value_name = "ADDRESS", value_parser = neighbor_name)]
    neighbor: Option<String>,
    /// Adj-RIB-In: what this neighbor has sent, refused paths too
    #[arg(long, value_name = "ADDRESS", value_parser = neighbor_name, conflicts_with_all = ["neighbor", "advertised"])]
    received: Option<String>,
    /// Adj-RIB-Out: what this neighbor is told
    #[arg(long, value_name = "ADDRESS", value_parser = neighbor_name, conflicts_with = "neighbor")]
    advertised: Option<String>,
    /// Only this family: ipv4-unicast (ipv4) or ipv6-unicast (ipv6)
    #[arg(long, value_parser = family)]
    family: Option<Family>,
    /// With PREFIX: also what lies inside it
    #[arg(long, requires = "prefix")]
    longer: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(super) struct Events {
    /// Go on with those to come
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    common: Common,
}

/// How often `--follow` asks.
const FOLLOW: Duration = Duration::from_millis(500);

/// What `show routes` is asked about.
#[derive(Clone, Copy, Debug)]
struct Subject {
    prefix: Prefix,
    /// An address was given, not a prefix.
    longest: bool,
}

fn subject(text: &str) -> Result<Subject, String> {
    match text.parse::<IpAddr>() {
        Ok(addr) => Ok(Subject { prefix: Prefix::host(addr), longest: true }),
        Err(_) => {
            let prefix = text.parse::<Prefix>().map_err(|e| e.to_string())?;
            Ok(Subject { prefix, longest: false })
        }
    }
}

fn family(text: &str) -> Result<Family, String> {
    match text {
        "ipv4" | "ipv4-unicast" => Ok(Family::Ipv4Unicast),
        "ipv6" | "ipv6-unicast" => Ok(Family::Ipv6Unicast),
        _ => Err("write ipv4-unicast or ipv6-unicast".into()),
    }
}

impl Show {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Summary(common) => common.show_summary(),
            Self::Neighbors(common) => common.show(Query::Neighbors),
            Self::Neighbor(one) => one.common.show(Query::Neighbor(one.address)),
            Self::Routes(routes) => {
                let Routes { prefix, longer, family, neighbor, received, advertised, common } = routes;
                let longest = prefix.is_some_and(|p| p.longest);
                let prefix = prefix.map(|p| p.prefix);
                let filter = RouteFilter { prefix, longer, longest, family, neighbor, received, advertised };
                common.show_pages(Query::Routes(filter))
            }
            Self::Fib(common) => common.show_pages(Query::Fib),
            Self::Node(common) => common.show(Query::Node),
            Self::Bfd(common) => common.show(Query::Bfd),
            Self::Config(common) => common.show(Query::Config),
            Self::Events(events) => events.run(),
        }
    }
}

impl Common {
    fn show(&self, query: Query) -> Result<(), Failure> {
        let answer = self.socket.ask(query)?;
        io::print(&self.render(&answer))
    }

    /// As a probe has it: the answer, and status 4 while the node is not ready.
    fn show_summary(&self) -> Result<(), Failure> {
        let answer = self.socket.ask(Query::Summary)?;
        io::print(&self.render(&answer))?;
        match answer {
            Answer::Summary(summary) if !summary.ready => Err(Failure::NotReady),
            _ => Ok(()),
        }
    }

    fn show_pages(&self, query: Query) -> Result<(), Failure> {
        self.socket.show_pages(query, if self.json { render::Pages::json() } else { render::Pages::text() })
    }

    fn render(&self, answer: &Answer) -> String {
        if self.json { render::json(answer) } else { render::text(answer, io::now()) }
    }
}

impl Events {
    fn run(self) -> Result<(), Failure> {
        let mut after = 0;
        loop {
            let answer = self.common.socket.ask(Query::Events { after })?;
            let Answer::Events(events) = &answer else {
                return io::print(&self.common.render(&answer));
            };
            let text = match (self.follow, self.common.json) {
                // One object per line: an endless array is of no use to a script.
                (true, true) => render::json_lines(events),
                (true, false) if events.is_empty() => String::new(),
                _ => self.common.render(&answer),
            };
            after = events.last().map_or(after, |e| e.number);
            if !io::print_on(&text)? || !self.follow {
                return Ok(());
            }
            io::wait(FOLLOW);
        }
    }
}
