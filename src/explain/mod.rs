//! `explain`: follows packets to one address through this node and back, and determines the step
//! that stops them.
//!
//! [`explain`] turns [`Facts`], which the daemon gathers from the table, the kernel and the plan,
//! into an [`Explanation`]: one [`Step`] after the other, up to the first that stops the packets.
//!
//! If no source is given, the packets of this host and of the containers whose subnets it
//! originates are followed, or, for an address of this host, packets from others. It is not known
//! here what happens beyond the next hop: `reachable` means that this node does its part.

mod address;
mod facts;
mod forward;
mod kernel;
mod origin;
mod routes;
mod way_back;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    address::refusal,
    facts::{
        Drain, Facts, Firewall, Flow, Kernel, Link, Neighbor, Place, Question, Reached, Rule, Source, Used,
    },
};

/// What `explain` prints.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Explanation {
    /// The address that was looked up.
    pub address: IpAddr,
    /// `--from`.
    pub from: Option<IpAddr>,
    /// Whether packets reach it.
    pub verdict: Verdict,
    /// The step that stops the packets; `null` if none does.
    pub stopped_by: Option<StepName>,
    /// The verdict in one sentence.
    pub text: String,
    /// What to do, where a step stops them.
    pub remedy: Option<String>,
    /// The way of packets, in order.
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Reachable,
    Stopped,
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Step {
    /// Which step it is.
    pub step: StepName,
    /// How it ends for packets.
    pub result: Outcome,
    /// What was found.
    pub text: String,
    /// One line for each path, neighbor or packet that the step is about.
    pub details: Vec<String>,
    /// What to do about it; `null` if nothing is to be done.
    pub remedy: Option<String>,
}

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepName {
    /// Where the address is.
    Address,
    /// Why this node originates a prefix with the address, or does not.
    Origin,
    /// To which neighbors that prefix is advertised.
    Advertised,
    /// The longest match in the table, with its paths.
    Rib,
    /// Loops, missing policies and route leaks (RFC 4271, 8212, 9234, 9774).
    Import,
    Policy,
    Guard,
    NextHop,
    /// Whether the kernel holds the route.
    Installed,
    /// The route that the kernel uses.
    KernelRoute,
    Interface,
    /// ARP or neighbor discovery.
    NeighborEntry,
    Mtu,
    Forwarding,
    RpFilter,
    Firewall,
    /// The way of replies.
    Return,
}

impl StepName {
    pub const ALL: [Self; 17] = [
        Self::Address,
        Self::Origin,
        Self::Advertised,
        Self::Rib,
        Self::Import,
        Self::Policy,
        Self::Guard,
        Self::NextHop,
        Self::Installed,
        Self::KernelRoute,
        Self::Interface,
        Self::NeighborEntry,
        Self::Mtu,
        Self::Forwarding,
        Self::RpFilter,
        Self::Firewall,
        Self::Return,
    ];

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Origin => "origin",
            Self::Advertised => "advertised",
            Self::Rib => "rib",
            Self::Import => "import",
            Self::Policy => "policy",
            Self::Guard => "guard",
            Self::NextHop => "next-hop",
            Self::Installed => "installed",
            Self::KernelRoute => "kernel-route",
            Self::Interface => "interface",
            Self::NeighborEntry => "neighbor-entry",
            Self::Mtu => "mtu",
            Self::Forwarding => "forwarding",
            Self::RpFilter => "rp-filter",
            Self::Firewall => "firewall",
            Self::Return => "return",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Ok,
    /// Not a fault, but worth knowing.
    Note,
    /// Some packets are lost, or may be.
    Warning,
    Stop,
}

impl Outcome {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Stop => "stop",
        }
    }
}

/// Follows the packets.
pub fn explain(facts: &Facts) -> Explanation {
    let mut walk = Walk::default();
    address::step(facts, &mut walk);
    match facts.place {
        // To this host, or to its containers: other hosts need a route.
        Place::Host { .. } | Place::Container { .. } | Place::Originated { .. } => {
            origin::steps(facts, &mut walk)
        }
        Place::OnLink { .. } | Place::Remote => routes::steps(facts, &mut walk),
        Place::ClusterIp { .. } => {}
    }
    kernel::steps(facts, &mut walk);
    forward::steps(facts, &mut walk);
    way_back::step(facts, &mut walk);
    walk.end(facts)
}

/// The steps so far. Nothing is added after one that stops.
#[derive(Debug, Default)]
struct Walk {
    steps: Vec<Step>,
}

impl Walk {
    fn is_over(&self) -> bool {
        self.steps.last().is_some_and(|s| s.result == Outcome::Stop)
    }

    fn ok(&mut self, step: StepName, text: impl Into<String>) {
        self.add(step, Outcome::Ok, text, Vec::new(), None);
    }

    fn note(&mut self, step: StepName, text: impl Into<String>) {
        self.add(step, Outcome::Note, text, Vec::new(), None);
    }

    fn warn(&mut self, step: StepName, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(step, Outcome::Warning, text, Vec::new(), Some(remedy.into()));
    }

    fn stop(&mut self, step: StepName, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(step, Outcome::Stop, text, Vec::new(), Some(remedy.into()));
    }

    fn add(
        &mut self,
        step: StepName,
        result: Outcome,
        text: impl Into<String>,
        details: Vec<String>,
        remedy: Option<String>,
    ) {
        if !self.is_over() {
            self.steps.push(Step { step, result, text: text.into(), details, remedy });
        }
    }

    fn end(self, facts: &Facts) -> Explanation {
        let stopped = self.steps.last().filter(|s| s.result == Outcome::Stop);
        let warnings = self.steps.iter().filter(|s| s.result == Outcome::Warning).count();
        let text = match (stopped, warnings) {
            (Some(step), _) => format!("{} is not reachable: {}", facts.question.address, step.text),
            (None, 0) => format!("{} is reachable{}", facts.question.address, kernel::way(facts)),
            (None, n) => {
                let s = if n == 1 { "" } else { "s" };
                format!("{} is reachable{}, with {n} warning{s}", facts.question.address, kernel::way(facts))
            }
        };
        Explanation {
            address: facts.question.address,
            from: facts.question.from,
            verdict: if stopped.is_some() { Verdict::Stopped } else { Verdict::Reachable },
            stopped_by: stopped.map(|s| s.step),
            remedy: stopped.and_then(|s| s.remedy.clone()),
            text,
            steps: self.steps,
        }
    }
}

/// `a`, `a and b`, `a, b and c`.
fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let mut items: Vec<_> = items.into_iter().map(|i| i.to_string()).collect();
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}

#[cfg(test)]
mod tests;
