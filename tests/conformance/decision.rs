//! RFC 4271 §9.1: which path wins, as `show routes` gives the reason; and ECMP.

use crate::{
    bed::{Bed, EXTERNAL, HOST_AS, Peer, Report, at, holds, passive, same},
    common::wait_for,
    words::{attr, local_pref, med, next_hop, origin, path},
};

/// One side of a contest: from whom, and attributes instead of the usual ones.
type Side = (usize, Vec<Vec<u8>>);

#[test]
fn the_ladder() {
    let mut config = passive(1, 2, "remote-as = 65001") + &passive(2, 2, "remote-as = \"external\"");
    config += &passive(3, 3, "remote-as = 65000");
    let bed = Bed::start("max-paths = 1", &config);
    let mut peers = [
        bed.peer(at(1, 1), EXTERNAL),
        bed.peer(at(1, 2), EXTERNAL),
        bed.peer(at(2, 1), 65002),
        bed.peer(at(3, 1), HOST_AS),
        bed.peer(at(3, 2), HOST_AS),
    ];
    const A: usize = 0;
    const A2: usize = 1;
    const B: usize = 2;
    const I: usize = 3;
    const I2: usize = 4;
    let p = |numbers: &[u32]| path(numbers);
    let cluster = |n: u8| attr(0x80, 10, &vec![9; usize::from(n) * 4]);
    let originator = |n: u8| attr(0x80, 9, &[n, n, n, n]);
    #[rustfmt::skip]
    let cases: Vec<(&str, Side, Side, &str)> = vec![
        ("4271 §9.1.1 LOCAL_PREF before the path", (I, vec![local_pref(200), p(&[7, 8, 9])]), (I2, vec![local_pref(100), p(&[7])]), "LOCAL_PREF"),
        ("4271 §9.1.1 100 without LOCAL_PREF",     (I, vec![local_pref(101), p(&[7, 8])]), (A, vec![]), "LOCAL_PREF"),
        ("4271 §9.1.2.2 a shorter path",           (A, vec![p(&[65001, 7]), origin(2)]), (B, vec![p(&[65002, 7, 8]), origin(0)]), "AS path"),
        ("4271 §9.1.2.2 b lower origin",           (A, vec![origin(0), med(50)]), (A2, vec![origin(1), med(1)]), "origin"),
        ("4271 §9.1.2.2 b EGP before INCOMPLETE",  (A, vec![origin(1)]), (B, vec![origin(2)]), "origin"),
        ("4271 §9.1.2.2 c MED of the same AS",     (A2, vec![med(1)]), (A, vec![med(2)]), "MED"),
        ("4271 §9.1.2.2 c no MED is 0",            (A2, vec![attr(0xc0, 4, &[])]), (A, vec![med(2)]), "MED"),
        ("4271 §9.1.2.2 c MED of other ASes does not count", (A, vec![med(100)]), (B, vec![med(1)]), "router id"),
        ("4271 §9.1.2.2 c MED of the same AS in iBGP", (I2, vec![p(&[7, 8]), med(1)]), (I, vec![p(&[7, 9]), med(2)]), "MED"),
        ("4271 §9.1.2.2 d eBGP before iBGP",       (B, vec![]), (I, vec![p(&[7])]), "eBGP"),
        ("4271 §9.1.2.2 f lower identifier",       (A, vec![]), (A2, vec![]), "router id"),
        ("4456 §9 ORIGINATOR_ID counts as identifier", (I2, vec![originator(1)]), (I, vec![originator(2)]), "router id"),
        ("4456 §9 shorter CLUSTER_LIST",           (I2, vec![originator(1), cluster(1)]), (I, vec![originator(1), cluster(2)]), "cluster list"),
        ("4271 §9.1.2.2 g lower address",          (I, vec![originator(1), cluster(1)]), (I2, vec![originator(1), cluster(1)]), "address"),
    ];
    let mut report = Report::default();
    for (n, (name, winner, loser, rule)) in (1..).zip(&cases) {
        for (order, [first, second]) in [[winner, loser], [loser, winner]].into_iter().enumerate() {
            report.case(&format!("{name}, order {order}"), || {
                let prefix = format!("20.{n}.{order}.0/24");
                for (who, more) in [first, second] {
                    let peer = &mut peers[*who];
                    let attributes = changed(peer, more);
                    peer.announce_with(&attributes, &[&prefix]);
                    bed.settled(peer);
                }
                let paths = bed.paths(&prefix);
                same(paths.len(), 2)?;
                let best = peers[winner.0].addr.to_string();
                same(paths[0]["neighbor"].as_str(), Some(&*best))?;
                same((paths[0]["best"].as_bool(), paths[1]["best"].as_bool()), (Some(true), Some(false)))?;
                let reason = paths[0]["reason"].as_str().unwrap_or_default();
                holds(reason.contains(rule), &format!("{reason:?}, not {rule:?}"))
            });
        }
    }
    report.finish();
}

fn changed(peer: &Peer, more: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all = peer.good(0);
    for attribute in more {
        // The mark of no MED at all.
        if attribute[..3] == [0xc0, 4, 0] {
            all.retain(|a| a[1] != 4);
            continue;
        }
        match all.iter_mut().find(|a| a[1] == attribute[1]) {
            Some(it) => it.clone_from(attribute),
            None => all.push(attribute.clone()),
        }
    }
    all
}

#[test]
fn equal_paths_forward_together() {
    let config = passive(1, 3, "remote-as = 65001") + &passive(2, 1, "remote-as = \"external\"");
    let bed = Bed::start("", &config);
    let mut report = Report::default();
    let mut peers = [bed.peer(at(1, 1), EXTERNAL), bed.peer(at(1, 2), EXTERNAL), bed.peer(at(2, 1), 65002)];
    let hops = |prefix: &str| {
        let text = bed.host.ip(&format!("route show {prefix} proto 179"));
        let id = text.split_whitespace().skip_while(|w| *w != "nhid").nth(1).map(str::to_owned);
        // It may be replaced between the two questions.
        let ask = |id: String| bed.host.command("ip").args(["nexthop", "get", "id", &id]).output();
        let told =
            id.and_then(|id| ask(id).ok()).map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        let group = told.unwrap_or_default();
        let members = group.split_whitespace().skip_while(|w| *w != "group").nth(1).unwrap_or_default();
        members.split('/').filter(|m| !m.is_empty()).count().max(text.matches("via").count().min(1))
    };
    report.case("ECMP over three neighbors, two ASes", || {
        for peer in &mut peers {
            peer.announce(0, &["20.1.0.0/24"]);
        }
        wait_for("three next hops", 3.0, || (hops("20.1.0.0/24") == 3).then_some(()));
        let paths = bed.paths("20.1.0.0/24");
        same(paths.iter().filter(|p| p["multipath"] == true).count(), 3)?;
        same(paths.iter().filter(|p| p["best"] == true).count(), 1)
    });
    report.case("ECMP: one of them withdraws", || {
        peers[0].withdraw(&["20.1.0.0/24"]);
        wait_for("two next hops", 3.0, || (hops("20.1.0.0/24") == 2).then_some(()));
        Ok(())
    });
    report.case("ECMP: one of them becomes worse", || {
        let longer = changed(&peers[1], &[path(&[EXTERNAL, 7, 8])]);
        peers[1].announce_with(&longer, &["20.1.0.0/24"]);
        wait_for("one next hop", 3.0, || (hops("20.1.0.0/24") == 1).then_some(()));
        Ok(())
    });
    report.case("4271 §9.1.4 the more specific route does not touch the other", || {
        peers[2].announce(0, &["20.2.0.0/16"]);
        let other = changed(&peers[1], &[next_hop(at(9, 9))]);
        peers[1].announce_with(&other, &["20.2.1.0/24"]);
        wait_for("both", 3.0, || {
            let kernel = bed.kernel();
            (kernel.contains("20.2.0.0/16") && kernel.contains("20.2.1.0/24")).then_some(())
        });
        Ok(())
    });
    report.finish();
}
