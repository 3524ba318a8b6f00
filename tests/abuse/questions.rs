//! Questions about a table of a million routes: the answer comes in pages, and costs neither memory nor anybody's
//! hold time, whoever asks and however he reads.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::*;

/// KiB of a line of a process's status.
fn status(pid: u32, line: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let found = text.lines().find_map(|l| l.strip_prefix(line)).expect("in status");
    found.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// How many KiB a process takes more at the most while something happens.
fn peak_above<T>(pid: u32, act: impl FnOnce() -> T) -> (u64, T) {
    // From proc(5): the peak is set back to what it holds now.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("root");
    let before = status(pid, "VmHWM:");
    let done = act();
    (status(pid, "VmHWM:").saturating_sub(before), done)
}

/// Runs the client; returns the lines that it printed, read one after the other, and its own peak in KiB.
fn run_client(bed: &Bed, args: &[&str], mut line: impl FnMut(&str)) -> u64 {
    let mut client = Command::new(env!("CARGO_BIN_EXE_routelet"))
        .args(args)
        .arg("--socket")
        .arg(bed.routelet.socket())
        .stdout(Stdio::piped())
        .spawn()
        .expect("built");
    let mut out = BufReader::new(client.stdout.take().expect("piped"));
    let (mut text, mut peak) = (String::new(), 0);
    let mut count = 0_u32;
    while out.read_line(&mut text).expect("it runs") > 0 {
        line(text.trim_end());
        text.clear();
        count += 1;
        if count.is_multiple_of(1000) && fs::exists(format!("/proc/{}/status", client.id())).is_ok_and(|e| e)
        {
            peak = peak.max(status_or_zero(client.id()));
        }
    }
    assert!(client.wait().expect("it ends").success(), "{args:?}");
    peak
}

/// One that has ended holds nothing.
fn status_or_zero(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    found.map_or(0, |kib| kib.trim().trim_end_matches(" kB").parse().expect("a number"))
}

/// What an answer may cost the daemon, in KiB.
const ANSWER: u64 = 4096;
/// What the client may take, in KiB, its program included.
const CLIENT: u64 = 64 * 1024;

/// The prefixes of an array that comes line by line.
fn prefix_of(line: &str) -> Option<&str> {
    line.strip_prefix("    \"prefix\": \"")?.strip_suffix("\",")
}

#[test]
fn a_question_about_a_very_large_table_costs_the_daemon_nothing() {
    let _alone = alone();
    let routes: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut bed = Bed::start(
        "",
        &(passive(1, 1, "remote-as = 65001\nmax-prefixes = 1000000") + &passive(9, 1, WITNESS)),
    );
    let mut witness = Witness::new(&bed);
    let mut source = bed.peer(at(1, 1), EXTERNAL);
    source.send(&large_table(&source, routes));
    let expected = routes as usize + 1;
    wait_for("all are in the kernel", 120.0, || {
        thread::sleep(Duration::from_millis(200));
        let summary = bed.routelet.json(&["show", "summary"]);
        (summary["routes"]["installed"] == expected).then_some(())
    });
    let pid = bed.routelet.process.pid();
    let mut report = Report::default();
    let (from, to) = (at(1, 1).to_string(), Witness::ADDR.to_string());
    #[rustfmt::skip]
    let questions: &[(&[&str], usize)] = &[
        (&["show", "routes", "--json"], expected),
        (&["show", "routes", "--json", "--received", &from], expected - 1),
        (&["show", "routes", "--json", "--advertised", &to], expected - 1),
        (&["show", "routes", "--json", "--neighbor", &to], 1),
        (&["show", "routes", "--json", "--family", "ipv6"], 0),
        (&["show", "routes", "--json", "0.0.0.0/0", "--longer"], expected),
        (&["show", "fib", "--json"], expected),
    ];
    for (question, count) in questions {
        report.case(&question.join(" "), || {
            let start = Instant::now();
            let (mut last, mut seen) = (None::<routelet::net::Prefix>, 0);
            let mut sorted = true;
            let (grown, client) = peak_above(pid, || {
                run_client(&bed, question, |line| {
                    if let Some(prefix) = prefix_of(line) {
                        let prefix = prefix.parse().expect("a prefix");
                        sorted &= last.is_none_or(|l| l < prefix);
                        last = Some(prefix);
                        seen += 1;
                    }
                })
            });
            println!(
                "{seen} rows in {:?}; {grown} KiB more in the daemon, {client} KiB in the client",
                start.elapsed()
            );
            same(seen, *count)?;
            holds(sorted, "in order, each once")?;
            holds(grown < ANSWER, &format!("{grown} KiB"))?;
            holds(client < CLIENT, &format!("{client} KiB in the client"))
        });
        report.case("after it: the other neighbor", || witness.alive(&mut bed));
    }
    report.case("as tables", || {
        for what in ["routes", "fib"] {
            let mut lines = 0;
            let (grown, client) =
                peak_above(pid, || run_client(&bed, &["show", what, "-o", "wide"], |_| lines += 1));
            // Below the fib stands how to remove it.
            same(lines, expected + if what == "fib" { 5 } else { 1 })?;
            holds(grown < ANSWER && client < CLIENT, &format!("{grown} KiB, {client} KiB"))?;
        }
        witness.alive(&mut bed)
    });
    report.case("| head ends the work", || {
        let mut client = Command::new(env!("CARGO_BIN_EXE_routelet"))
            .args(["show", "routes", "--socket"])
            .arg(bed.routelet.socket())
            .stdout(Stdio::piped())
            .spawn()
            .expect("built");
        let mut few = [0; 5000];
        client.stdout.take().expect("piped").read_exact(&mut few).expect("a page");
        // Its reader is gone with the pipe: it ends by itself, and well.
        wait_for("the client ends", 20.0, || {
            client.try_wait().expect("ours").map(|status| assert!(status.success()))
        });
        let spent = || {
            let cpu = cpu_ticks(pid);
            thread::sleep(Duration::from_secs(2));
            cpu_ticks(pid) - cpu
        };
        // Once a minute all routes of the kernel are compared with ours, for about a second.
        let ticks = spent();
        let ticks = if ticks < 60 { ticks } else { spent() };
        holds(ticks < 60, &format!("the daemon goes on for {ticks} ticks of 200"))
    });
    report.case("20 clients that ask for all and read nothing", || {
        let (grown, _) = peak_above(pid, || {
            let deaf: Vec<_> = (0..20).map(|_| question(&bed)).collect();
            let start = Instant::now();
            let short = bed.routelet.json(&["show", "routes", "22.0.0.0/26"]);
            println!("a short question took {:?} meanwhile", start.elapsed());
            assert_eq!(short.as_array().map(Vec::len), Some(1));
            assert_eq!(bed.routelet.json(&["show", "summary"])["neighbors"]["up"], 2);
            let refused = bed.routelet.try_cli(&["show", "routes"]).expect_err("no place");
            assert!(refused.0 == 1 && refused.1.contains("long responses"), "{refused:?}");
            drop(deaf);
        });
        println!("{grown} KiB more in the daemon");
        holds(grown < 4 * ANSWER, &format!("{grown} KiB"))?;
        witness.alive(&mut bed)
    });
    report.case("a daemon that ends in the middle leaves no valid JSON, and the client says so", || {
        let mut client = Command::new(env!("CARGO_BIN_EXE_routelet"))
            .args(["show", "routes", "--json", "--socket"])
            .arg(bed.routelet.socket())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("built");
        let mut out = client.stdout.take().expect("piped");
        let mut text = vec![0; 5000];
        out.read_exact(&mut text).expect("a page");
        bed.routelet.process.stop();
        out.read_to_end(&mut text).expect("the rest");
        let done = client.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        holds(done.status.code() == Some(1), &format!("{:?}", done.status))?;
        holds(said.contains("is incomplete") || said.contains("is stopping"), &said)?;
        holds(serde_json::from_slice::<serde_json::Value>(&text).is_err(), "it must not look whole")
    });
    report.finish();
}

/// A connection with a question about everything, of which nothing is read.
fn question(bed: &Bed) -> UnixStream {
    let mut stream = UnixStream::connect(bed.routelet.socket()).expect("it listens");
    let all = "{\"version\":3,\"query\":{\"routes\":{\"longer\":false}}}\n";
    stream.write_all(all.as_bytes()).expect("room");
    stream
}

/// Hundredths of a second of processor time.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}
