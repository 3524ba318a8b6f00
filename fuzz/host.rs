//! What comes from the host and the cluster rather than from a neighbor: netlink messages of the kernel,
//! CNI files of other programs, our own files of a former run, objects of the API server, requests to
//! the control socket and to the HTTP listener, and router advertisements of whoever is on a link.

use std::{
    collections::BTreeSet,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use routelet::{
    cni::{
        conflist::{self, Conflist},
        former::FormerCidrs,
        leases,
    },
    config::{self, Config, ParseContext},
    control::{
        Request, Response,
        io::http::{self, Reply},
    },
    fib::{
        self,
        foreign::{Arrival, Foreign},
        route::SeenRoute,
        wire,
    },
    k8s::{
        cluster::{Cluster, Scope},
        node::{ApiNode, NodeView, Nodes},
        services::{
            ApiService, ApiSlice, Change, Rules, ServiceCache, ServiceSelection, Services, eligibility,
        },
    },
    net::Prefix,
    netlink::decode::{attributes, messages},
    nft,
    unnumbered::{
        Input, Interface, Link,
        packet::{self, Packet},
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// Kinds of rtnetlink messages: RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNEXTHOP, RTM_DELNEXTHOP.
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const NEW_NEXTHOP: u16 = 104;
const DEL_NEXTHOP: u16 = 105;

/// Datagrams of netlink: read to the end, and the model of other programs' routes takes whatever they
/// describe.
pub(crate) fn netlink(data: &[u8]) {
    let mut foreign = Foreign::default();
    for message in messages(data) {
        let _ = (message.outcome(), message.end_of_dump(), message.is_interrupted());
        let _ = (nft::wire::body(&message).len(), attributes(message.body).count());
        match message.kind {
            NEW_ROUTE => {
                if let Some(route) = wire::route(message.body) {
                    foreign.add(route, arrival(message.flags));
                }
            }
            DEL_ROUTE => {
                if let Some(route) = wire::route(message.body) {
                    foreign.remove(&route);
                }
            }
            NEW_NEXTHOP => {
                if let Some(object) = wire::object(message.body) {
                    foreign.set_object(object);
                }
            }
            DEL_NEXTHOP => {
                if let Some(object) = wire::object(message.body) {
                    foreign.remove_object(object.id);
                }
            }
            _ => {}
        }
    }
    let _: Vec<_> = foreign.list();
}

fn arrival(flags: u16) -> Arrival {
    match flags & 3 {
        0 => Arrival::Dumped,
        1 => Arrival::Appended,
        2 => Arrival::Prepended,
        _ => Arrival::Replaced,
    }
}

/// A file in the folder of CNI configurations, a lease of `host-local`, the reply of a plugin to
/// `VERSION`. What is merged is JSON, is ours, and merging again changes nothing.
pub(crate) fn conflist(data: &[u8]) {
    let pod_cidrs: [Prefix; 1] = ["10.244.1.0/24".parse().expect("a prefix")];
    let ours = Conflist::new(conflist::Spec {
        pod_cidrs: &pod_cidrs,
        bridge: "routelet0",
        mtu: Some(1500),
        chained: vec![conflist::plugin("portmap")],
    });
    if let Some(merged) = conflist::merge(&ours.bytes, Some(data)) {
        assert!(conflist::is_of_our_network(&merged));
        assert_eq!(conflist::merge(&ours.bytes, Some(&merged)), None);
    }
    let _ = (conflist::describe(Some(data)), conflist::written_for(data), conflist::chained_by_others(data));
    let _ = conflist::in_front(data, "10-routelet.conflist", &ours.bytes);
    if let Ok(versions) = conflist::read_versions(data) {
        assert!(!versions.is_empty() && versions.len() <= 64);
    }
    if let Some(lease) = leases::read("10.244.1.7", data) {
        let _ = leases::full(pod_cidrs[0], &[lease], 1, "/var/lib/cni/networks/routelet");
    }
}

/// Files of the state folder that a crash, a full disk or another program left: whatever can be read is
/// used as at a start, and survives being written again.
pub(crate) fn state(data: &[u8]) {
    if let Some(nodes) = read_again::<Nodes>(data) {
        let mut cluster = Cluster::new("n1".into(), nodes);
        cluster.begin_list(Scope::All);
        cluster.end_list(epoch());
        let _ = cluster.next_expiry();
    }
    if let Some(mut kept) = read_again::<FormerCidrs>(data) {
        kept.remove_unused(&BTreeSet::new());
        assert!(kept.is_empty());
    }
    if let Some(record) = read_again::<fib::sysctl::Record>(data) {
        let _ = (record.undo(), record.has_room());
    }
    if let Some(record) = read_again::<fib::former::Record>(data) {
        let unknown: Vec<SeenRoute> = Vec::new();
        assert!(record.former(None).iter().all(|place| !unknown.iter().any(|r| place.holds(r))));
    }
    read_again::<leases::Record>(data);
    if let Some(services) = read_again::<Services>(data) {
        judge(&services, &Nodes::default());
    }
}

fn read_again<T>(data: &[u8]) -> Option<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let value: T = serde_json::from_slice(data).ok()?;
    let text = serde_json::to_vec(&value).expect("our own types");
    assert_eq!(serde_json::from_slice::<T>(&text).expect("our own text"), value);
    Some(value)
}

/// An object of the API server; the first octet chooses its kind.
pub(crate) fn object(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    match kind % 5 {
        0 => node(text),
        1 => service(text),
        2 => slice(text),
        3 => neighbor(text),
        _ => policy(text),
    }
}

fn node(text: &[u8]) {
    let Ok(node) = serde_json::from_slice::<ApiNode>(text) else { return };
    let view = NodeView::from(&node);
    assert!(
        view.problems.len() <= 64 && view.problems.iter().all(|p| p.line().len() <= 2048),
        "{:?}",
        view.problems
    );
    let mut cluster = Cluster::new("n1".into(), Nodes::default());
    cluster.begin_list(Scope::All);
    cluster.apply(epoch(), &node, true);
    cluster.end_list(epoch());
    cluster.apply(epoch(), &node, false);
    cluster.delete(epoch(), &node);
    judge(&Services::default(), cluster.nodes());
}

fn service(text: &[u8]) {
    let Ok(service) = serde_json::from_slice::<ApiService>(text) else { return };
    let mut cache = cache();
    cache.service(Change::ListStarted);
    cache.service(Change::Listed(service));
    cache.service(Change::ListDone);
    cache.set_slices_forbidden();
    if let Some(services) = cache.services() {
        assert!(services.mistakes.iter().all(|m| m.text.len() <= 2048), "{:?}", services.mistakes);
        judge(&services, &Nodes::default());
    }
}

fn slice(text: &[u8]) {
    let Ok(slice) = serde_json::from_slice::<ApiSlice>(text) else { return };
    let mut cache = cache();
    cache.service(Change::ListStarted);
    cache.service(Change::ListDone);
    cache.slice(Change::ListStarted);
    cache.slice(Change::Listed(slice));
    cache.slice(Change::ListDone);
    let _ = cache.services();
}

fn cache() -> ServiceCache {
    let mut cache = ServiceCache::new("n1".into());
    let selection = ServiceSelection {
        kinds: routelet::net::ServiceAddresses::ALL.into_iter().collect(),
        ..ServiceSelection::default()
    };
    cache.select(selection);
    cache
}

fn judge(services: &Services, nodes: &Nodes) {
    let selection = ServiceSelection {
        kinds: routelet::net::ServiceAddresses::ALL.into_iter().collect(),
        ..ServiceSelection::default()
    };
    let rules =
        Rules { selection: &selection, ignore_exclude_label: false, withheld: None, refused: &|_, _| None };
    assert!(eligibility(services, nodes, rules).iter().all(|v| !v.reason.is_empty()));
}

fn neighbor(text: &[u8]) {
    let Ok(spec) = serde_json::from_slice(text) else { return };
    if let Err(error) = config::objects::neighbor(&spec, &config()) {
        let why = error.to_string();
        assert!(!why.is_empty() && why.len() <= 4096, "{why}");
    }
}

fn policy(text: &[u8]) {
    let Ok(spec) = serde_json::from_slice(text) else { return };
    if let Err(error) = config::objects::policy("p", &spec) {
        let why = error.to_string();
        assert!(!why.is_empty() && why.len() <= 4096, "{why}");
    }
}

fn config() -> Config {
    let read_password = |_: &std::path::Path| Err(config::PasswordFileError::InObject);
    let surroundings = ParseContext { kubernetes: true, read_password: &read_password };
    config::parse("", &surroundings).expect("an empty file is a configuration").0
}

/// A line on the control socket: a request, or one line that names the remedy.
pub(crate) fn control(data: &[u8]) {
    match Request::read(data) {
        Ok(query) => {
            let text = serde_json::to_string(&query).expect("our own type");
            assert_eq!(serde_json::from_str::<routelet::control::Query>(&text).expect("our own text"), query);
        }
        Err(Response::Refused(why)) => assert!(why.len() < 300 && !why.contains('\n'), "{why}"),
        Err(other) => panic!("{other:?}"),
    }
}

/// A connection to the HTTP listener: whatever comes, the reply is HTTP or nothing, and short.
pub(crate) fn request(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let reply = runtime.block_on(async {
        let (mut client, server) = duplex(1 << 17);
        let serve = http::serve_one(server, |page| async move {
            Reply::Text { ok: page != http::Page::Readyz, text: format!("{page:?}\n") }
        });
        let exchange = async {
            client.write_all(data.get(..1 << 16).unwrap_or(data)).await.ok();
            client.shutdown().await.ok();
            let mut reply = Vec::new();
            client.read_to_end(&mut reply).await.ok();
            reply
        };
        tokio::join!(serve, exchange).1
    });
    assert!(reply.is_empty() || reply.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&reply));
    assert!(reply.len() < 16 * 1024, "{} octets", reply.len());
}

/// Router advertisements and solicitations on a link, each after its hop limit, an octet that chooses
/// the source and the pause, and its length. What passes keeps RFC 4861 §6.1, and whatever is sent,
/// there are no more neighbors than permitted and few packets in return.
pub(crate) fn advertisement(mut data: &[u8]) {
    let interface = Interface {
        name: "eth0".into(),
        limit: 2,
        link_local: Some(link_local(1)),
        lacks_address: false,
        can_send: true,
        generation: 0,
    };
    let (own, mut now) = (BTreeSet::from([link_local(1)]), epoch());
    let mut link = Link::new(now, &interface, 1);
    while let Some(([hop_limit, choice, length], rest)) = data.split_first_chunk() {
        let (message, rest) = rest.split_at(rest.len().min((*length).into()));
        data = rest;
        now += Duration::from_secs(u64::from(choice >> 4) * 5);
        let from = match choice & 15 {
            0 => Ipv6Addr::UNSPECIFIED,
            15 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            n => link_local(n.into()),
        };
        match packet::decode(message, from, *hop_limit) {
            Ok(packet) => {
                assert_eq!((*hop_limit, message[1]), (255, 0));
                assert_eq!(packet == Packet::Advertisement, message[0] == 134);
                assert!(packet == Packet::Solicitation || from.is_unicast_link_local());
                assert!(message.len().is_multiple_of(8));
                link.handle(now, &own, Input::Packet { from, packet });
            }
            Err(_) => drop(link.ignored(now)),
        }
        let sent = std::iter::from_fn(|| link.poll(now)).take(10).count();
        assert!(sent <= 2, "{sent} packets at once");
        let found = link.on_link(now).neighbors;
        assert!(found.len() <= interface.limit && found.is_disjoint(&own), "{found:?}");
    }
}

fn link_local(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
}

#[expect(clippy::disallowed_methods, reason = "any moment will do")]
fn epoch() -> Instant {
    use std::sync::OnceLock;
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}
