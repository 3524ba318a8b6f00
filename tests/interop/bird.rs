//! Sessions with BIRD 2.

use routelet::{
    bgp::{
        io::Act,
        peer::{DownCause, Hops, PeerConfig, PeerKey, RemoteAs, Secret},
    },
    net::Family,
};

use crate::{
    common::{
        daemons::Bird,
        net::{Net, Ns},
    },
    speaker::{OURS, THEIRS, neighbor, with_speaker},
};

/// Two namespaces on one link: ours with .1 and ::1, theirs with .2 and ::2.
fn link(net: &mut Net) -> (Ns, Ns) {
    let (ours, theirs) = (net.ns("ours"), net.ns("bird"));
    net.link((&ours, "eth0"), (&theirs, "eth0"));
    for (ns, n) in [(&ours, 1), (&theirs, 2)] {
        ns.ip(&format!("addr add 10.1.0.{n}/24 dev eth0"));
        ns.ip(&format!("addr add 2001:db8:1::{n}/64 dev eth0 nodad"));
    }
    (ours, theirs)
}

fn config(us: u32, them: u32, more: &str) -> String {
    format!(
        "router id 10.0.0.2;\n\
         protocol device {{ scan time 1; }}\n\
         protocol static {{ ipv4; route 10.200.0.0/16 unreachable; route 10.201.0.0/24 unreachable; }}\n\
         protocol static {{ ipv6; route 2001:db8:200::/48 unreachable; }}\n\
         protocol bgp host {{\n\
           local 10.1.0.2 as {them}; neighbor 10.1.0.1 as {us}; connect retry time 2; connect delay time 1;\n\
           hold time 9; graceful restart on; {more}\n\
           ipv4 {{ import all; export all; next hop self; }};\n\
           ipv6 {{ import all; export all; next hop address 2001:db8:1::2; }};\n\
         }}\n"
    )
}

#[test]
fn routes_go_both_ways_and_the_session_follows_orders() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net);
    let bird = Bird::start(&net, &theirs, &config(OURS, THEIRS, ""));
    with_speaker(&ours, neighbor("10.1.0.2", "10.1.0.1"), async |mut us| {
        let negotiated = us.up().await;
        assert_eq!((negotiated.remote_as, negotiated.hold_time), (THEIRS, 9));
        assert_eq!(negotiated.families, Family::ALL);
        assert!(negotiated.four_octet_as && negotiated.enhanced_refresh && negotiated.kept_over_restart);
        us.announce("10.1.0.1", &["10.244.1.0/24"]);
        us.announce("2001:db8:1::1", &["2001:db8:244::/64"]);
        us.table(&["10.200.0.0/16", "10.201.0.0/24", "2001:db8:200::/48"]).await;
        let seen = || bird.birdc("show route protocol host all");
        us.wait_for("bird has our routes", 5.0, || {
            seen().contains("10.244.1.0/24") && seen().contains("2001:db8:244::/64")
        })
        .await;
        // Through several keepalives and more than one hold time.
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        assert!(us.down.is_none(), "{:#?}", us.view().await);

        bird.birdc("reload out host");
        us.act("10.1.0.2", Act::Refresh).await;
        us.wait_for("bird shows the session", 5.0, || {
            bird.birdc("show protocols all host").contains("Established")
        })
        .await;
        us.act("10.1.0.2", Act::Disable { message: Some("window 7".into()) }).await;
        us.wait_for("bird has read our text", 5.0, || {
            bird.birdc("show protocols all host").contains("hutdown")
        })
        .await;
        us.act("10.1.0.2", Act::Enable).await;
        us.up().await;
        us.down = None;
        bird.birdc("disable host");
        us.until("bird's shutdown", 10, |s| s.down.is_some()).await;
        assert!(matches!(us.down, Some(DownCause::Received { .. })), "{:?}", us.down);
        us.leave().await;
    });
}

#[test]
fn passwords_hold_in_both_directions() {
    for passive in [false, true] {
        let mut net = Net::new();
        let (ours, theirs) = link(&mut net);
        let more = if passive { "password \"sesame\";" } else { "password \"sesame\"; passive on;" };
        let _bird = Bird::start(&net, &theirs, &config(OURS, THEIRS, more));
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
    let _bird = Bird::start(&net, &theirs, &config(OURS, THEIRS, "ttl security on;"));
    let config = PeerConfig { hops: Hops::Security(1), ..neighbor("10.1.0.2", "10.1.0.1") };
    with_speaker(&ours, config, async |mut us| {
        us.up().await;
        us.leave().await;
    });
}

#[test]
fn a_wrong_as_is_named_at_both_ends() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net);
    let bird = Bird::start(&net, &theirs, &config(OURS, THEIRS, ""));
    let config = PeerConfig { remote_as: RemoteAs::Number(65099), ..neighbor("10.1.0.2", "10.1.0.1") };
    with_speaker(&ours, config, async |mut us| {
        us.wait_for("bird was told", 15.0, || bird.birdc("show protocols all host").contains("Bad peer AS"))
            .await;
        let error = us.view().await.last_error.unwrap_or_default();
        assert!(error.contains("AS 65002") && error.contains("AS 65099"), "{error}");
        us.leave().await;
    });
}

#[test]
fn sessions_run_over_ipv6_and_over_link_local_addresses() {
    let mut net = Net::new();
    let (ours, theirs) = link(&mut net);
    for (ns, n) in [(&ours, 1), (&theirs, 2)] {
        ns.ip(&format!("addr add fe80::{n}/64 dev eth0 nodad"));
    }
    let global = neighbor("2001:db8:1::2", "2001:db8:1::1");
    let linked = PeerConfig {
        key: PeerKey::LinkLocal("fe80::2".parse().unwrap(), "eth0".into()),
        ..neighbor("2001:db8:1::2", "fe80::1")
    };
    for (peer, addresses) in [
        (global, "local 2001:db8:1::2 as 65002; neighbor 2001:db8:1::1 as 65001;"),
        (linked, "local fe80::2 as 65002; neighbor fe80::1%eth0 as 65001;"),
    ] {
        let text = config(OURS, THEIRS, "")
            .replace("local 10.1.0.2 as 65002; neighbor 10.1.0.1 as 65001;", addresses);
        // IPv4 needs a next hop of its own there.
        let text = text.replace("export all; next hop self;", "export none;");
        let bird = Bird::start(&net, &theirs, &text);
        with_speaker(&ours, peer, async |mut us| {
            us.up().await;
            us.table(&["2001:db8:200::/48"]).await;
            us.leave().await;
        });
        drop(bird);
    }
}
