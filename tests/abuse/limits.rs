//! A daemon with the memory of a small container: floods of prefixes, of attributes, of paths, and questions meanwhile end
//! in one closed session, and never in a killed daemon.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::*;

/// A cgroup with a limit of memory, of version 1 or 2 as this machine has it. The kernel counts routes that the daemon
/// writes, and what sockets hold, with its own memory.
pub(crate) struct Cgroup {
    folder: PathBuf,
    unified: bool,
}

impl Cgroup {
    pub(crate) fn new(mib: u64) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").expect("proc");
        // Version 1 has a hierarchy for the memory controller.
        let controllers = own.lines().filter_map(|l| Some(l.split_once(':')?.1.split_once(':')?.0));
        let unified = !controllers.into_iter().any(|c| c.split(',').any(|name| name == "memory"));
        let root = Path::new("/sys/fs/cgroup");
        let base = if unified { root.to_owned() } else { root.join("memory") };
        let folder = base.join(format!("{}memory", common::guard::tag()));
        if unified {
            let _ = fs::write(base.join("cgroup.subtree_control"), "+memory");
        }
        fs::create_dir_all(&folder).expect("a cgroup: this test needs root and a writable /sys/fs/cgroup");
        let this = Self { folder, unified };
        // Two levels: a limit counts for what lies inside, too.
        fs::create_dir_all(this.inner()).expect("a cgroup inside");
        if unified {
            let _ = fs::write(this.folder.join("cgroup.subtree_control"), "+memory");
        }
        let limit = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(this.folder.join(limit), (mib * 1024 * 1024).to_string())
            .expect("a limit: this test needs the memory controller");
        this
    }

    fn inner(&self) -> PathBuf {
        self.folder.join("pod")
    }

    /// The file that takes a process into it. The test itself stays outside: its own memory must not
    /// count.
    pub(crate) fn procs(&self) -> PathBuf {
        self.inner().join("cgroup.procs")
    }

    fn bed(&self, neighbors: &str) -> Bed {
        Bed::start_in(Some(self.procs()), "", neighbors, |_, _| Vec::new())
    }

    /// How many processes were killed for their memory.
    pub(crate) fn killed(&self) -> u64 {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        [&self.folder, &self.inner()]
            .iter()
            .map(|folder| {
                let text = fs::read_to_string(folder.join(file)).expect("of a cgroup");
                let count = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
                count.map_or(0, |n| n.trim().parse::<u64>().expect("a number"))
            })
            .sum()
    }

    /// The most that there was of memory, the page cache apart, in KiB: sampled.
    pub(crate) fn used(&self) -> u64 {
        let stat = fs::read_to_string(self.folder.join("memory.stat")).expect("of a cgroup");
        let of = |name: &str| {
            let value = stat.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            value.map_or(0, |n| n.trim().parse::<u64>().expect("a number"))
        };
        let octets = match self.unified {
            true => of("anon") + of("kernel") + of("sock"),
            false => {
                let kernel = fs::read_to_string(self.folder.join("memory.kmem.usage_in_bytes"));
                of("total_rss") + kernel.map_or(0, |k| k.trim().parse().unwrap_or(0))
            }
        };
        octets / 1024
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if fs::remove_dir(self.inner()).is_ok() && fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What a neighbor floods with: the UPDATE number `n`, or none when it has said all.
type Flood = fn(&Peer, u32) -> Option<Vec<u8>>;

/// Half a million prefixes, 200 to an attribute set.
fn prefixes(peer: &Peer, n: u32) -> Option<Vec<u8>> {
    let many: Vec<_> = (n * 200..n * 200 + 200).map(nth).collect();
    (n < 2500).then(|| update(&[], &peer.good(n), &nlri(&many)))
}

/// Prefixes with an unknown attribute of 3,900 octets each.
fn unknown_attributes(peer: &Peer, n: u32) -> Option<Vec<u8>> {
    let value: Vec<u8> = n.to_be_bytes().into_iter().cycle().take(3900).collect();
    let all = [peer.good(n), vec![attr(0xd0, 99, &value)]].concat();
    (n < 40_000).then(|| update(&[], &all, &nlri(&[nth(n)])))
}

/// The same 20,000 prefixes again and again, each time with 900 other communities.
fn changing_attributes(peer: &Peer, n: u32) -> Option<Vec<u8>> {
    let list: Vec<u8> = (0..900_u32).flat_map(|c| (n.wrapping_mul(0x0101_0101) ^ c).to_be_bytes()).collect();
    let all = [peer.good(n), vec![attr(0xd0, 8, &list)]].concat();
    (n < 40_000).then(|| update(&[], &all, &nlri(&[nth(n % 20_000)])))
}

/// 200 paths to each of many prefixes (RFC 7911).
fn many_paths(peer: &Peer, n: u32) -> Option<Vec<u8>> {
    let with_id: Vec<u8> =
        (0..200_u32).flat_map(|id| [(id + 1).to_be_bytes().to_vec(), nlri(&[nth(n)])].concat()).collect();
    (n < 10_000).then(|| update(&[], &peer.good(n % 50), &with_id))
}

/// Sends until the session ends, or all has been said for a minute. Returns the NOTIFICATION; one that came while more was
/// being sent may be lost with the connection.
fn flood(mut peer: Peer, with: Flood) -> Option<Vec<u8>> {
    let (mut said, mut n) = (Instant::now(), 0);
    while !peer.closed && said.elapsed() < Duration::from_secs(60) {
        if let Some(octets) = with(&peer, n) {
            peer.send(&octets);
            said = Instant::now();
        }
        n += 1;
        // A look at what came takes 10 ms.
        if n % 64 == 0
            && let Some((NOTIFICATION, body)) = peer.next(0.0)
        {
            return Some(body);
        }
    }
    None
}

/// A client in the cgroup.
fn start_client(bed: &Bed, cgroup: &Cgroup, args: &[&str]) -> Child {
    Command::new("sh")
        .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
        .arg(cgroup.procs())
        .arg(env!("CARGO_BIN_EXE_routelet"))
        .args(args)
        .arg("--socket")
        .arg(bed.routelet.socket())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("built")
}

/// MiB of the container. Code that is not optimised is a file of 200 MiB, of which more pages are in memory.
pub(crate) const CONTAINER: u64 = 64;

fn survives(name: &'static str, floods: &[(u8, Flood)], report: &mut Report) {
    let cgroup = Cgroup::new(CONTAINER);
    let config = passive(1, 3, "remote-as = 65001\nmax-prefixes = 1000000\nadd-paths = \"receive\"")
        + &passive(9, 1, WITNESS);
    let mut bed = cgroup.bed(&config);
    let mut witness = Witness::new(&bed);
    println!("{name}: {} KiB before", cgroup.used());
    let open = |from: Ipv4Addr| Open::new(EXTERNAL, from).with(69, &[0, 1, 1, 2]);
    let plain = |from: Ipv4Addr| Open::new(EXTERNAL, from);
    let running: Vec<_> = floods
        .iter()
        .map(|(slot, with)| {
            let paths = std::ptr::fn_addr_eq(*with, many_paths as Flood);
            let from = at(1, *slot);
            let peer = bed.session(from, &if paths { open(from) } else { plain(from) });
            let with = *with;
            thread::spawn(move || flood(peer, with))
        })
        .collect();
    let (mut most, mut asked) = (0, Vec::<Child>::new());
    let start = Instant::now();
    while running.iter().any(|r| !r.is_finished()) && start.elapsed() < Duration::from_secs(240) {
        asked.retain_mut(|child| child.try_wait().is_ok_and(|done| done.is_none()));
        while asked.len() < 3 {
            let what = if asked.len() == 1 { "fib" } else { "routes" };
            asked.push(start_client(&bed, &cgroup, &["show", what, "--json"]));
        }
        most = most.max(cgroup.used());
        thread::sleep(Duration::from_millis(20));
    }
    for mut child in asked {
        let _ = child.kill();
        let _ = child.wait();
    }
    let ends: Vec<_> = running.into_iter().map(|r| r.join().expect("no panic")).collect();
    println!("{name}: {most} KiB at the most of {} KiB, {:?}", CONTAINER * 1024, start.elapsed());
    report.case(name, || {
        same(cgroup.killed(), 0)?;
        holds(bed.routelet.process.alive(), "the daemon ended")?;
        for end in ends.iter().flatten() {
            same(&end[..2], &[6, 1])?;
        }
        for (slot, _) in floods {
            let neighbor = bed.neighbor(at(1, *slot));
            same(neighbor["state"].as_str(), Some("idle"))?;
            let why = &neighbor["last_error"];
            holds(why.as_str().is_some_and(|w| w.contains("memory limit")), &format!("{why}"))?;
        }
        Ok(())
    });
    report.case("after it: the other neighbor", || witness.alive(&mut bed));
    report.case("after it: all is given back and one route can come", || {
        wait_for("little is held", 60.0, || {
            let summary = bed.routelet.json(&["show", "summary"]);
            (summary["routes"]["received"] == 1).then_some(())
        });
        println!("{name}: {} KiB after", cgroup.used());
        holds(cgroup.killed() == 0, "killed")
    });
}

#[test]
fn a_flood_ends_in_one_closed_session_and_never_in_a_killed_daemon() {
    let _alone = alone();
    let mut report = Report::default();
    survives("a flood of prefixes", &[(1, prefixes)], &mut report);
    survives("a flood of long attributes", &[(1, unknown_attributes)], &mut report);
    survives("attributes that change all the time", &[(1, changing_attributes)], &mut report);
    survives("a flood of paths", &[(1, many_paths)], &mut report);
    survives("all at once", &[(1, prefixes), (2, unknown_attributes), (3, many_paths)], &mut report);
    report.finish();
}

/// The default limit follows from the memory: nothing is configured, and `reload` looks again.
#[test]
fn the_default_of_max_prefixes_follows_from_the_memory_limit() {
    let _alone = alone();
    let cgroup = Cgroup::new(CONTAINER);
    let config = passive(1, 1, "remote-as = 65001\nidle-hold-time = 1");
    let bed = cgroup.bed(&config);
    let holds_limit = |bed: &Bed, wanted: u64| {
        wait_for(format!("max-prefixes is {wanted}"), 20.0, || {
            let config = bed.routelet.json(&["show", "config"]);
            (config["bgp"]["neighbor"][0]["max-prefixes"] == wanted).then_some(())
        });
    };
    // Of 64 MiB.
    holds_limit(&bed, 73_000);
    // Raised by whoever runs the container: a reload takes it over.
    let file = if cgroup.unified { "memory.max" } else { "memory.limit_in_bytes" };
    let set = |mib: u64| fs::write(cgroup.folder.join(file), (mib * 1024 * 1024).to_string()).expect("ours");
    set(256);
    bed.routelet.cli(&["reload"]);
    holds_limit(&bed, 440_000);
    set(64);
    bed.routelet.cli(&["reload"]);
    holds_limit(&bed, 73_000);

    let mut peer = bed.peer(at(1, 1), EXTERNAL);
    let problems = |bed: &Bed| bed.routelet.json(&["show", "summary"])["problems"].to_string();
    assert!(!problems(&bed).contains("max-prefixes 73000"), "{}", problems(&bed));
    for n in 0..300 {
        let octets = prefixes(&peer, n).expect("more");
        peer.send(&octets);
    }
    wait_for("a problem at 80 %", 60.0, || problems(&bed).contains("max-prefixes 73000").then_some(()));
    for n in 300..400 {
        let octets = prefixes(&peer, n).expect("more");
        peer.send(&octets);
    }
    let end = peer.ends().expect("a NOTIFICATION");
    let data = [&[0, 1, 1][..], &73_000_u32.to_be_bytes()].concat();
    assert!(end.ends_with(&data), "RFC 4486: the family and the limit: {end:?}");
    wait_for("the problem is gone", 60.0, || (!problems(&bed).contains("max-prefixes 73000")).then_some(()));
    assert_eq!(cgroup.killed(), 0);
}
