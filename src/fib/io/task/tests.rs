//! The task against a kernel in memory that refuses, loses and delays requests: its tables end up
//! as desired in each case.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use nix::libc::{EAGAIN, EBUSY, EEXIST, EINTR, EINVAL, ENETDOWN, ENOBUFS, ENOENT, ENOMEM, ESRCH};
use tokio::time::sleep;

use super::*;
use crate::{
    fib::{
        host::testing::{host, link},
        route::{Object, ObjectId},
        wire::{self, kind},
    },
    net::{Gateway, Phase},
    netlink::{
        decode::{Message, messages},
        encode::Encoder,
        flag,
        io::Transport,
    },
};

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

const METRIC: u32 = 179;
const PREFIXES: u8 = 24;

/// What happens to one send.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Nothing,
    /// `send` fails, and nothing is executed.
    Unsent(i32),
    /// So many requests are executed, or parts of a dump delivered, then reading fails.
    Torn(usize, i32),
    /// Every so many requests one is refused.
    Refused(usize, i32),
    /// All is executed, and the replies come after the reader has given up.
    Late,
    /// A dump that lacks every other route, as the table changes meanwhile. (Of objects it is
    /// complete: the kernel goes on by their id.)
    Changed,
}

/// The kernel's tables.
#[derive(Debug, Default)]
struct Tables {
    objects: BTreeMap<ObjectId, Object>,
    /// The body of the request, and the object in it.
    routes: BTreeMap<(Prefix, u32), (Vec<u8>, ObjectId)>,
    faults: VecDeque<Fault>,
    /// Refused for ever.
    never: Option<Prefix>,
    removed: Vec<Prefix>,
}

impl Tables {
    fn execute(&mut self, message: &Message<'_>) -> Result<(), i32> {
        let replace = message.flags & flag::REPLACE != 0;
        match message.kind {
            kind::NEW_NEXTHOP => {
                let seen = wire::object(message.body).ok_or(EINVAL)?;
                let object = seen.object().ok_or(EINVAL)?;
                let is_hop = |id: &ObjectId| matches!(self.objects.get(id), Some(Object::Hop(_)));
                if let Object::Group(ids) | Object::ResilientGroup(ids) = &object
                    && (ids.is_empty() || !ids.iter().all(is_hop))
                {
                    return Err(EINVAL);
                }
                match self.objects.get(&seen.id) {
                    Some(_) if !replace => return Err(EEXIST),
                    Some(old) if std::mem::discriminant(old) != std::mem::discriminant(&object) => {
                        return Err(EINVAL);
                    }
                    _ => drop(self.objects.insert(seen.id, object)),
                }
            }
            kind::DEL_NEXTHOP => {
                let id = wire::object(message.body).ok_or(EINVAL)?.id;
                self.objects.remove(&id).ok_or(ENOENT)?;
                self.cascade(id);
            }
            kind::NEW_ROUTE => {
                let seen = wire::route(message.body).ok_or(EINVAL)?;
                let key = (seen.prefix, seen.metric);
                if self.never == Some(seen.prefix)
                    || seen.object != 0 && !self.objects.contains_key(&seen.object)
                {
                    return Err(EINVAL);
                }
                if self.routes.contains_key(&key) && !replace {
                    return Err(EEXIST);
                }
                self.routes.insert(key, (message.body.to_vec(), seen.object));
            }
            kind::DEL_ROUTE => {
                let seen = wire::route(message.body).ok_or(EINVAL)?;
                self.routes.remove(&(seen.prefix, seen.metric)).ok_or(ESRCH)?;
                self.removed.push(seen.prefix);
            }
            _ => return Err(EINVAL),
        }
        Ok(())
    }

    /// What the kernel removes with an object.
    fn cascade(&mut self, id: ObjectId) {
        for object in self.objects.values_mut() {
            if let Object::Group(ids) | Object::ResilientGroup(ids) = object {
                ids.retain(|member| *member != id);
            }
        }
        self.objects
            .retain(|_, o| !matches!(o, Object::Group(m) | Object::ResilientGroup(m) if m.is_empty()));
        let (objects, removed) = (&self.objects, &mut self.removed);
        self.routes.retain(|(prefix, _), (_, object)| {
            let stays = *object == 0 || objects.contains_key(object);
            if !stays {
                removed.push(*prefix);
            }
            stays
        });
    }

    /// The datagrams of a dump.
    fn dump(&self, request: &Message<'_>, changed: bool) -> Vec<Vec<u8>> {
        let mut entries: Vec<Vec<u8>> = match request.kind {
            kind::GET_NEXTHOP => {
                let entry = |(id, object): (&ObjectId, &Object)| {
                    let mut encoder = Encoder::new(request.seq);
                    wire::new_nexthop(&mut encoder, 179, *id, object, false);
                    encoder.bytes().to_vec()
                };
                self.objects.iter().map(entry).collect()
            }
            _ => {
                let routes = self.routes.values().map(|(body, _)| body);
                let family = routes.filter(|body| body.first() == request.body.first());
                family.map(|body| message(kind::NEW_ROUTE, request.seq, body)).collect()
            }
        };
        if changed && request.kind == kind::GET_ROUTE {
            let mut keep = true;
            entries.retain(|_| {
                keep = !keep;
                keep
            });
        }
        let done = message(DONE, request.seq, &[0; 4]);
        let mut parts: Vec<Vec<u8>> = entries.chunks(3).map(<[_]>::concat).chain([done]).collect();
        if changed {
            parts[0][6] |= u8::try_from(flag::DUMP_INTR).expect("a low bit");
        }
        parts
    }

    /// The gateways of a route's interfaces.
    fn links(&self, prefix: Prefix) -> Option<Vec<u32>> {
        let (body, object) = self.routes.get(&(prefix, METRIC))?;
        let link = |id: &ObjectId| match self.objects.get(id) {
            Some(Object::Hop(hop)) => Some(hop.ifindex),
            _ => None,
        };
        let mut links: Vec<u32> = match self.objects.get(object) {
            Some(Object::Group(ids) | Object::ResilientGroup(ids)) => ids.iter().filter_map(link).collect(),
            Some(Object::Hop(hop)) => vec![hop.ifindex],
            None => wire::route(body)?.hops.iter().map(|hop| hop.ifindex).collect(),
        };
        links.sort_unstable();
        Some(links)
    }
}

fn message(kind: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    let mut octets = u32::try_from(16 + body.len()).expect("small").to_ne_bytes().to_vec();
    octets.extend(kind.to_ne_bytes());
    octets.extend(2u16.to_ne_bytes());
    octets.extend(seq.to_ne_bytes());
    octets.extend([0; 4]);
    octets.extend(body);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

fn reply(seq: u32, errno: i32) -> Vec<u8> {
    let mut body = (-errno).to_ne_bytes().to_vec();
    body.extend([0; 16]);
    let mut octets = message(ERROR, seq, &body);
    octets[6..8].copy_from_slice(&0u16.to_ne_bytes());
    octets
}

/// One socket.
#[derive(Debug)]
struct Connection {
    tables: Arc<Mutex<Tables>>,
    replies: VecDeque<Result<Vec<u8>, i32>>,
    dumping: bool,
}

impl Connection {
    fn new(tables: &Arc<Mutex<Tables>>) -> Box<Self> {
        Box::new(Self { tables: tables.clone(), replies: VecDeque::new(), dumping: false })
    }

    fn dump(&mut self, tables: &Tables, request: &Message<'_>, fault: Fault) {
        if self.dumping {
            return self.replies.push_back(Ok(reply(request.seq, EBUSY)));
        }
        if let Fault::Refused(_, errno) = fault {
            return self.replies.push_back(Ok(reply(request.seq, errno)));
        }
        self.dumping = true;
        let parts = tables.dump(request, matches!(fault, Fault::Changed));
        for (n, part) in parts.into_iter().enumerate() {
            match fault {
                Fault::Torn(at, errno) if at == n => self.replies.push_back(Err(errno)),
                Fault::Late if n == 0 => self.replies.push_back(Err(EAGAIN)),
                _ => {}
            }
            self.replies.push_back(Ok(part));
        }
    }
}

impl Transport for Connection {
    fn send(&mut self, requests: &[u8]) -> io::Result<()> {
        let tables = self.tables.clone();
        let mut tables = tables.lock().unwrap();
        let fault = tables.faults.pop_front().unwrap_or(Fault::Nothing);
        if let Fault::Unsent(errno) = fault {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if let Fault::Late = fault {
            self.replies.push_back(Err(EAGAIN));
        }
        for (n, request) in messages(requests).enumerate() {
            if matches!(request.kind, kind::GET_ROUTE | kind::GET_NEXTHOP) {
                self.dump(&tables, &request, fault);
                continue;
            }
            let result = match fault {
                Fault::Torn(at, errno) if at == n => {
                    self.replies.push_back(Err(errno));
                    return Ok(());
                }
                // The kernel refuses no deletion with ESRCH while the route is there.
                Fault::Refused(every, errno)
                    if n.is_multiple_of(every)
                        && !(errno == ESRCH
                            && matches!(request.kind, kind::DEL_ROUTE | kind::DEL_NEXTHOP)) =>
                {
                    Err(errno)
                }
                _ => tables.execute(&request),
            };
            match result {
                Err(errno) => self.replies.push_back(Ok(reply(request.seq, errno))),
                Ok(()) if request.flags & flag::ACK != 0 => {
                    self.replies.push_back(Ok(reply(request.seq, 0)));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        match self.replies.pop_front().unwrap_or(Err(EAGAIN)) {
            Ok(datagram) => {
                let ends = messages(&datagram).any(|m| m.kind == DONE);
                self.dumping &= !ends;
                into.extend(datagram);
                Ok(())
            }
            Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn discard(&mut self) {
        self.replies.clear();
        self.dumping = false;
    }

    fn another(&self) -> io::Result<(Box<dyn Transport>, u32)> {
        Ok((Self::new(&self.tables), 8))
    }
}

/// The running task with its inputs.
struct Bed {
    tables: Arc<Mutex<Tables>>,
    routes: mailbox::Sender<Prefix, Option<Arc<NextHops>>>,
    wanted: BTreeMap<Prefix, u8>,
    /// Keeps the other inputs open.
    _inputs: Box<dyn std::any::Any>,
}

impl Bed {
    /// Starts it after an earlier run that left a route, amid these faults.
    fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::start_after(1, faults, Phase::Converged)
    }

    /// The same; the route leads over these links, and all neighbors are in this phase.
    fn start_after(links: u8, faults: impl IntoIterator<Item = Fault>, phase: Phase) -> Self {
        let tables = Arc::new(Mutex::new(Tables::default()));
        leave_route(&mut tables.lock().unwrap(), links);
        tables.lock().unwrap().faults.extend(faults);
        let settings = Settings {
            install: true,
            table: 254,
            protocol: 179,
            metric: METRIC,
            resolve_via_default: false,
            nexthop_objects: true,
            resilient: false,
            restart_time: Duration::from_secs(120),
        };
        let up = (1..=4u32).map(|i| link(i, &format!("eth{i}")).with(&format!("10.0.{i}.1/24")));
        let (host_in, host) = watch::channel(Arc::new(host(up, [])));
        let all = (1..=4u8).map(|i| ([10, 0, i, 2].into(), phase)).collect();
        let (routes, routes_out) = mailbox::mailbox();
        let own: Prefix = "10.9.0.0/16".parse().unwrap();
        let (own_in, own) = watch::channel(Arc::new(vec![own]));
        let (convergence_in, convergence) = watch::channel(Arc::default());
        let (sources_in, sources) = watch::channel(None);
        let (assigned_in, assigned) = watch::channel(Arc::default());
        let (lost_in, lost) = watch::channel(Lost::default());
        let inputs = Inputs { routes: routes_out, own, convergence, sources, assigned, lost };
        let (observed_in, observed) = mailbox::mailbox();
        let (requests_in, requests) = mpsc::channel(1);
        let (switch, switches) = mpsc::channel(1);
        let outputs = (watch::channel(Arc::default()).0, watch::channel(Vec::new()).0);
        let left = Left { places: Vec::new(), swept: Box::new(|| {}) };
        let writer = Channel::over(Connection::new(&tables), 7);
        let task = Task::new(settings, left, writer, host, Arc::default(), outputs);
        tokio::spawn(task.run(inputs, observed, requests, switch));
        convergence_in.send_replace(Arc::new(Convergence { neighbors: all }));
        let open = (host_in, own_in, convergence_in, sources_in, assigned_in, lost_in, observed_in);
        Self { tables, routes, wanted: BTreeMap::new(), _inputs: Box::new((open, requests_in, switches)) }
    }

    /// Links as bits; 0 withdraws the route.
    fn want(&mut self, n: u8, links: u8) {
        let gateways: Vec<_> = (1..=4u8)
            .filter(|i| links & (1 << (i - 1)) != 0)
            .map(|i| Gateway { addr: [10, 0, i, 2].into(), ifindex: 0 })
            .collect();
        let hops = (!gateways.is_empty()).then(|| Arc::new(NextHops::unicast(gateways)));
        self.wanted.insert(nth(n), links);
        self.routes.post_all([(nth(n), hops)]);
    }

    fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.tables.lock().unwrap().faults.extend(faults);
    }

    /// What differs from what is wanted.
    fn differences(&self) -> Vec<String> {
        let tables = self.tables.lock().unwrap();
        let mut found = Vec::new();
        for (prefix, links) in &self.wanted {
            let links: Vec<u32> = (1..=4).filter(|i| links & (1 << (i - 1)) != 0).collect();
            let (want, have) = ((!links.is_empty()).then_some(links), tables.links(*prefix));
            if want != have && tables.never != Some(*prefix) {
                found.push(format!("{prefix}: {have:?} instead of {want:?}"));
            }
        }
        for key in tables.routes.keys().filter(|(p, m)| *m == METRIC && !self.wanted.contains_key(p)) {
            found.push(format!("{key:?} is left over"));
        }
        if !tables.routes.contains_key(&("10.9.0.0/16".parse().unwrap(), u32::MAX)) {
            found.push("the own prefix is missing".into());
        }
        for id in tables.objects.keys() {
            let in_group = |o: &Object| matches!(o, Object::Group(m) if m.contains(id));
            let used = tables.routes.values().any(|(_, object)| object == id);
            if !used && !tables.objects.values().any(in_group) {
                found.push(format!("object {id} is left over"));
            }
        }
        found
    }

    async fn right_within(&self, seconds: u64, what: &str) {
        sleep(Duration::from_secs(seconds)).await;
        assert_eq!(self.differences(), Vec::<String>::new(), "{what}");
    }
}

fn nth(n: u8) -> Prefix {
    Prefix::v4([20, n, 0, 0].into(), 16)
}

/// What an earlier run left: a route over these links that no neighbor advertises any more.
fn leave_route(tables: &mut Tables, links: u8) {
    let first = (179 << 24) + 5;
    let mut ids = Vec::new();
    for (id, i) in (first..).zip((1..=4u8).filter(|i| links & (1 << (i - 1)) != 0)) {
        let gateway = [10, 0, i, 2].into();
        let hop = crate::fib::resolve::Hop { ifindex: i.into(), gateway, onlink: false };
        tables.objects.insert(id, Object::Hop(hop));
        ids.push(id);
    }
    let id = if ids.len() > 1 { first + 10 } else { first };
    if ids.len() > 1 {
        tables.objects.insert(id, Object::Group(ids));
    }
    let ours = wire::Ours { table: 254, protocol: 179, sources: PreferredSources::default() };
    let mut encoder = Encoder::new(1);
    wire::new_route(&mut encoder, ours, (nth(200), METRIC), crate::fib::route::Target::Object(id), false);
    let body = messages(encoder.bytes()).next().expect("a message").body.to_vec();
    tables.routes.insert((nth(200), METRIC), (body, id));
}

fn paused(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(test);
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn small(&mut self, end: u64) -> u8 {
        u8::try_from(self.below(end)).expect("below 256")
    }

    fn fault(&mut self) -> Fault {
        let sent = [ENOBUFS, EINTR, ENOMEM];
        let read = [EAGAIN, ENOBUFS, EINTR];
        let errors = [ENOBUFS, EEXIST, ENETDOWN, ESRCH, EINTR, EBUSY];
        let mut of = |list: &[i32]| list[usize::from(self.small(list.len() as u64))];
        let (sent, read, refused) = (of(&sent), of(&read), of(&errors));
        match self.below(10) {
            0..4 => Fault::Nothing,
            4 => Fault::Unsent(sent),
            5 => Fault::Torn(usize::from(self.small(6)), read),
            6 | 7 => Fault::Refused(1 + usize::from(self.small(3)), refused),
            8 => Fault::Late,
            _ => Fault::Changed,
        }
    }
}

#[test]
fn whatever_the_kernel_does_to_requests_its_tables_end_up_right() {
    for seed in 0..40 {
        let mut draw = Draw(seed);
        paused(async move {
            let faults: Vec<_> = (0..draw.below(8)).map(|_| draw.fault()).collect();
            let mut bed = Bed::start(faults);
            for _ in 0..12 {
                let faults: Vec<_> = (0..draw.below(6)).map(|_| draw.fault()).collect();
                bed.fail(faults);
                match draw.below(4) {
                    0 => {
                        let links = draw.small(16);
                        (0..PREFIXES).for_each(|n| bed.want(n, links));
                    }
                    _ => (0..6).for_each(|_| bed.want(draw.small(PREFIXES.into()), draw.small(16))),
                }
                sleep(Duration::from_millis(draw.below(1500))).await;
            }
            bed.tables.lock().unwrap().faults.clear();
            bed.right_within(200, &format!("seed {seed}")).await;
        });
    }
}

#[test]
fn an_audit_that_fails_is_repeated_within_seconds() {
    for failure in [Fault::Unsent(ENOBUFS), Fault::Torn(0, ENOBUFS), Fault::Torn(1, EAGAIN), Fault::Late] {
        paused(async move {
            let mut bed = Bed::start([]);
            bed.right_within(2, "the start").await;
            // The first batch vanishes, and then the audits that would find out.
            bed.fail([Fault::Unsent(ENOBUFS), Fault::Nothing, failure, failure, failure]);
            (0..PREFIXES).for_each(|n| bed.want(n, 3));
            bed.right_within(15, &format!("{failure:?}")).await;
        });
    }
}

#[test]
fn what_the_kernel_may_accept_at_once_does_not_wait_for_what_it_never_accepts() {
    paused(async {
        let mut bed = Bed::start([]);
        bed.tables.lock().unwrap().never = Some(nth(0));
        bed.want(0, 1);
        // By now the refused route is retried once a minute, between two audits.
        sleep(Duration::from_secs(200)).await;
        bed.want(1, 1);
        sleep(Duration::from_millis(1)).await;
        bed.fail([Fault::Refused(1, ENOBUFS)]);
        bed.want(2, 1);
        bed.right_within(3, "a transient refusal").await;
    });
}

#[test]
fn a_start_amid_errors_removes_no_route_that_is_wanted() {
    use Fault::{Late, Nothing, Refused, Torn, Unsent};
    // The objects are read first, then the routes of either family.
    for faults in [
        vec![Unsent(ENOBUFS)],
        vec![Nothing, Unsent(ENOBUFS)],
        vec![Nothing, Torn(0, ENOBUFS)],
        vec![Nothing, Late],
        vec![Nothing, Nothing, Refused(1, ENOBUFS)],
        vec![Nothing, Torn(0, EAGAIN), Nothing, Late, Nothing, Torn(1, ENOBUFS)],
        // None of the attempts succeeds, and an audit adopts them.
        vec![Unsent(ENOBUFS); 18],
    ] {
        paused(async move {
            let what = format!("{faults:?}");
            let mut bed = Bed::start(faults);
            bed.want(200, 1);
            bed.right_within(30, &what).await;
            assert_eq!(bed.tables.lock().unwrap().removed, Vec::<Prefix>::new(), "{what}");
        });
    }
}

#[test]
fn a_start_amid_errors_keeps_routes_until_neighbors_advertise_them() {
    // One next hop, and a group.
    for links in [1, 3] {
        paused(async move {
            let mut bed = Bed::start_after(links, vec![Fault::Unsent(ENOBUFS); 18], Phase::Up);
            sleep(Duration::from_secs(200)).await;
            assert_eq!(bed.tables.lock().unwrap().removed, Vec::<Prefix>::new(), "{links}");
            bed.want(200, links);
            bed.right_within(200, &format!("links {links}")).await;
            assert_eq!(bed.tables.lock().unwrap().removed, Vec::<Prefix>::new(), "{links}");
        });
    }
}
