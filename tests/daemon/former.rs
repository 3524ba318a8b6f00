//! `[fib]` changes between two starts, or by a reload: nothing of the former configuration stays, nothing is missing meanwhile, and nothing of
//! others is touched.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    common::{
        daemons::Routelet,
        net::{Net, Ns},
        run,
        speaker::{Speaker, attributes, end_of_rib, update},
        wait_for,
    },
    kernel::{CONFIG, HOST, SWITCH, host_and_switch, net24},
};

/// A host whose neighbor is played by the test; restarts with another `[fib]`.
struct Bed {
    host: Ns,
    switch: Ns,
    routelet: Routelet,
    // Dropped last.
    _net: Net,
}

impl Bed {
    /// With three learned routes, and one of an own prefix, by this `[fib]`.
    fn new(fib: &str) -> (Self, Speaker) {
        let mut net = Net::new();
        let (switch, host) = host_and_switch(&mut net);
        // Without it no packet would come to the other table of these tests.
        host.ip("rule add table 1000");
        let routelet = Routelet::start(&net, &host, &config(fib), &[]);
        let bed = Self { host, switch, routelet, _net: net };
        let speaker = bed.learn(&[1, 2, 3]);
        (bed, speaker)
    }

    fn learn(&self, numbers: &[u8]) -> Speaker {
        let mut speaker = Speaker::dial(&self.switch, HOST).unwrap();
        speaker.establish(10000, 90, SWITCH);
        let prefixes: Vec<_> = numbers.iter().map(|n| net24(*n)).collect();
        speaker.send(&update(&[], &attributes(&[10000], SWITCH, 0), &prefixes));
        speaker.send(&end_of_rib());
        for n in numbers {
            wait_for(format!("10.60.{n}.0/24 is used"), 20.0, || self.uses(*n).then_some(()));
        }
        speaker
    }

    /// Whether packets would take a route of ours.
    fn uses(&self, n: u8) -> bool {
        let fib = self.routelet.json(&["show", "fib"]);
        let is_there = |v: &serde_json::Value| {
            v["prefix"] == format!("10.60.{n}.0/24") && v["in_kernel"] == true && v["problem"].is_null()
        };
        fib.as_array().unwrap().iter().any(is_there)
    }

    /// Stops it, or kills it, and starts it with another `[fib]`; the neighbor is away.
    fn restart(&mut self, fib: &str, kill: bool) {
        if kill {
            self.routelet.process.kill();
        } else {
            self.routelet.process.stop();
        }
        self.routelet.configure(&config(fib));
        self.routelet.restart();
    }

    /// Routes with these phrases (separated by commas), of all tables.
    fn routes(&self, phrases: &str) -> Vec<String> {
        let all = self.host.ip("route show table all");
        all.lines().filter(|l| phrases.split(", ").all(|p| l.contains(p))).map(str::to_owned).collect()
    }

    /// No such route, and no object of this protocol number (0: whatever).
    fn nothing_is_left(&self, protocol: u8, words: &str) {
        wait_for(format!("nothing is left in `{words}`"), 20.0, || {
            self.routes(words).is_empty().then_some(())
        });
        if protocol != 0 {
            wait_for(format!("no object of protocol {protocol} is left"), 20.0, || {
                (!self.host.ip("nexthop").contains(&format!("proto {protocol}"))).then_some(())
            });
        }
    }
}

fn config(fib: &str) -> String {
    format!("{CONFIG}[fib]\n{fib}\n")
}

/// The names that rt_protos gives are not ours to rely on.
fn others(host: &Ns) {
    host.ip("route add 10.60.77.0/24 via 10.1.1.1 proto static");
    host.ip("route add 10.60.78.0/24 via 10.1.1.1 proto 179 metric 20");
    host.ip("route add 10.60.79.0/24 via 10.1.1.1 proto bird table 1000 metric 179");
}

#[test]
fn a_changed_table_leaves_nothing_in_the_former_one() {
    let (mut bed, _speaker) = Bed::new("");
    others(&bed.host);
    bed.restart("table = 1000", false);
    assert!(bed.host.ip("route get 10.60.1.9").contains("via 10.1.1.1"), "until the neighbors are back");
    assert_eq!(bed.routes("10.60., proto 179 metric 179").len(), 3, "all of them stay");
    assert_eq!(bed.routes("unreachable 10.50.0.0/24, proto 179").len(), 2, "the own one is in both");
    let _speaker = bed.learn(&[1, 2]);
    wait_for("only the new table has them", 20.0, || {
        let ours = bed.routes("10.60., proto 179 metric 179");
        (ours.len() == 2 && ours.iter().all(|r| r.contains("table 1000"))).then_some(())
    });
    assert_eq!(bed.routes("10.50.0.0/24").len(), 1);
    assert_eq!(bed.routes("10.60.7").len(), 3, "those of others stay");
    // Nothing is searched for at the next start.
    bed.restart("table = 1000", false);
    assert!(!bed.routelet.process.printed().rsplit("routelet starting").next().unwrap().contains("former"));
}

#[test]
fn a_changed_protocol_takes_its_routes_along() {
    let (mut bed, _speaker) = Bed::new("");
    others(&bed.host);
    bed.restart("protocol = 181", false);
    assert!(bed.host.ip("route get 10.60.1.9").contains("via 10.1.1.1"), "none is missing");
    assert_eq!(bed.routes("10.60., proto 181 metric 179").len(), 3, "{:?}", bed.routes("10.60."));
    let mut speaker = bed.learn(&[1, 2]);
    wait_for("what is not announced again goes", 20.0, || {
        (bed.routes("10.60., proto 181 metric 179").len() == 2).then_some(())
    });
    bed.nothing_is_left(179, "proto 179 metric 179");
    bed.nothing_is_left(0, "unreachable, proto 179");
    assert_eq!(bed.routes("10.60.77.0/24").len() + bed.routes("10.60.79.0/24").len(), 2);
    assert_eq!(bed.routes("10.60.78.0/24, proto 179 metric 20").len(), 1, "another metric is another's");
    speaker.send(&update(&[net24(2)], &[], &[]));
    wait_for("a withdrawn route goes", 20.0, || bed.routes("10.60.2.0/24").is_empty().then_some(()));
}

#[test]
fn several_changes_and_a_crash_in_between_leave_nothing() {
    let (mut bed, _speaker) = Bed::new("");
    bed.restart("table = 1000\nmetric = 50", true);
    // Killed before any neighbor was back, and changed again.
    bed.restart("protocol = 181\nmetric = 60", true);
    bed.restart("protocol = 182\nmetric = 60\nnexthop-objects = false", true);
    assert!(bed.host.ip("route get 10.60.1.9").contains("via 10.1.1.1"));
    let _speaker = bed.learn(&[1, 2]);
    wait_for("the routes are where they belong", 20.0, || {
        (bed.routes("10.60., proto 182 metric 60").len() == 2).then_some(())
    });
    for words in ["proto 179", "proto 181", "table 1000"] {
        bed.nothing_is_left(179, words);
    }
    bed.nothing_is_left(181, "proto 181");
    assert_eq!(bed.routes("10.60.").len(), 2, "{:?}", bed.routes("10.60."));
    assert_eq!(bed.routes("unreachable 10.50.0.0/24").len(), 1);
}

#[test]
fn routes_move_in_and_out_of_objects_and_go_with_install() {
    let (mut bed, _speaker) = Bed::new("");
    assert!(bed.host.ip("nexthop").contains("proto 179"));
    bed.restart("nexthop-objects = false", false);
    let _speaker = bed.learn(&[1, 2, 3]);
    wait_for("no object is left", 20.0, || bed.host.ip("nexthop").is_empty().then_some(()));
    assert_eq!(bed.routes("10.60., proto 179, via").len(), 3);
    bed.restart("", false);
    let _speaker = bed.learn(&[1, 2, 3]);
    wait_for("objects again", 20.0, || (bed.routes("10.60., proto 179, nhid").len() == 3).then_some(()));

    others(&bed.host);
    bed.restart("install = false", false);
    bed.nothing_is_left(179, "proto 179 metric 179");
    bed.nothing_is_left(0, "unreachable 10.50.0.0/24");
    assert_eq!(bed.routes("10.60.").len(), 3, "those of others: {:?}", bed.routes("10.60."));
}

#[test]
fn a_place_that_another_program_writes_to_is_left_alone() {
    let (mut bed, _speaker) = Bed::new("");
    bed.restart("table = 1000", false);
    // As another routelet would.
    bed.host.ip("route add 10.60.99.0/24 via 10.1.1.1 proto 179 metric 179");
    let _speaker = bed.learn(&[1, 2, 3]);
    wait_for("it is said", 20.0, || {
        bed.routelet.process.printed().contains("another program writes routes").then_some(())
    });
    let left = bed.host.ip("route show proto 179 metric 179");
    assert_eq!(left.lines().filter(|l| l.contains("10.60.")).count(), 4, "{left}");
}

#[test]
fn cleanup_removes_what_former_configurations_left() {
    let (mut bed, _speaker) = Bed::new("");
    bed.restart("table = 1000\nprotocol = 181", true);
    bed.routelet.process.stop();
    let mut command = bed.host.command(env!("CARGO_BIN_EXE_routelet"));
    let removed = run(command.args(["cleanup", "--config"]).arg(bed.routelet.dir.join("routelet.toml")));
    assert!(removed.contains("of a former configuration (table 254, protocol 179)"), "{removed}");
    bed.nothing_is_left(179, "proto 179");
    bed.nothing_is_left(181, "proto 181");
    assert!(bed.host.ip("nexthop").is_empty());
}

/// Each change by a reload: packets find a route at any time, no session ends, and nothing stays where it was.
#[test]
fn other_settings_follow_a_reload_and_no_route_is_missing_meanwhile() {
    let (bed, _speaker) = Bed::new("");
    others(&bed.host);
    bed.host.ip("route del default");
    let session = || bed.routelet.json(&["show", "neighbor", "10.1.1.1"])["since"].clone();
    let since = session();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut missing = 0;
            while !over.load(Ordering::Relaxed) {
                missing += u32::from(!bed.host.ip("route get fibmatch 10.60.2.9").contains("10.60.2.0/24"));
            }
            missing
        });
        #[rustfmt::skip]
        let steps = [
            ("metric = 50",                                    "proto 179 metric 50",            "metric 179"),
            ("metric = 50\ntable = 1000",                      "table 1000 proto 179 metric 50", "unreachable 10.50.0.0/24 proto 179"),
            ("metric = 50\ntable = 1000\nprotocol = 181",      "table 1000 proto 181 metric 50", "proto 179 metric 50"),
            ("protocol = 182\nnexthop-objects = false",        "via, proto 182 metric 179",      "proto 181"),
            ("protocol = 182",                                 "nhid, proto 182 metric 179",     "proto 181"),
            ("",                                               "nhid, proto 179 metric 179",     "proto 182"),
        ];
        for (fib, now, before) in steps {
            bed.routelet.configure(&config(fib));
            bed.routelet.cli(&["reload"]);
            let ours =
                || bed.routes("10.60.").into_iter().filter(|r| !r.contains("10.60.7")).collect::<Vec<_>>();
            wait_for(format!("the routes by `{fib}`"), 20.0, || {
                let is_right = |r: &String| now.split(", ").all(|p| r.contains(p));
                (ours().len() == 3 && ours().iter().all(is_right)).then_some(())
            });
            wait_for(format!("nothing with `{before}`"), 20.0, || {
                let left = bed.routes(before).into_iter().filter(|r| !r.contains("10.60.7")).count();
                (left == 0).then_some(())
            });
            assert_eq!(bed.routes("unreachable 10.50.0.0/24").len(), 1, "{fib}");
            assert_eq!(session(), since, "{fib}");
            assert!(
                bed.uses(2),
                "10.60.2.0/24 is not used by `{fib}`: {}",
                bed.routelet.cli(&["show", "fib"])
            );
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(watching.join().unwrap(), 0, "a route was missing");
    });
    bed.nothing_is_left(181, "proto 181");
    bed.nothing_is_left(182, "proto 182");
    // What has our protocol number in our table is ours, whatever its metric.
    assert_eq!(bed.routes("10.60.77.0/24").len() + bed.routes("10.60.79.0/24").len(), 2, "others' stay");

    bed.routelet.configure(&config("install = false"));
    bed.routelet.cli(&["reload"]);
    bed.nothing_is_left(179, "proto 179 metric 179");
    bed.nothing_is_left(0, "unreachable 10.50.0.0/24");
    bed.routelet.configure(&config(""));
    bed.routelet.cli(&["reload"]);
    wait_for("they are back", 20.0, || (bed.routes("10.60., proto 179 metric 179").len() == 3).then_some(()));
    assert_eq!(session(), since);
    // A start knows nothing of the places in between.
    let record = std::fs::read_to_string(bed.routelet.dir.join("state/fib.json")).unwrap();
    assert_eq!(record.matches("\"table\"").count(), 1, "{record}");
}
