//! The task that maintains our chains in tables of iptables.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use nix::errno::Errno;
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};
use tracing::info;

use super::{iptables_legacy, socket::NftSocket};
use crate::{
    mailbox::publish,
    net::{Diagnostic, Family, PerFamily, Prefix, Reason, Subject},
    netlink::io::{Notifications, Protocol},
    nft::{
        chain::{self, Chain, Hook},
        docker,
        forward::{Rule, Seen, Step, Wanted, direct_problem, legacy_problem, masquerade_note, rules, step},
        wire::NEW_CHAIN,
    },
    pace::tick,
};

/// Changes are collected for this long.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How often to check without a notification: iptables-legacy sends none, and some may be lost.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// Inputs of the task.
pub struct Inputs {
    /// `None` until there is a plan.
    pub wanted: watch::Receiver<Option<Arc<Wanted>>>,
    /// Whether initial routes of all neighbors were received. Until then nothing is removed: what
    /// the previous run wrote is more complete.
    pub ready: watch::Receiver<bool>,
}

/// Starts the task. `problems` gets what only the operator can resolve.
pub fn spawn(inputs: Inputs, problems: watch::Sender<Vec<Diagnostic>>) -> JoinHandle<()> {
    spawn_with_notes(inputs, problems, watch::channel(Vec::new()).0)
}

/// The same; `notes` gets what works, but perhaps not as intended.
pub fn spawn_with_notes(
    inputs: Inputs,
    problems: watch::Sender<Vec<Diagnostic>>,
    notes: watch::Sender<Vec<Diagnostic>>,
) -> JoinHandle<()> {
    tokio::spawn(run(inputs, problems, notes))
}

/// Removes our chains. Returns whether one existed.
///
/// # Errors
///
/// If the kernel rejects the request. A kernel without nf_tables has no chain.
pub fn cleanup() -> io::Result<bool> {
    let Ok(mut socket) = NftSocket::open() else { return Ok(false) };
    let mut any = false;
    for family in Family::ALL {
        for hook in Hook::ALL {
            let Ok(seen) = see(&mut socket, family, hook, false) else { continue };
            if seen.rules.is_some() || !seen.jumps.is_empty() {
                carry_out(&mut socket, family, hook, Step::Remove, &[], &seen)?;
                any = true;
            }
        }
    }
    Ok(any)
}

async fn run(
    mut inputs: Inputs,
    problems: watch::Sender<Vec<Diagnostic>>,
    notes: watch::Sender<Vec<Diagnostic>>,
) {
    // Of any program: a check costs little.
    let mut events = Notifications::open(Protocol::NETFILTER, &[GROUP], "nf_tables");
    let mut known = Known::default();
    loop {
        let ready = *inputs.ready.borrow_and_update();
        let wanted = inputs.wanted.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            let turn = spawn_blocking(move || {
                let found = known.reconcile(&wanted, ready);
                (known, found)
            });
            let Ok((back, found)) = turn.await else { return };
            known = back;
            publish(&notes, known.notes.clone());
            publish(&problems, found);
        }
        // Cancel safe, each.
        let alive = tokio::select! {
            r = inputs.wanted.changed() => r.is_ok(),
            r = inputs.ready.changed(), if !ready => r.is_ok(),
            () = events.changed() => true,
            () = tick(CHECK_INTERVAL) => true,
        };
        if !alive {
            return;
        }
        sleep(DEBOUNCE).await;
        events.forget();
    }
}

/// State of our chains in the kernel.
#[derive(Default)]
struct Known {
    socket: Option<NftSocket>,
    /// The rules that we have written, by family and hook.
    written: PerFamily<[Option<Vec<Rule>>; Hook::ALL.len()]>,
    /// Subnets that Docker was seen to drop, by hook. They stay accepted while they are wanted:
    /// Docker drops them again with the next container.
    dropped: BTreeSet<(u8, Prefix)>,
    notes: Vec<Diagnostic>,
}

impl Known {
    /// Reads the chains and corrects them. Returns what only the operator can resolve.
    fn reconcile(&mut self, wanted: &Wanted, ready: bool) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        self.notes.clear();
        for family in Family::ALL {
            let rules = rules(wanted, family);
            if !rules.is_empty() && iptables_legacy::forward_drops(family) {
                problems.push(legacy_problem(&rules, family));
            }
            match self.reconcile_family(wanted, family, &rules, ready) {
                Ok(found) => problems.extend(found),
                Err(error) => {
                    // What the chains contain is unknown now.
                    (self.socket, self.written[family]) = (None, Default::default());
                    // A kernel without nf_tables has no such chain either.
                    let absent = [Errno::EPROTONOSUPPORT, Errno::EOPNOTSUPP, Errno::EINVAL];
                    if !absent.iter().any(|e| error.raw_os_error() == Some(*e as i32)) {
                        problems.push(unreadable(family, &error));
                    }
                }
            }
        }
        problems
    }

    /// Reconciles all hooks of a family.
    fn reconcile_family(
        &mut self,
        wanted: &Wanted,
        family: Family,
        rules: &[Rule],
        ready: bool,
    ) -> io::Result<Vec<Diagnostic>> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => NftSocket::open()?,
        };
        let mut problems = Vec::new();
        for hook in Hook::ALL {
            let dropped = self.dropped(&mut socket, wanted, family, hook)?;
            let rules = if hook == Hook::Forward { rules.to_vec() } else { docker::rules(wanted, &dropped) };
            if !rules.is_empty() || ready {
                self.maintain(&mut socket, family, hook, rules)?;
            }
            problems.extend(left_to_the_operator(&mut socket, wanted, family, hook)?);
        }
        let open: Vec<_> = wanted.pods.iter().filter(|p| wanted.enabled && p.family() == family).collect();
        if !open.is_empty() {
            let nat = listed(&mut socket, family, Chain::Nat)?;
            let is_masqueraded = |p: &Prefix| nat.iter().any(|r| chain::masquerades(r, *p));
            self.notes.extend(open.iter().filter(|p| is_masqueraded(p)).map(|p| masquerade_note(**p)));
            let direct = listed(&mut socket, family, Chain::DockerNftables)?;
            let is_dropped = |p: &Prefix| direct.iter().any(|r| chain::drops_to(r, *p));
            problems.extend(open.iter().filter(|p| is_dropped(p)).map(|p| direct_problem(**p)));
        }
        self.socket = Some(socket);
        Ok(problems)
    }

    /// The advertised subnets that Docker drops before a hook of ours could accept them.
    fn dropped(
        &mut self,
        socket: &mut NftSocket,
        wanted: &Wanted,
        family: Family,
        hook: Hook,
    ) -> io::Result<BTreeSet<Prefix>> {
        let Some(place) = docker::drops_of(hook) else { return Ok(BTreeSet::new()) };
        let key = hook as u8;
        let is_routed = |p: &Prefix| wanted.routed.values().any(|all| all.contains(p));
        self.dropped.retain(|(_, p)| wanted.pods.contains(p) && is_routed(p));
        if wanted.pods.iter().any(is_routed) {
            let list = listed(socket, family, place)?;
            let found = docker::dropped(hook, wanted, &wanted.pods, family, &list);
            self.dropped.extend(found.into_iter().map(|p| (key, p)));
        }
        let of_hook = self.dropped.iter().filter(|(k, p)| *k == key && p.family() == family);
        Ok(of_hook.map(|(_, p)| *p).collect())
    }

    /// Corrects our chain at a hook, and logs a change.
    fn maintain(
        &mut self,
        socket: &mut NftSocket,
        family: Family,
        hook: Hook,
        rules: Vec<Rule>,
    ) -> io::Result<()> {
        let seen = see(socket, family, hook, hook != Hook::Forward && !rules.is_empty())?;
        let written = &mut self.written[family][hook as usize];
        let step = step(&rules, written.as_deref(), &seen);
        carry_out(socket, family, hook, step, &rules, &seen)?;
        let chain = hook.name();
        match step {
            Step::Write => {
                if written.is_none() {
                    info!(%family, chain, "chain written, packets of containers that iptables would drop are accepted");
                }
                *written = Some(rules);
            }
            Step::Remove => {
                info!(%family, chain, "chain removed, no packets of containers to accept in iptables");
                *written = None;
            }
            Step::Nothing => {}
        }
        Ok(())
    }
}

/// Subnets that are dropped while `docker.accept-forwarded` is false, with the commands to accept
/// them.
fn left_to_the_operator(
    socket: &mut NftSocket,
    wanted: &Wanted,
    family: Family,
    hook: Hook,
) -> io::Result<Vec<Diagnostic>> {
    let named: BTreeSet<_> = wanted.named.iter().filter(|p| p.family() == family).copied().collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let dropped = match docker::drops_of(hook) {
        Some(place) => docker::dropped(hook, wanted, &named, family, &listed(socket, family, place)?),
        None => match chain_of(socket, family, Chain::Forward)? {
            Some(forward) if chain::drops(&forward) => named.clone(),
            _ => BTreeSet::new(),
        },
    };
    if dropped.is_empty() {
        return Ok(Vec::new());
    }
    let parent = listed(socket, family, hook.parent())?;
    let dropped = dropped.intersection(&named);
    Ok(dropped.filter_map(|p| docker::left_to_the_operator(hook, *p, &parent)).collect())
}

/// The problem that the policy of FORWARD drops packets to accept, while our chain does not exist.
pub fn dropped(wanted: &Wanted) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for family in Family::ALL {
        let rules = rules(wanted, family);
        if rules.is_empty() {
            continue;
        }
        if iptables_legacy::forward_drops(family) {
            problems.push(legacy_problem(&rules, family));
        }
        match NftSocket::open().and_then(|mut socket| see(&mut socket, family, Hook::Forward, false)) {
            Ok(seen) if seen.drops && seen.rules.is_none() => problems.push(Diagnostic::new(
                Reason::ForwardDropped,
                Subject::program(format!("iptables {family}")),
                format!(
                    "the policy of FORWARD is DROP (Docker sets it): {family} packets of containers are \
                     dropped while routelet does not run"
                ),
                "start routelet, which accepts them, or add rules to DOCKER-USER",
            )),
            _ => {}
        }
    }
    problems
}

fn unreadable(family: Family, error: &io::Error) -> Diagnostic {
    Diagnostic::new(
        Reason::ForwardUnreadable,
        Subject::program(format!("iptables {family}")),
        format!(
            "FORWARD of iptables cannot be read or written for {family}: {error}; where its policy is DROP \
             (Docker sets it) containers are cut off"
        ),
        "give routelet NET_ADMIN, or set `accept-forwarded = false` in [docker] and [kubernetes] and accept \
         their subnets there",
    )
}

/// Reads the chains of a hook. `drops`: the packets to accept are dropped otherwise; for FORWARD
/// its policy decides.
fn see(socket: &mut NftSocket, family: Family, hook: Hook, drops: bool) -> io::Result<Seen> {
    let Some(parent) = chain_of(socket, family, hook.parent())? else { return Ok(Seen::default()) };
    let drops = drops || hook == Hook::Forward && chain::drops(&parent);
    let ours = chain_of(socket, family, hook.ours())?.is_some();
    if !drops && !ours {
        return Ok(Seen::default());
    }
    let parent = rules_of(socket, family, hook.parent())?;
    let rules = if ours { Some(rules_of(socket, family, hook.ours())?.len()) } else { None };
    Ok(hook.seen(drops, &parent, rules))
}

/// The rules of a chain; none if it does not exist.
fn listed(socket: &mut NftSocket, family: Family, chain: Chain) -> io::Result<Vec<Vec<u8>>> {
    match chain_of(socket, family, chain)? {
        Some(_) => rules_of(socket, family, chain),
        None => Ok(Vec::new()),
    }
}

fn chain_of(socket: &mut NftSocket, family: Family, chain: Chain) -> io::Result<Option<Vec<u8>>> {
    socket.get(NEW_CHAIN, |encoder| chain::get_chain(encoder, family, chain))
}

fn rules_of(socket: &mut NftSocket, family: Family, chain: Chain) -> io::Result<Vec<Vec<u8>>> {
    let mut rules = socket.list(|encoder| chain::get_rules(encoder, family, chain))?;
    rules.retain(|r| chain::is_in(r, chain));
    Ok(rules)
}

fn carry_out(
    socket: &mut NftSocket,
    family: Family,
    hook: Hook,
    step: Step,
    rules: &[Rule],
    seen: &Seen,
) -> io::Result<()> {
    match step {
        Step::Nothing => Ok(()),
        Step::Write => socket.transact(|batch| batch.write_chain(family, hook, rules, seen)),
        Step::Remove => socket.transact(|batch| batch.remove_chain(family, hook, seen)),
    }
}
