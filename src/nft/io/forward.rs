//! The task that keeps our chains in tables of iptables.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};
use tracing::info;

use super::{
    iptables_legacy,
    socket::{DumpInterrupted, NftSocket},
};
use crate::{
    net::{Diagnostic, Family, Prefix, Reason, Subject},
    nft::{
        chain::{self, Chain, Hook},
        docker,
        forward::{Rule, Seen, Step, Wanted, direct_problem, legacy_problem, masquerade_note, rules, step},
        wire::Batch,
    },
};

/// After a word of the socket, so that many are one look.
const GATHER: Duration = Duration::from_millis(200);
/// How often we look without a word: iptables-legacy says none, and some may be lost.
const LOOK: Duration = Duration::from_secs(30);

/// What the task listens to.
pub struct Inputs {
    /// `None` until there is a plan.
    pub wanted: watch::Receiver<Option<Arc<Wanted>>>,
    /// The first exchange with the neighbors is over. Until then nothing is removed: the last run knew more.
    pub ready: watch::Receiver<bool>,
}

/// Starts it; what only the operator can mend goes to `problems`.
pub fn spawn(inputs: Inputs, problems: watch::Sender<Vec<Diagnostic>>) -> JoinHandle<()> {
    spawn_with_notes(inputs, problems, watch::channel(Vec::new()).0)
}

/// The same; what works, but perhaps otherwise than was meant, goes to `notes`.
pub fn spawn_with_notes(
    inputs: Inputs,
    problems: watch::Sender<Vec<Diagnostic>>,
    notes: watch::Sender<Vec<Diagnostic>>,
) -> JoinHandle<()> {
    tokio::spawn(run(inputs, problems, notes))
}

/// Removes our chains; whether there was one.
///
/// # Errors
///
/// When the kernel refuses. A kernel without nf_tables has no chain.
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
    let mut events = Events::open();
    let mut known = Known::default();
    loop {
        let ready = *inputs.ready.borrow_and_update();
        let wanted = inputs.wanted.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            let looked = spawn_blocking(move || {
                let said = known.turn(&wanted, ready);
                (known, said)
            });
            let Ok((back, said)) = looked.await else { return };
            known = back;
            notes.send_if_modified(|old| {
                let new = *old != known.notes;
                old.clone_from(&known.notes);
                new
            });
            problems.send_if_modified(|old| {
                let new = *old != said;
                *old = said;
                new
            });
        }
        // Cancel safe, each.
        let alive = tokio::select! {
            r = inputs.wanted.changed() => r.is_ok(),
            r = inputs.ready.changed(), if !ready => r.is_ok(),
            () = events.next() => true,
            () = sleep(LOOK) => true,
        };
        if !alive {
            return;
        }
        sleep(GATHER).await;
        events.forget();
    }
}

/// What we know of the socket.
#[derive(Default)]
struct Known {
    socket: Option<NftSocket>,
    /// By family and hook: what we have written.
    written: [[Option<Vec<Rule>>; Hook::ALL.len()]; 2],
    /// What Docker was seen to drop. It stays accepted while it is wanted: Docker drops again with
    /// the next container.
    dropped: BTreeSet<(u8, Prefix)>,
    notes: Vec<Diagnostic>,
}

impl Known {
    /// Looks, and does what is to be done; what the operator should know.
    fn turn(&mut self, wanted: &Wanted, ready: bool) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        self.notes.clear();
        for family in Family::ALL {
            let rules = rules(wanted, family);
            if !rules.is_empty() && iptables_legacy::forward_drops(family) {
                problems.push(legacy_problem(&rules, family));
            }
            match self.family(wanted, family, &rules, ready) {
                Ok(found) => problems.extend(found),
                Err(error) => {
                    // Nothing that we have written is known any longer.
                    (self.socket, self.written[family.index()]) = (None, Default::default());
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

    /// All hooks of a family.
    fn family(
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
                self.keep(&mut socket, family, hook, rules)?;
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

    fn keep(
        &mut self,
        socket: &mut NftSocket,
        family: Family,
        hook: Hook,
        rules: Vec<Rule>,
    ) -> io::Result<()> {
        let seen = see(socket, family, hook, hook != Hook::Forward && !rules.is_empty())?;
        let written = &mut self.written[family.index()][hook as usize];
        let step = step(&rules, written.as_deref(), &seen);
        carry_out(socket, family, hook, step, &rules, &seen)?;
        let chain = hook.name();
        match step {
            Step::Write => {
                if written.is_none() {
                    info!(%family, chain, "packets of containers are accepted in iptables, which would drop them");
                }
                *written = Some(rules);
            }
            Step::Remove => {
                info!(%family, chain, "nothing is to be accepted in iptables any more: chain removed");
                *written = None;
            }
            Step::Nothing => {}
        }
        Ok(())
    }
}

/// Where `docker.accept-forwarded` is false: the commands that mend what is dropped.
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

/// The problem that the policy of FORWARD drops what is to be accepted, and that our chain is not
/// there to accept it.
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

/// `drops`: what is to be accepted is dropped; of FORWARD its policy decides.
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

/// The rules of a chain that may not be there.
fn listed(socket: &mut NftSocket, family: Family, chain: Chain) -> io::Result<Vec<Vec<u8>>> {
    match chain_of(socket, family, chain)? {
        Some(_) => rules_of(socket, family, chain),
        None => Ok(Vec::new()),
    }
}

fn chain_of(socket: &mut NftSocket, family: Family, chain: Chain) -> io::Result<Option<Vec<u8>>> {
    let request = chain::ask_chain(socket.next(), family, chain);
    match socket.request(&request) {
        Ok(answers) => Ok(answers.into_iter().next()),
        Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
        Err(e) => Err(e),
    }
}

fn rules_of(socket: &mut NftSocket, family: Family, chain: Chain) -> io::Result<Vec<Vec<u8>>> {
    const TRIES: u32 = 5;
    for last in 1..=TRIES {
        let request = chain::ask_rules(socket.next(), family, chain);
        match socket.request(&request) {
            Err(e) if last < TRIES && e.get_ref().is_some_and(|e| e.is::<DumpInterrupted>()) => {}
            answer => return Ok(answer?.into_iter().filter(|r| chain::is_in(r, chain)).collect()),
        }
    }
    Ok(Vec::new())
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
        Step::Write => socket.transact(|batch: &mut Batch| batch.write_chain(family, hook, rules, seen)),
        Step::Remove => socket.transact(|batch| batch.remove_chain(family, hook, seen)),
    }
}

/// Word of changes in nf_tables, whose they are does not matter: a look costs little.
struct Events(Option<TokioSocket>);

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

impl Events {
    fn open() -> Self {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
            socket.socket_mut().add_membership(GROUP)?;
            Ok::<_, io::Error>(socket)
        };
        // Without it we look now and then.
        Self(open().inspect_err(|error| tracing::debug!(%error, "no word of changes in nf_tables")).ok())
    }

    /// Cancel safe: what is lost with it only said that there is something to see.
    async fn next(&mut self) {
        let Some(socket) = &mut self.0 else { return std::future::pending().await };
        // That some were lost (ENOBUFS) is a word, too.
        let _ = socket.recv_from(&mut Vec::with_capacity(SOME)).await;
    }

    /// What came until now is seen with the next look.
    fn forget(&mut self) {
        let Some(socket) = &mut self.0 else { return };
        while socket.socket_mut().recv(&mut Vec::with_capacity(SOME), MSG_DONTWAIT).is_ok() {}
    }
}

/// The rest of a word is cut off.
const SOME: usize = 64;
const MSG_DONTWAIT: i32 = 0x40;
