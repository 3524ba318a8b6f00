//! Sessions with FRR.

use routelet::{
    bgp::{
        io::Act,
        peer::{AddPaths, DownCause, Hops, PeerConfig, RemoteAs, Secret},
    },
    net::Family,
};

use crate::{
    common::{
        daemons::Frr,
        net::{Net, Ns},
    },
    speaker::{OURS, THEIRS, neighbor, with_speaker},
};

fn link(net: &mut Net) -> (Ns, Ns) {
    let (ours, theirs) = (net.ns("ours"), net.ns("frr"));
    net.link((&ours, "eth0"), (&theirs, "eth0"));
    for (ns, n) in [(&ours, 1), (&theirs, 2)] {
        ns.ip(&format!("addr add 10.1.0.{n}/24 dev eth0"));
        ns.ip(&format!("addr add 2001:db8:1::{n}/64 dev eth0 nodad"));
    }
    (ours, theirs)
}

fn config(us: u32, them: u32, more: &str) -> String {
    format!(
        "router bgp {them}\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         neighbor 10.1.0.1 remote-as {us}\n neighbor 10.1.0.1 timers 3 9\n neighbor 10.1.0.1 timers connect 2\n \
         bgp graceful-restart\n{more}\
         address-family ipv4 unicast\n  network 10.200.0.0/16\n  network 10.201.0.0/24\n  \
         neighbor 10.1.0.1 soft-reconfiguration inbound\n exit-address-family\n \
         address-family ipv6 unicast\n  network 2001:db8:200::/48\n  neighbor 10.1.0.1 activate\n exit-address-family\n"
    )
}

#[test]
fn routes_go_both_ways_and_the_session_follows_orders() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net);
    let frr = Frr::start(&net, &theirs, &config(OURS, THEIRS, ""));
    let both =
        PeerConfig { add_paths: AddPaths { send: true, receive: true }, ..neighbor("10.1.0.2", "10.1.0.1") };
    with_speaker(&ours, both, async |mut us| {
        let negotiated = us.up().await;
        assert_eq!((negotiated.remote_as, negotiated.hold_time), (THEIRS, 9));
        assert_eq!(negotiated.families, Family::ALL);
        assert!(negotiated.four_octet_as && negotiated.kept_over_restart && !negotiated.extended_next_hop);
        us.announce("10.1.0.1", &["10.244.1.0/24"]);
        us.announce("2001:db8:1::1", &["2001:db8:244::/64"]);
        us.table(&["10.200.0.0/16", "10.201.0.0/24", "2001:db8:200::/48"]).await;
        us.wait_for("frr has our routes", 5.0, || {
            frr.vtysh("show bgp ipv4 unicast").contains("10.244.1.0/24")
                && frr.vtysh("show bgp ipv6 unicast").contains("2001:db8:244::/64")
        })
        .await;
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        assert!(us.down.is_none(), "{:#?}", us.view().await);

        frr.vtysh("clear bgp ipv4 unicast 10.1.0.1 soft in");
        us.act("10.1.0.2", Act::Refresh).await;
        us.act("10.1.0.2", Act::Disable { message: Some("window 7".into()) }).await;
        // (This FRR decodes a Hard Reset, but shows no text inside it.)
        us.wait_for("frr names our shutdown", 5.0, || {
            frr.vtysh("show bgp neighbors 10.1.0.1").contains("Administrative Shutdown/Hard Reset")
        })
        .await;
        us.act("10.1.0.2", Act::Enable).await;
        us.up().await;
        us.down = None;
        frr.configure(&["router bgp 65002", "neighbor 10.1.0.1 shutdown message gone fishing"]);
        us.until("frr's shutdown", 10, |s| s.down.is_some()).await;
        assert!(matches!(us.down, Some(DownCause::Received { .. })), "{:?}", us.down);
        let error = us.view().await.last_error.unwrap_or_default();
        assert!(error.contains("gone fishing"), "{error}");
        us.leave().await;
    });
}

#[test]
fn passwords_hold_in_both_directions() {
    for passive in [false, true] {
        let mut net = Net::new();
        let (ours, theirs) = link(&mut net);
        let more = " neighbor 10.1.0.1 password sesame\n";
        let more = if passive { more.into() } else { format!("{more} neighbor 10.1.0.1 passive\n") };
        let _frr = Frr::start(&net, &theirs, &config(OURS, THEIRS, &more));
        let password = Some(Secret("sesame".into()));
        let config = PeerConfig { password, passive, ..neighbor("10.1.0.2", "10.1.0.1") };
        with_speaker(&ours, config, async |mut us| {
            us.up().await;
            us.leave().await;
        });
    }
}

#[test]
fn ttl_security_is_met_and_asked_for() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net);
    let _frr = Frr::start(&net, &theirs, &config(OURS, THEIRS, " neighbor 10.1.0.1 ttl-security hops 1\n"));
    let config = PeerConfig { hops: Hops::Security(1), ..neighbor("10.1.0.2", "10.1.0.1") };
    with_speaker(&ours, config, async |mut us| {
        us.up().await;
        us.leave().await;
    });
}

#[test]
fn an_ibgp_session_comes_up() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net);
    let _frr = Frr::start(&net, &theirs, &config(OURS, OURS, ""));
    let config = PeerConfig { remote_as: RemoteAs::Internal, ..neighbor("10.1.0.2", "10.1.0.1") };
    with_speaker(&ours, config, async |mut us| {
        assert!(us.up().await.is_ibgp());
        us.leave().await;
    });
}

#[test]
fn a_cut_link_is_noticed_within_the_hold_time_and_heals() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net);
    let _frr = Frr::start(&net, &theirs, &config(OURS, THEIRS, ""));
    let ns = ours.clone();
    with_speaker(&ours, neighbor("10.1.0.2", "10.1.0.1"), async |mut us| {
        us.up().await;
        ns.ip("link set eth0 down");
        us.until("the hold timer", 12, |s| s.down.is_some()).await;
        assert!(matches!(us.down, Some(DownCause::HoldTimer | DownCause::Closed)), "{:?}", us.down);
        ns.ip("link set eth0 up");
        us.up().await;
        us.leave().await;
    });
}
