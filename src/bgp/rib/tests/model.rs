//! The rib against a naive model: whatever happens in whatever order, what the fib and the
//! neighbors end up with is what a recomputation from scratch yields.

use proptest::prelude::*;

use super::*;
use crate::bgp::policy::{Action, Match, Policy, PrefixRange, Set, Statement};

const PREFIXES: u32 = 6;

/// Who they are: AS number, made by peering, reflector client, transit; ADD-PATH send, ADD-PATH
/// receive.
const NEIGHBORS: [(Asn, bool, bool, bool, [bool; 2]); 13] = [
    (65001, false, false, false, [false, false]),
    (65002, false, false, true, [false, false]),
    (65000, false, false, false, [false, false]),
    (65000, false, true, false, [false, false]),
    (65000, true, false, false, [false, false]),
    (65001, false, false, true, [false, false]),
    (65003, false, false, true, [false, false]),
    (65000, false, false, false, [true, true]),
    (65000, false, true, false, [true, false]),
    (65004, false, false, true, [true, true]),
    (65002, false, false, true, [false, true]),
    (65005, false, false, true, [false, false]),
    (65000, false, true, false, [true, false]),
];

/// `max-prefixes-out` of neighbor `n`.
fn limit(n: usize) -> Option<u32> {
    match n {
        11 => Some(2),
        12 => Some(4),
        _ => None,
    }
}

/// A path's neighbor and its identifier there: 0 without ADD-PATH.
type From = (usize, u32);

#[derive(Clone, Debug)]
enum Step {
    Announce { n: usize, prefix: u32, id: u32, kind: u8 },
    Withdraw { n: usize, prefix: u32, id: u32 },
    Up(usize),
    Down(usize),
    Refresh(usize),
    Toggle(usize),
    Own(u8),
    Reach(bool),
    Settle,
    Pull(usize),
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..NEIGHBORS.len();
    prop_oneof![
        8 => (n.clone(), 0..PREFIXES, 0..3u32, 0..7u8)
            .prop_map(|(n, prefix, id, kind)| Step::Announce { n, prefix, id: path_id_of(n, id), kind }),
        4 => (n.clone(), 0..PREFIXES, 0..3u32)
            .prop_map(|(n, prefix, id)| Step::Withdraw { n, prefix, id: path_id_of(n, id) }),
        4 => n.clone().prop_map(Step::Up),
        1 => n.clone().prop_map(Step::Down),
        1 => n.clone().prop_map(Step::Refresh),
        1 => n.clone().prop_map(Step::Toggle),
        1 => (0..4u8).prop_map(Step::Own),
        1 => any::<bool>().prop_map(Step::Reach),
        4 => Just(Step::Settle),
        4 => n.prop_map(Step::Pull),
        2 => Just(Step::Trim),
    ]
}

/// The identifier that the neighbor uses.
fn path_id_of(n: usize, id: u32) -> u32 {
    if NEIGHBORS[n].4[1] { id } else { 0 }
}

/// What each neighbor advertised last: all that the result may depend on.
#[derive(Default)]
struct Model {
    up: [bool; NEIGHBORS.len()],
    toggled: [bool; NEIGHBORS.len()],
    paths: BTreeMap<(usize, u32, u32), Attrs>,
    own: Vec<u32>,
    /// Whether 10.0.1.0/24 is connected.
    far: bool,
}

/// Neighbor `n` of the model is number `n + 1`.
fn id(n: usize) -> u32 {
    n as u32 + 1
}

fn settings(n: usize, toggled: bool) -> Arc<PeerConfig> {
    let (_, made, client, transit, _) = NEIGHBORS[n];
    let mut config = (*config(id(n))).clone();
    config.source = if made { PeerSource::Mesh } else { PeerSource::Configured };
    config.route_reflector_client = client;
    config.transit = transit;
    config.max_prefixes_out = limit(n);
    if toggled {
        let prefixes = vec![PrefixRange::exact(prefix(0))];
        let only = Match { prefixes: prefixes.into(), ..Match::default() };
        let reject =
            Statement { matches: only.clone(), action: Some(Action::Reject), ..Statement::default() };
        let set = Set { local_pref: Some(300), ..Set::default() };
        let prefer = Statement { matches: only, set, action: None };
        config.export = vec![Arc::new(Policy::new("reject", vec![reject]))];
        config.import = vec![Arc::new(Policy::new("prefer", vec![prefer]))];
    }
    Arc::new(config)
}

fn made_path(n: usize, kind: u8) -> Attrs {
    let remote_as = NEIGHBORS[n].0;
    let mut path = path(id(n), remote_as);
    match kind {
        0 => {}
        1 => path.as_path = path.as_path.prepended(remote_as_or(remote_as, 7), 1),
        2 => path.med = Some(10),
        3 if remote_as == 65000 => path.local_pref = Some(200),
        3 => path.origin = Origin::Incomplete,
        4 => path.next_hop = "10.0.1.9".parse::<std::net::IpAddr>().unwrap().into(),
        // The next hop is a neighbor itself.
        5 => path.next_hop = std::net::IpAddr::from(address(id(2))).into(),
        _ => path.communities = [0xffff_ff01].into(),
    }
    path
}

fn remote_as_or(remote_as: Asn, other: Asn) -> Asn {
    if remote_as == 65000 { other } else { remote_as }
}

impl Model {
    fn effective(&self, (n, path_id): From, prefix: u32) -> Option<Attrs> {
        let mut path = self.paths.get(&(n, prefix, path_id))?.clone();
        if self.toggled[n] && prefix == 0 {
            path.local_pref = Some(300);
        }
        let far = path.next_hop.addr.to_string().starts_with("10.0.1.");
        (!far || self.far).then_some(path)
    }

    /// All that may be used.
    fn usable(&self, prefix: u32) -> Vec<(From, Attrs)> {
        let all = (0..NEIGHBORS.len()).flat_map(|n| (0..3).map(move |path_id| (n, path_id)));
        all.filter_map(|from| Some((from, self.effective(from, prefix)?))).collect()
    }

    /// The best path and all that forward, by the rules of RFC 4271 §9.1.2.2.
    fn best(&self, prefix: u32) -> Option<(From, Vec<From>)> {
        let mut left = self.usable(prefix);
        let keep = |left: &mut Vec<(From, Attrs)>, key: &dyn Fn(From, &Attrs) -> u32| {
            let least = left.iter().map(|(n, a)| key(*n, a)).min().unwrap_or(0);
            left.retain(|(n, a)| key(*n, a) == least);
        };
        keep(&mut left, &|_, a| 1000 - a.local_pref.unwrap_or(100));
        keep(&mut left, &|_, a| a.as_path.asns().count() as u32);
        keep(&mut left, &|_, a| a.origin as u32);
        let all = left.clone();
        left.retain(|(_, a)| {
            let same = all.iter().filter(|(_, b)| b.as_path.first() == a.as_path.first());
            same.map(|(_, b)| b.med.unwrap_or(0)).min() == Some(a.med.unwrap_or(0))
        });
        keep(&mut left, &|(n, _), _| u32::from(NEIGHBORS[n].0 == 65000));
        let forwarding = left.iter().map(|(from, _)| *from).collect();
        Some((left.first()?.0, forwarding))
    }

    fn fib(&self) -> BTreeMap<Prefix, Vec<String>> {
        let mut fib = BTreeMap::new();
        for p in (0..PREFIXES).filter(|p| !self.own.contains(p)) {
            if let Some((_, all)) = self.best(p) {
                let hops = all.iter().filter_map(|n| Some(self.effective(*n, p)?.next_hop.addr));
                let hops: std::collections::BTreeSet<_> = hops.collect();
                fib.insert(prefix(p), hops.iter().map(ToString::to_string).collect());
            }
        }
        fib
    }

    /// What neighbor `n` is to hold: prefix, from whom (`None`: from the node itself), AS path,
    /// LOCAL_PREF, MED and next hop.
    fn sent(&self, n: usize) -> BTreeMap<(Prefix, Option<From>), String> {
        let (remote_as, _, _, _, [add_path, _]) = NEIGHBORS[n];
        let mut sent = BTreeMap::new();
        for p in (0..PREFIXES).filter(|p| !self.toggled[n] || *p != 0) {
            let own = self.own.contains(&p);
            if own {
                let (path, pref) = if remote_as == 65000 { ("", Some(100)) } else { ("65000", None) };
                sent.insert((prefix(p), None), described(path, pref, None, "10.0.0.1".into()));
            }
            let paths = match self.best(p) {
                _ if add_path => self.usable(p),
                Some((from, _)) if !own => {
                    self.effective(from, p).map(|path| (from, path)).into_iter().collect()
                }
                _ => vec![],
            };
            for (from, path) in paths {
                if let Some(text) = self.passed_on(n, from, &path) {
                    sent.insert((prefix(p), Some(from)), text);
                }
            }
        }
        sent
    }

    /// What is advertised to neighbor `n` of a path, if anything.
    fn passed_on(&self, n: usize, (from, _): From, path: &Attrs) -> Option<String> {
        let (remote_as, made, client, transit, _) = NEIGHBORS[n];
        let internal = remote_as == 65000;
        let (_, _, from_client, _, _) = NEIGHBORS[from];
        let no_export = !path.communities.is_empty();
        let from_internal = NEIGHBORS[from].0 == 65000;
        let allowed = match (from_internal, internal) {
            (true, true) => from_client || client,
            (false, true) => !made || transit,
            (_, false) => transit && !no_export,
        };
        let leads_back = internal && path.next_hop.addr == std::net::IpAddr::from(address(id(n)));
        if from == n || !allowed || leads_back {
            return None;
        }
        Some(if internal {
            let pref = Some(path.local_pref.unwrap_or(100));
            described(&path.as_path.to_string(), pref, path.med, path.next_hop.addr.to_string())
        } else {
            described(&path.as_path.prepended(65000, 1).to_string(), None, None, "10.0.0.1".into())
        })
    }
}

fn described(path: &str, local_pref: Option<u32>, med: Option<u32>, next_hop: String) -> String {
    format!("[{path}] local_pref {local_pref:?} med {med:?} via {next_hop}")
}

fn play(steps: &[Step]) -> (Bench, Model) {
    let (mut bench, mut model) = (Bench::new(), Model::default());
    for n in 0..NEIGHBORS.len() {
        bench.configure(id(n), settings(n, false));
    }
    for step in steps {
        match *step {
            Step::Announce { n, prefix: p, id: path_id, kind } if model.up[n] => {
                bench.announce_path(id(n), path_id, &made_path(n, kind), &[prefix(p)]);
                model.paths.insert((n, p, path_id), made_path(n, kind));
            }
            Step::Withdraw { n, prefix: p, id: path_id } if model.up[n] => {
                bench.withdraw_path(id(n), path_id, &[prefix(p)]);
                model.paths.remove(&(n, p, path_id));
            }
            Step::Up(n) if !model.up[n] => {
                let [send, receive] = NEIGHBORS[n].4;
                let (add_path_send, add_path_receive) =
                    (PerFamily::new(send, false), PerFamily::new(receive, false));
                let session = negotiated(id(n), NEIGHBORS[n].0);
                bench.up(id(n), Negotiated { add_path_send, add_path_receive, ..session });
                model.up[n] = true;
            }
            Step::Down(n) if model.up[n] => {
                bench.down(id(n), DownCause::Closed);
                model.up[n] = false;
                model.paths.retain(|(from, ..), _| *from != n);
            }
            Step::Refresh(n) => {
                let family = Family::Ipv4Unicast;
                bench.rib.handle(bench.now, Input::Refresh { peer: PeerId(id(n)), family, subtype: 0 });
            }
            Step::Toggle(n) => {
                model.toggled[n] = !model.toggled[n];
                bench.configure(id(n), settings(n, model.toggled[n]));
            }
            Step::Own(bits) => {
                model.own = (0..2).filter(|b| bits & (1 << b) != 0).collect();
                bench.originate(&model.own.iter().map(|p| prefix(*p)).collect::<Vec<_>>());
            }
            Step::Reach(far) => {
                model.far = far;
                let connected = |s: &str| (s.parse().unwrap(), Reach::Connected { ifindex: 2 });
                let mut entries = vec![connected("10.0.0.0/24")];
                entries.extend(far.then(|| connected("10.0.1.0/24")));
                bench.rib.handle(bench.now, Input::Reachable(Arc::new(Reachable::new(entries))));
            }
            Step::Settle => bench.decide(),
            Step::Pull(n) => {
                bench.pull(id(n));
            }
            Step::Trim => bench.rib.trim(),
            _ => {}
        }
    }
    bench.run();
    (bench, model)
}

/// The number under which neighbor `n` holds a path: one for each origin, however it was
/// advertised.
fn number(bench: &Bench, n: usize, from: Option<From>) -> Option<u32> {
    if !NEIGHBORS[n].4[0] {
        return Some(0);
    }
    let origin = from.map_or((OWN, 0), |(n, path_id)| (id(n) as PeerNo, path_id));
    bench.rib.path_ids[Family::Ipv4Unicast].find(origin)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rib_ends_where_the_naive_model_does(steps in prop::collection::vec(step(), 1..160)) {
        let (mut bench, model) = play(&steps);
        let fib: BTreeMap<_, _> = bench.fib.keys().map(|p| (*p, bench.hops(*p))).collect();
        prop_assert_eq!(fib, model.fib());
        for n in (0..NEIGHBORS.len()).filter(|n| model.up[*n]) {
            // What a limit keeps back may have no number.
            let key = |k: usize, p, from| (p, number(&bench, n, from).unwrap_or(u32::MAX - k as u32));
            let all = model.sent(n).into_iter().enumerate();
            let expected: BTreeMap<_, _> = all.map(|(k, ((p, from), text))| (key(k, p, from), text)).collect();
            let sent: BTreeMap<_, _> = bench.paths[&id(n)]
                .iter()
                .map(|(p, a)| {
                    let text = described(&a.as_path.to_string(), a.local_pref, a.med, a.next_hop.addr.to_string());
                    (*p, text)
                })
                .collect();
            let counted = bench.rib.counts().neighbors[&address(id(n)).to_string()].clone();
            let most = limit(n).map_or(usize::MAX, |max| max as usize);
            if expected.len() <= most {
                prop_assert_eq!(&sent, &expected, "neighbor {}", n);
            } else {
                let wrong: Vec<_> = sent.iter().filter(|(path, text)| expected.get(path) != Some(text)).collect();
                prop_assert_eq!((sent.len(), wrong), (most, vec![]), "neighbor {} of {:?}", n, expected);
            }
            // Own prefixes are the last that a limit withholds.
            let own = model.own.iter().filter(|p| !model.toggled[n] || **p != 0).take(most);
            for own in own.map(|p| (prefix(*p), number(&bench, n, None).unwrap_or(u32::MAX))) {
                prop_assert!(sent.contains_key(&own), "neighbor {}: {} is withheld", n, own.0);
            }
            prop_assert_eq!(counted.withheld[&Family::Ipv4Unicast] > 0, expected.len() > most);
            prop_assert_eq!(counted.advertised[&Family::Ipv4Unicast], sent.len() as u64);
            let shown = RouteFilter { advertised: Some(address(id(n)).to_string()), ..RouteFilter::default() };
            prop_assert_eq!(bench.rib.routes(bench.now, &shown).len(), sent.len());
            let received = model.paths.keys().filter(|(from, ..)| *from == n).count() as u64;
            prop_assert_eq!(counted.received[&Family::Ipv4Unicast], received);
        }

        // Nothing is left behind when everybody is gone.
        for n in 0..NEIGHBORS.len() {
            bench.rib.handle(bench.now, Input::Gone { peer: PeerId(id(n)) });
        }
        bench.sent.clear();
        bench.originate(&[]);
        bench.run();
        prop_assert!(bench.fib.is_empty());
        prop_assert_eq!(bench.rib.attrs.len(), 0);
        prop_assert_eq!(bench.rib.hops.iter().count(), 0);
        prop_assert!(bench.rib.path_ids.iter().all(|ids| ids.len() == 0));
        prop_assert!(bench.rib.tables.iter().all(|t| t.numbers().is_empty()));
    }
}
