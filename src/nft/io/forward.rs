//! The task that keeps our chain in iptables' FORWARD.

use std::{io, sync::Arc, time::Duration};

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
    socket::{Kernel, Torn},
};
use crate::{
    net::{Diagnostic, Family, Prefix, Reason, Subject},
    nft::{
        chain::{self, Chain},
        forward::{
            CHAIN, Rule, Seen, Step, Wanted, direct_problem, legacy_problem, masquerade_note, rules, step,
        },
        wire::Batch,
    },
};

/// After a word of the kernel, so that many are one look.
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

/// Removes our chain; whether there was one.
///
/// # Errors
///
/// When the kernel refuses. A kernel without nf_tables has no chain.
pub fn cleanup() -> io::Result<bool> {
    let Ok(mut kernel) = Kernel::open() else { return Ok(false) };
    let mut any = false;
    for family in Family::ALL {
        let Ok(seen) = see(&mut kernel, family) else { continue };
        if seen.rules.is_some() || !seen.jumps.is_empty() {
            carry_out(&mut kernel, family, Step::Remove, &[], &seen)?;
            any = true;
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

/// What we know of the kernel.
#[derive(Default)]
struct Known {
    kernel: Option<Kernel>,
    /// By family: what we have written.
    written: [Option<Vec<Rule>>; 2],
    notes: Vec<Diagnostic>,
}

impl Known {
    /// Looks, and does what is to be done; what the operator should know.
    fn turn(&mut self, wanted: &Wanted, ready: bool) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        self.notes.clear();
        for family in Family::ALL {
            let rules = rules(wanted, family);
            problems.extend(self.docker(family, &rules).unwrap_or_default());
            if !rules.is_empty() && iptables_legacy::forward_drops(family) {
                problems.push(legacy_problem(&rules, family));
            }
            if rules.is_empty() && !ready {
                continue;
            }
            if let Err(error) = self.family(family, rules) {
                // Nothing that we have written is known any longer.
                (self.kernel, self.written[family.index()]) = (None, None);
                // A kernel without nf_tables has no such chain either.
                let absent = [Errno::EPROTONOSUPPORT, Errno::EOPNOTSUPP, Errno::EINVAL];
                if !absent.iter().any(|e| error.raw_os_error() == Some(*e as i32)) {
                    problems.push(unreadable(family, &error));
                }
            }
        }
        problems
    }

    /// What Docker does to packets of what is to be accepted, before and after they are.
    fn docker(&mut self, family: Family, rules: &[Rule]) -> io::Result<Vec<Diagnostic>> {
        let open = rules.iter().filter_map(|rule| match rule {
            Rule::To(prefix) => Some(*prefix),
            Rule::From(_) | Rule::Leave(_) => None,
        });
        let open: Vec<_> = open.collect();
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::open()?,
        };
        let mut listed = |chain| match chain_of(&mut kernel, family, chain)? {
            Some(_) => rules_of(&mut kernel, family, chain),
            None => Ok(Vec::new()),
        };
        let (raw, nat) = (listed(Chain::Raw)?, listed(Chain::Nat)?);
        self.kernel = Some(kernel);
        let any =
            |list: &[Vec<u8>], is: fn(&[u8], Prefix) -> bool, prefix| list.iter().any(|r| is(r, prefix));
        let masqueraded = open.iter().filter(|p| any(&nat, chain::masquerades, **p));
        self.notes.extend(masqueraded.map(|p| masquerade_note(*p)));
        let dropped = open.iter().filter(|p| any(&raw, chain::drops_to, **p));
        Ok(dropped.map(|p| direct_problem(*p)).collect())
    }

    fn family(&mut self, family: Family, rules: Vec<Rule>) -> io::Result<()> {
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::open()?,
        };
        let seen = see(&mut kernel, family)?;
        let written = &mut self.written[family.index()];
        let step = step(&rules, written.as_deref(), &seen);
        carry_out(&mut kernel, family, step, &rules, &seen)?;
        match step {
            Step::Write => {
                if written.is_none() {
                    info!(%family, chain = CHAIN, "the policy of iptables' FORWARD is DROP: packets of containers are accepted at its end");
                }
                *written = Some(rules);
            }
            Step::Remove => {
                info!(%family, chain = CHAIN, "nothing is to be accepted in iptables' FORWARD: our chain is gone");
                *written = None;
            }
            Step::Nothing => {}
        }
        self.kernel = Some(kernel);
        Ok(())
    }
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

fn see(kernel: &mut Kernel, family: Family) -> io::Result<Seen> {
    let Some(forward) = chain_of(kernel, family, Chain::Forward)? else { return Ok(Seen::default()) };
    let drops = chain::drops(&forward);
    let ours = chain_of(kernel, family, Chain::Ours)?.is_some();
    if !drops && !ours {
        return Ok(Seen::default());
    }
    let jumps: Vec<_> = rules_of(kernel, family, Chain::Forward)?.iter().map(|r| chain::jump(r)).collect();
    let rules = if ours { Some(rules_of(kernel, family, Chain::Ours)?.len()) } else { None };
    Ok(Seen {
        drops,
        is_last: jumps.last().is_some_and(Option::is_some),
        jumps: jumps.into_iter().flatten().collect(),
        rules,
    })
}

fn chain_of(kernel: &mut Kernel, family: Family, chain: Chain) -> io::Result<Option<Vec<u8>>> {
    let question = chain::ask_chain(kernel.next(), family, chain);
    match kernel.ask(&question) {
        Ok(answers) => Ok(answers.into_iter().next()),
        Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
        Err(e) => Err(e),
    }
}

fn rules_of(kernel: &mut Kernel, family: Family, chain: Chain) -> io::Result<Vec<Vec<u8>>> {
    const TRIES: u32 = 5;
    for last in 1..=TRIES {
        let question = chain::ask_rules(kernel.next(), family, chain);
        match kernel.ask(&question) {
            Err(e) if last < TRIES && e.get_ref().is_some_and(|e| e.is::<Torn>()) => {}
            answer => return Ok(answer?.into_iter().filter(|r| chain::is_in(r, chain)).collect()),
        }
    }
    Ok(Vec::new())
}

fn carry_out(kernel: &mut Kernel, family: Family, step: Step, rules: &[Rule], seen: &Seen) -> io::Result<()> {
    match step {
        Step::Nothing => Ok(()),
        Step::Write => kernel.transact(|batch: &mut Batch| batch.write_chain(family, rules, &seen.jumps)),
        Step::Remove => {
            kernel.transact(|batch| batch.remove_chain(family, &seen.jumps, seen.rules.is_some()))
        }
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
