//! The faults: how each happens, how it ends, and which packets it may cost.
//!
//! An API server that is gone is in `tests/kube`: these hosts have none.

use std::{
    fmt,
    net::UdpSocket,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::libc::{EBUSY, EEXIST, EINTR, ENETDOWN, ENOBUFS, ESRCH};

use crate::{
    common::{cramped::Cramped, net::Ns, run, shim::Setting},
    fabric::{BFD_HOSTS, FRR, Fabric, SWITCHES, Switch, make_bridge},
    losses::Pairs,
};

/// BFD of 300 ms × 3 has noticed, and routes are gone, on a machine that others use, too.
pub const BFD: Duration = Duration::from_millis(3000);
/// Of BFD of 300 ms × 3.
const DETECTION: Duration = Duration::from_millis(900);
/// What the kernel reported was acted on, here and at the neighbors of the neighbor.
const REPORTED: Duration = Duration::from_millis(2500);
/// A queue has taken the place of another.
const QUEUE_REPLACED: Duration = Duration::from_millis(100);
/// Seconds.
const DAY: i64 = 86_400;
const ERRORS: [i32; 6] = [ENOBUFS, EEXIST, ENETDOWN, ESRCH, EINTR, EBUSY];
/// A route of ours that others deleted is back.
const REPAIRED: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL, and a start some time later.
    Killed,
    /// SIGTERM, and a start at once.
    Upgraded,
    /// SIGSTOP, and SIGCONT later.
    Stopped,
    /// A network more in the configuration file, and one less.
    Reloaded,
    /// A configuration file that is wrong.
    BadFile,
    /// The state folder is full while it is killed and started.
    DiskFull,
    /// The state folder is read-only while it is killed and started.
    ReadOnly,
    /// Started in a time namespace: monotonic and boot time are a day ahead.
    ClockJump,
    /// The wall clock jumps by a day, to either side, and back, while it runs.
    WallClockJump,
    /// One of three requests to the kernel is refused: ENOBUFS, EEXIST, ENETDOWN, ESRCH, EINTR or
    /// EBUSY. Others delete all routes meanwhile.
    NetlinkErrors,
    /// The kernel acknowledges late. Others delete all routes meanwhile.
    SlowAcknowledgements,
    /// SIGTERM and a start, while writes to files take a few octets each.
    PartialWrites,
    /// The uplink is set down at the host.
    LinkDownAtHost,
    /// The same at the switch: the host's end loses its carrier.
    LinkDownAtSwitch,
    /// Packets vanish on an uplink, in one direction or both, while everybody reports it up.
    SilentLoss,
    /// A queue on the uplink delays everything.
    SlowLink,
    /// The daemon of a switch leaves by graceful restart (BIRD) or is ended (FRR), and is back.
    SwitchRestarted,
    /// SIGKILL for the daemon of a switch, and a start.
    SwitchKilled,
    /// SIGSTOP for the daemon of a switch: its window closes.
    SwitchStopped,
    /// TCP of a session is aborted.
    SessionAborted,
    /// Others delete all routes that routelet installed.
    RoutesDeleted,
    /// Others delete its nexthop objects, and the kernel all routes with them.
    NexthopsDeleted,
    /// The address of an uplink is removed and added.
    AddressDeleted,
    /// The bridge with the container is deleted and made anew.
    BridgeDeleted,
    /// Messages of the kernel are lost: more changes than the socket holds while routelet is
    /// stopped, deletions of its routes among them.
    MessagesLost,
}

impl Kind {
    pub const ALL: [Self; 25] = [
        Self::Killed,
        Self::Upgraded,
        Self::Stopped,
        Self::Reloaded,
        Self::BadFile,
        Self::DiskFull,
        Self::ReadOnly,
        Self::ClockJump,
        Self::WallClockJump,
        Self::NetlinkErrors,
        Self::SlowAcknowledgements,
        Self::PartialWrites,
        Self::LinkDownAtHost,
        Self::LinkDownAtSwitch,
        Self::SilentLoss,
        Self::SlowLink,
        Self::SwitchRestarted,
        Self::SwitchKilled,
        Self::SwitchStopped,
        Self::SessionAborted,
        Self::RoutesDeleted,
        Self::NexthopsDeleted,
        Self::AddressDeleted,
        Self::BridgeDeleted,
        Self::MessagesLost,
    ];
}

/// A fault at its place. What `way` and `more` choose depends on the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub host: usize,
    pub switch: usize,
    pub way: usize,
    /// 0..1000.
    pub more: usize,
}

/// What a fault happens to: two at once would end each other.
#[derive(PartialEq, Eq)]
enum Place {
    Process(usize),
    Link(usize, usize),
    Switch(usize),
    Routes(usize),
    Bridge(usize),
}

/// Of which pairs, and how long after its beginning, packets may be lost. None: as long as it
/// lasts, and until the fabric has settled.
pub struct Exposure {
    pub pairs: Pairs,
    pub after_injection: Option<Duration>,
    pub after_recovery: Option<Duration>,
}

impl Exposure {
    const NOTHING: Self = Self {
        pairs: Pairs::None,
        after_injection: Some(Duration::ZERO),
        after_recovery: Some(Duration::ZERO),
    };
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        let (host, switch) = (self.host + 1, self.switch + 1);
        match self.place() {
            Place::Process(_) | Place::Routes(_) | Place::Bridge(_) => write!(f, "{kind:?} on h{host}"),
            Place::Switch(_) => write!(f, "{kind:?} of s{switch}"),
            Place::Link(..) => write!(f, "{kind:?} between h{host} and s{switch} (way {})", self.way),
        }
    }
}

impl Fault {
    fn place(&self) -> Place {
        use Kind::*;
        match self.kind {
            Killed | Upgraded | Stopped | Reloaded | BadFile | DiskFull | ReadOnly | ClockJump
            | WallClockJump | NetlinkErrors | SlowAcknowledgements | PartialWrites | MessagesLost => {
                Place::Process(self.host)
            }
            LinkDownAtHost | LinkDownAtSwitch | SilentLoss | SlowLink | SessionAborted | AddressDeleted => {
                Place::Link(self.host, self.switch)
            }
            SwitchRestarted | SwitchKilled | SwitchStopped => Place::Switch(self.switch),
            RoutesDeleted | NexthopsDeleted => Place::Routes(self.host),
            BridgeDeleted => Place::Bridge(self.host),
        }
    }

    pub fn collides(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    fn bfd(&self) -> bool {
        Fabric::has_bfd(self.host, self.switch)
    }

    /// For how long it lasts.
    pub fn lasts(&self) -> Duration {
        let base = match self.kind {
            // Long enough for BFD, or over before the hold timer expires.
            Kind::SilentLoss if self.bfd() => 3500,
            Kind::SilentLoss | Kind::Stopped | Kind::SwitchStopped => 1500,
            Kind::NetlinkErrors => 1000,
            Kind::Killed | Kind::SwitchKilled | Kind::SwitchRestarted | Kind::SlowLink => 500,
            _ => 200,
        };
        Duration::from_millis(base + u64::try_from(self.more).expect("below 1000") / 2)
    }

    /// For how long after its end the switch's BFD may still report the silence.
    pub fn reported_later(&self) -> Duration {
        if self.kind == Kind::AddressDeleted && self.bfd() { DETECTION } else { Duration::ZERO }
    }

    /// Whether the fabric settles while it lasts.
    pub fn settles(&self) -> bool {
        use Kind::*;
        match self.kind {
            LinkDownAtHost | LinkDownAtSwitch | Reloaded | BadFile | SlowLink | RoutesDeleted
            | NexthopsDeleted | BridgeDeleted | SessionAborted | WallClockJump | SlowAcknowledgements
            | PartialWrites => true,
            SilentLoss => self.bfd(),
            _ => false,
        }
    }

    /// Which packets it may cost.
    pub fn exposure(&self) -> Exposure {
        use Kind::*;
        let host = self.host;
        let both = |after_injection, after_recovery| Exposure {
            pairs: Pairs::Both(host),
            after_injection,
            after_recovery,
        };
        match self.kind {
            // Its BFD stands still as well, or starts anew: the switch takes the way to it from the
            // others.
            Killed | DiskFull | ReadOnly | Stopped if (0..SWITCHES).any(|s| Fabric::has_bfd(host, s)) => {
                Exposure { pairs: Pairs::To(host), after_injection: None, after_recovery: None }
            }
            // FRR 8.4 makes its BFD session anew once BGP is established, and signals the former
            // one down: both ends close the BGP session that had just come back, as they should.
            SwitchRestarted | SwitchKilled if self.switch == FRR => {
                Exposure { pairs: Pairs::ToAny(&BFD_HOSTS), after_recovery: None, ..Exposure::NOTHING }
            }
            Killed | Upgraded | Reloaded | BadFile | DiskFull | ReadOnly | ClockJump | WallClockJump
            | PartialWrites | SwitchRestarted | SwitchKilled | SwitchStopped | SessionAborted | Stopped => {
                Exposure::NOTHING
            }
            // Routes that others deleted are back once the kernel executes requests again.
            NetlinkErrors | SlowAcknowledgements => {
                Exposure { pairs: Pairs::From(host), after_injection: None, after_recovery: None }
            }
            // The kernel drops what it sends while one queue takes the place of another.
            SlowLink => Exposure {
                pairs: Pairs::From(host),
                after_injection: Some(QUEUE_REPLACED),
                after_recovery: Some(QUEUE_REPLACED),
            },
            LinkDownAtHost | LinkDownAtSwitch => both(Some(REPORTED), Some(REPORTED)),
            SilentLoss if self.bfd() => both(Some(BFD), Some(REPORTED)),
            SilentLoss => both(None, Some(REPORTED)),
            RoutesDeleted | NexthopsDeleted => Exposure {
                pairs: Pairs::From(host),
                after_injection: Some(REPAIRED),
                after_recovery: Some(Duration::ZERO),
            },
            AddressDeleted => both(None, Some(REPORTED)),
            BridgeDeleted | MessagesLost => both(None, None),
        }
    }

    pub fn inject(&self, fabric: &mut Fabric) {
        use Kind::*;
        match self.kind {
            Killed | Upgraded | Stopped | Reloaded | BadFile | DiskFull | ReadOnly | ClockJump
            | MessagesLost => self.hit_process(fabric),
            WallClockJump | NetlinkErrors | SlowAcknowledgements | PartialWrites => self.hit_calls(fabric),
            SwitchRestarted | SwitchKilled | SwitchStopped => self.hit_switch(fabric),
            _ => self.hit_kernel(fabric),
        }
    }

    fn hit_process(&self, fabric: &mut Fabric) {
        let h = self.host;
        let host = &mut fabric.hosts[h];
        match self.kind {
            Kind::Killed => drop(host.routelet.process.kill()),
            Kind::Upgraded => drop(host.routelet.process.stop()),
            Kind::Stopped => host.routelet.process.signal("STOP"),
            Kind::Reloaded => fabric.set_second_network(h, true),
            Kind::BadFile => {
                host.configure(h, &["10.65.0.0/240".into()]);
                let reload = host.routelet.try_cli(&["reload"]);
                assert!(reload.is_err(), "a bad file was taken: {reload:?}");
            }
            Kind::DiskFull => {
                host.fill_disk();
                host.routelet.process.kill();
                host.routelet.restart();
            }
            Kind::ReadOnly => {
                host.routelet.process.kill();
                host.set_read_only(true);
                host.routelet.restart();
            }
            Kind::ClockJump => {
                host.routelet.process.stop();
                host.routelet.clock_offset += 86400;
                host.routelet.restart();
            }
            Kind::MessagesLost => {
                host.routelet.process.signal("STOP");
                flood(&host.ns, host.routelet.process.pid());
            }
            _ => unreachable!("{self}"),
        }
    }

    /// What the calls of its process find, and something for it to do meanwhile.
    fn hit_calls(&self, fabric: &mut Fabric) {
        let (setting, value) = self.setting();
        let host = &mut fabric.hosts[self.host];
        host.hits = host.shim.hits();
        host.shim.set(setting, value);
        match self.kind {
            Kind::NetlinkErrors | Kind::SlowAcknowledgements => delete_routes(&host.ns),
            Kind::PartialWrites => {
                host.routelet.process.stop();
                host.routelet.restart();
            }
            _ => {}
        }
        fabric.set_second_network(self.host, true);
    }

    fn calls_are_as_usual(&self, fabric: &mut Fabric) {
        let host = &fabric.hosts[self.host];
        assert!(host.shim.hits() > host.hits, "{self} changed no call");
        host.shim.set(self.setting().0, 0);
        fabric.set_second_network(self.host, false);
    }

    fn setting(&self) -> (Setting, i64) {
        match self.kind {
            Kind::WallClockJump => (Setting::Ahead, [DAY, -DAY][self.way % 2]),
            Kind::NetlinkErrors => (Setting::Error, ERRORS[self.more % ERRORS.len()].into()),
            Kind::SlowAcknowledgements => (Setting::Delay, 20_000 + 100 * self.more as i64),
            Kind::PartialWrites => (Setting::Most, 5 + self.way as i64),
            _ => unreachable!("{self}"),
        }
    }

    fn hit_switch(&self, fabric: &mut Fabric) {
        match (&mut fabric.switches[self.switch].1, self.kind) {
            (Switch::Bird(Some(bird)), Kind::SwitchRestarted) => drop(bird.birdc("graceful restart")),
            (Switch::Bird(bird), Kind::SwitchKilled) => *bird = None,
            (Switch::Bird(Some(bird)), Kind::SwitchStopped) => bird.process.signal("STOP"),
            (Switch::Frr(Some(frr)), Kind::SwitchStopped) => signal_bgpd(frr, "STOP"),
            // An orderly end of FRR's daemons withdraws everything: they are killed in either case.
            (Switch::Frr(frr @ Some(_)), _) => {
                frr.as_mut().expect("it runs").kill();
                *frr = None;
            }
            (Switch::Bird(None) | Switch::Frr(None), _) | (Switch::Bird(_), _) => {
                unreachable!("{self}")
            }
        }
    }

    fn hit_kernel(&self, fabric: &mut Fabric) {
        let (h, s) = (self.host, self.switch);
        let host = fabric.hosts[h].ns.clone();
        let switch = fabric.switches[s].0.clone();
        match self.kind {
            Kind::LinkDownAtHost => set_link(&host, s, "down"),
            Kind::LinkDownAtSwitch => set_link(&switch, h, "down"),
            Kind::SilentLoss => {
                if self.way != 1 {
                    cut(&host, s);
                }
                if self.way != 0 {
                    cut(&switch, h);
                }
            }
            Kind::SlowLink => slow(&host, s, h),
            Kind::SessionAborted => drop(host.sh(&format!("ss -K dst 10.{}.{}.1", s + 1, h + 1))),
            Kind::RoutesDeleted => delete_routes(&host),
            Kind::NexthopsDeleted => {
                host.ip("nexthop flush proto 179");
            }
            Kind::AddressDeleted => {
                host.ip(&format!("addr del 10.{}.{}.2/24 dev eth{}", s + 1, h + 1, s + 1));
            }
            Kind::BridgeDeleted => {
                host.ip("link del br-pod");
                fabric.bridges[h] = false;
            }
            _ => unreachable!("{self}"),
        }
        let noticed = matches!(self.kind, Kind::LinkDownAtHost | Kind::LinkDownAtSwitch);
        if noticed || self.kind == Kind::SilentLoss && self.bfd() {
            fabric.links[h][s] = false;
        }
    }

    pub fn recover(&self, fabric: &mut Fabric) {
        let (h, s) = (self.host, self.switch);
        let host = fabric.hosts[h].ns.clone();
        match self.kind {
            Kind::Killed | Kind::Upgraded => fabric.hosts[h].routelet.restart(),
            Kind::Stopped | Kind::MessagesLost => fabric.hosts[h].routelet.process.signal("CONT"),
            Kind::Reloaded | Kind::BadFile => fabric.set_second_network(h, false),
            Kind::WallClockJump | Kind::NetlinkErrors | Kind::SlowAcknowledgements | Kind::PartialWrites => {
                self.calls_are_as_usual(fabric)
            }
            Kind::DiskFull => fabric.hosts[h].free_disk(),
            Kind::ReadOnly => fabric.hosts[h].set_read_only(false),
            Kind::LinkDownAtHost => set_link(&host, s, "up"),
            Kind::LinkDownAtSwitch => set_link(&fabric.switches[s].0, h, "up"),
            Kind::SilentLoss => {
                mend(&host);
                mend(&fabric.switches[s].0);
            }
            Kind::SlowLink => drop(host.sh(&format!("tc qdisc del dev eth{} root", s + 1))),
            Kind::SwitchRestarted | Kind::SwitchKilled => fabric.start_switch(s, true),
            Kind::SwitchStopped => match &fabric.switches[s].1 {
                Switch::Bird(bird) => bird.as_ref().expect("it runs").process.signal("CONT"),
                Switch::Frr(frr) => signal_bgpd(frr.as_ref().expect("it runs"), "CONT"),
            },
            Kind::AddressDeleted => {
                host.ip(&format!("addr add 10.{}.{}.2/24 dev eth{}", s + 1, h + 1, s + 1));
            }
            Kind::BridgeDeleted => {
                make_bridge(&host, h + 1);
                fabric.bridges[h] = true;
            }
            Kind::ClockJump | Kind::SessionAborted | Kind::RoutesDeleted | Kind::NexthopsDeleted => {}
        }
        if matches!(self.kind, Kind::LinkDownAtHost | Kind::LinkDownAtSwitch | Kind::SilentLoss) {
            fabric.links[h][s] = true;
        }
    }
}

fn signal_bgpd(frr: &crate::common::daemons::Frr, name: &str) {
    let pids = frr.pids();
    let bgpd = pids.last().expect("bgpd is the last that was started");
    run(Command::new("kill").args([&format!("-{name}"), &bgpd.to_string()]));
}

fn set_link(ns: &Ns, other: usize, state: &str) {
    ns.ip(&format!("link set eth{} {state}", other + 1));
}

/// Whatever comes in there vanishes, before anybody sees it.
fn cut(ns: &Ns, other: usize) {
    ns.sh(&format!(
        "nft 'add table netdev cut; add chain netdev cut in {{ type filter hook ingress device eth{} priority 0; policy drop; }}'",
        other + 1
    ));
}

fn mend(ns: &Ns) {
    ns.sh("nft 'add table netdev cut; delete table netdev cut'");
}

/// A queue of some hundred milliseconds at 8 Mbit/s, which loses nothing.
fn slow(host: &Ns, s: usize, h: usize) {
    host.sh(&format!("tc qdisc add dev eth{} root tbf rate 8mbit burst 3000 limit 4000000", s + 1));
    let to = format!("10.{}.{}.1:9", s + 1, h + 1);
    host.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
        for _ in 0..250 {
            let _ = socket.send_to(&[0; 1000], &to);
        }
    });
}

fn delete_routes(host: &Ns) {
    let routes = host.ip("-N route show proto 179");
    let batch: String = routes
        .lines()
        .filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let unreachable =
                usize::from(words.first() == Some(&"unreachable") || words.first() == Some(&"7"));
            let metric = words.iter().position(|w| *w == "metric").and_then(|at| words.get(at + 1))?;
            (line.starts_with(|c: char| !c.is_whitespace()))
                .then(|| format!("route del {} proto 179 metric {metric}\n", words[unreachable]))
        })
        .collect();
    ip_batch(host, &batch);
}

/// Deletes routelet's routes when its socket has no room for another notification.
fn flood(host: &Ns, pid: u32) {
    let cramped = Cramped::new(host, pid);
    cramped.overrun("far0");
    delete_routes(host);
}

/// Commands of `ip`. What is gone already is no error: routelet may be at it, too.
fn ip_batch(host: &Ns, lines: &str) {
    let mut command = host.command("sh");
    command.args(["-c", "printf %s \"$0\" | ip -force -batch - 2>/dev/null; true", lines]);
    run(&mut command);
}

/// Sleeps until `since` is `lasts` ago.
pub fn wait_out(since: Instant, lasts: Duration) {
    thread::sleep(lasts.saturating_sub(since.elapsed()));
}
