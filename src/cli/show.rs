use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{Failure, Socket, io, neighbor_name};
use crate::{
    control::{
        Query, Response, RouteFilter,
        render::{self, Layout, Pages},
    },
    net::{Family, Prefix},
};

#[derive(Debug, Subcommand)]
pub(super) enum Show {
    /// One screen: identity, neighbors, routes, last error, problems
    Summary(Common),
    /// Table of sessions
    Neighbors(Common),
    /// Everything about one neighbor
    Neighbor(One),
    /// Routes with every path, the best one marked, and the rule that selected it
    Routes(Routes),
    /// Routes that routelet has installed, compared with the kernel's table
    Fib(Common),
    /// The Kubernetes view: node, pod CIDRs, conflist, mesh members, API connection
    Node(Common),
    /// Sessions of BFD: state, intervals, last diagnostic
    Bfd(Common),
    /// Interfaces: neighbors, subnets, to whom advertised or why not
    Host(Common),
    /// The effective configuration, secrets hidden
    Config(Common),
    /// Recent session, route and node events, newest last
    Events(Events),
}

#[derive(Args, Debug)]
pub(super) struct Common {
    /// The same as `-o json`
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Another form than text of at most 80 columns, or as wide as the terminal
    #[arg(long, short, value_enum, value_name = "FORM")]
    output: Option<Output>,
    /// Tables without heading and legend
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Yaml,
    /// Text with all columns, a line per row however long
    Wide,
}

#[derive(Args, Debug)]
pub(super) struct One {
    /// Address of the neighbor (fe80::1%eth0), or the interface of an unnumbered one
    #[arg(value_parser = neighbor_name)]
    address: String,
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
    /// Only this family: ipv4-unicast (ipv4) or ipv6-unicast (ipv6)
    #[arg(long, value_parser = family)]
    family: Option<Family>,
    /// With PREFIX: also more specific prefixes
    #[arg(long, requires = "prefix")]
    longer: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(super) struct Events {
    /// Keep printing new events
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    common: Common,
}

/// Time between requests of `--follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Prefix argument of `show routes`.
#[derive(Clone, Copy, Debug)]
struct Subject {
    prefix: Prefix,
    /// An address rather than a prefix was given.
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
            Self::Host(common) => common.show(Query::Host),
            Self::Config(common) => common.show(Query::Config),
            Self::Events(events) => events.run(),
        }
    }
}

impl Common {
    fn show(&self, query: Query) -> Result<(), Failure> {
        let response = self.socket.request(query)?;
        io::print(&self.render(&response))
    }

    /// Prints the summary, with exit status 4 while the node is not ready, for use as a probe.
    fn show_summary(&self) -> Result<(), Failure> {
        let response = self.socket.request(Query::Summary)?;
        io::print(&self.render(&response))?;
        match response {
            Response::Summary(summary) if !summary.ready => Err(Failure::NotReady),
            _ => Ok(()),
        }
    }

    fn show_pages(&self, query: Query) -> Result<(), Failure> {
        let pages = match self.output() {
            Some(Output::Json) => Pages::json(),
            Some(Output::Yaml) => Pages::yaml(),
            _ => Pages::text(self.layout()),
        };
        self.socket.show_pages(query, pages)
    }

    fn render(&self, response: &Response) -> String {
        match self.output() {
            Some(Output::Json) => render::json(response),
            Some(Output::Yaml) => render::yaml(response),
            _ => render::text(response, io::now(), self.layout()),
        }
    }

    fn output(&self) -> Option<Output> {
        if self.json { Some(Output::Json) } else { self.output }
    }

    fn layout(&self) -> Layout {
        let layout = if self.output == Some(Output::Wide) { Layout::wide() } else { io::layout() };
        Layout { headings: !self.no_headers, ..layout }
    }
}

impl Events {
    fn run(self) -> Result<(), Failure> {
        let mut after = 0;
        loop {
            let response = self.common.socket.request(Query::Events { after })?;
            let Response::Events(events) = &response else {
                return io::print(&self.common.render(&response));
            };
            let text = match (self.follow, self.common.output()) {
                // One object per line, because an endless array is of no use to a script.
                (true, Some(Output::Json)) => render::json_lines(events),
                (true, _) if events.is_empty() => String::new(),
                _ => self.common.render(&response),
            };
            after = events.last().map_or(after, |e| e.number);
            if !io::print_on(&text)? || !self.follow {
                return Ok(());
            }
            io::wait(FOLLOW_INTERVAL);
        }
    }
}
