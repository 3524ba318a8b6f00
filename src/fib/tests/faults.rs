//! Batches that the kernel does not get, executes in part, refuses or does not acknowledge: it ends
//! up with what is wanted, and nothing is left over.

use super::*;

/// What happens to one batch.
#[derive(Clone, Debug)]
enum Fault {
    Nothing,
    /// So many of its messages are executed, and no reply arrives: `send` fails (none of them), or
    /// the acknowledgement is late or lost (all of them).
    NoReply(usize),
    /// Every so many messages one is refused.
    Refused(usize, &'static str),
}

fn fault() -> impl Strategy<Value = Fault> {
    let errno =
        prop::sample::select(vec!["ENOBUFS", "ENOMEM", "EBUSY", "EINTR", "ENETDOWN", "EEXIST", "ESRCH"]);
    prop_oneof![
        3 => Just(Fault::Nothing),
        1 => Just(Fault::NoReply(0)),
        1 => (0_usize..8).prop_map(Fault::NoReply),
        1 => Just(Fault::NoReply(usize::MAX)),
        3 => (1_usize..4, errno).prop_map(|(every, errno)| Fault::Refused(every, errno)),
    ]
}

/// The kernel refuses no deletion with ESRCH while the route is there.
fn is_possible(op: &Op, why: &str) -> bool {
    why != "ESRCH" || !matches!(op, Op::DelRoute { .. } | Op::DelNexthop { .. })
}

impl World {
    /// Writes everything as the task does; returns whether an audit is due.
    fn write_amid(&mut self, faults: &mut impl Iterator<Item = Fault>) -> bool {
        self.fib.finish();
        let mut audit = false;
        for _ in 0..200 {
            let ops = self.fib.take(7);
            if ops.is_empty() {
                return audit;
            }
            audit |= self.batch(&ops, &faults.next().unwrap_or(Fault::Nothing));
        }
        panic!("never done");
    }

    fn batch(&mut self, ops: &[Op], fault: &Fault) -> bool {
        let executed = if let Fault::NoReply(executed) = fault { *executed } else { usize::MAX };
        let mut results = Vec::new();
        for (n, op) in ops.iter().enumerate().take(executed) {
            let target = match op {
                Op::NewRoute { entry, .. } => self.fib.target(*entry),
                _ => None,
            };
            results.push(match fault {
                Fault::Refused(every, why) if n.is_multiple_of(*every) && is_possible(op, why) => Err(*why),
                _ => self.kernel.apply(op, target),
            });
        }
        if let Fault::NoReply(_) = fault {
            self.fib.unacknowledged(ops);
            return true;
        }
        let refused = ops.iter().zip(results).filter_map(|(op, result)| Some((op, result.err()?)));
        refused.fold(false, |audit, (op, why)| {
            let gone = matches!(why, "ENOENT" | "ESRCH");
            self.fib.refused(op, why == "EEXIST", gone, &why.into()) || audit
        })
    }

    /// The audit, with the sweep at its end.
    fn audit_amid(&mut self, faults: &mut impl Iterator<Item = Fault>) -> bool {
        self.fib.host(self.resolver(), Some(&self.kernel.seen()));
        let mut again = self.write_amid(faults);
        self.fib.audit_begin();
        for ((prefix, metric), route) in self.kernel.routes.clone() {
            let (object, content) = self.kernel.content(&route);
            self.fib.audit(prefix, metric, object, content);
        }
        self.fib.audit_end();
        again |= self.write_amid(faults);
        let all = (1..=4u8).map(|i| ([10, 0, i, 2].into(), Phase::Converged)).collect();
        self.fib.converged(Arc::new(Convergence { neighbors: all }), Grace::Usual);
        again | self.write_amid(faults)
    }
}

fn play_amid(settings: Settings, acts: Vec<Act>, faults: Vec<Fault>) {
    let mut world = World::new(settings);
    let mut wanted = BTreeMap::new();
    let mut faults = faults.into_iter();
    let mut audit = false;
    for act in acts {
        match act {
            Act::Want(p, s) => {
                wanted.insert(p, s);
                world.want(p, s);
            }
            Act::WantMany(s) => (0..30).for_each(|p| {
                wanted.insert(p, s);
                world.want(p, s);
            }),
            Act::Carrier(l, up) => {
                let index = usize::from(l % 4);
                world.up[index] = up;
                if !up {
                    world.kernel.lose(u32::from(l % 4) + 1);
                }
                world.fib.host(world.resolver(), Some(&world.kernel.seen()));
                audit |= world.write_amid(&mut faults);
            }
            Act::ExpireIdle => {
                world.fib.expire_idle();
                audit |= world.write_amid(&mut faults);
            }
            // The timers of the task.
            Act::Restart => {
                world.fib.retry();
                audit |= world.write_amid(&mut faults);
                if audit {
                    audit = world.audit_amid(&mut faults);
                }
            }
            _ => audit |= world.write_amid(&mut faults),
        }
    }
    // The faults end: what is due happens, with the audit of each minute.
    let mut none = std::iter::empty();
    audit |= world.write_amid(&mut none);
    for round in 0..10 {
        world.fib.retry();
        audit |= world.write_amid(&mut none);
        world.fib.expire_idle();
        audit |= world.write_amid(&mut none);
        if !audit && round > 1 {
            break;
        }
        audit = world.audit_amid(&mut none);
    }
    assert!(!audit, "an audit is due for ever");
    check_end(&mut world, &wanted, &BTreeMap::new());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn whatever_becomes_of_batches_the_kernel_ends_up_with_what_is_wanted(
        acts in proptest::collection::vec(act(), 0..40),
        faults in proptest::collection::vec(fault(), 0..40),
    ) {
        play_amid(SETTINGS, acts, faults);
    }

    #[test]
    fn with_resilient_groups_too(
        acts in proptest::collection::vec(act(), 0..40),
        faults in proptest::collection::vec(fault(), 0..40),
    ) {
        play_amid(Settings { resilient: true, ..SETTINGS }, acts, faults);
    }

    #[test]
    fn without_objects_too(
        acts in proptest::collection::vec(act(), 0..40),
        faults in proptest::collection::vec(fault(), 0..40),
    ) {
        play_amid(Settings { nexthop_objects: false, ..SETTINGS }, acts, faults);
    }
}

/// The object of a set is refused until all routes have moved to another object.
#[test]
fn an_object_that_comes_when_its_routes_have_gone_is_not_left_over() {
    use Fault::{NoReply, Nothing, Refused};
    let acts = vec![
        Act::Carrier(2, true),
        Act::Write,
        Act::Want(7, 8),
        Act::Want(16, 4),
        Act::WantMany(8),
        Act::Write,
        Act::Carrier(2, true),
        Act::ForeignGone(12),
        Act::Want(7, 0),
        Act::WantMany(5),
        Act::Write,
        Act::Want(9, 13),
        Act::Carrier(0, false),
        Act::Restart,
        Act::Write,
    ];
    let faults = vec![
        Refused(3, "ESRCH"),
        Nothing,
        Nothing,
        NoReply(6),
        Nothing,
        NoReply(usize::MAX),
        Nothing,
        NoReply(0),
        NoReply(0),
        Nothing,
        Refused(3, "EBUSY"),
        NoReply(usize::MAX),
        Refused(2, "EEXIST"),
        NoReply(1),
        NoReply(0),
        Refused(1, "ENETDOWN"),
        Nothing,
        Nothing,
        NoReply(0),
        Refused(3, "EEXIST"),
        Nothing,
        Refused(2, "EINTR"),
        Refused(1, "EBUSY"),
        Refused(1, "EBUSY"),
        Nothing,
        Refused(1, "EINTR"),
        Nothing,
        NoReply(usize::MAX),
        Nothing,
        NoReply(usize::MAX),
        Refused(2, "ESRCH"),
        Refused(2, "EEXIST"),
        Nothing,
        Nothing,
        NoReply(3),
        Nothing,
        Nothing,
        Nothing,
        NoReply(0),
    ];

    // The order of routes in a batch differs from run to run.
    for _ in 0..20 {
        play_amid(Settings { resilient: true, ..SETTINGS }, acts.clone(), faults.clone());
    }
}

/// An object whose change was refused, and whose routes then belong to a set with another object.
#[test]
fn a_refused_object_that_is_no_longer_its_sets_is_not_left_over() {
    use Fault::{NoReply, Nothing, Refused};
    let acts = vec![
        Act::Want(4, 11),
        Act::Carrier(2, false),
        Act::Restart,
        Act::Want(1, 8),
        Act::Want(0, 9),
        Act::Want(3, 1),
        Act::Want(5, 3),
        Act::Carrier(1, false),
        Act::Restart,
        Act::WantMany(3),
        Act::Want(3, 4),
    ];
    let faults = vec![NoReply(0), NoReply(0), Nothing, Nothing, Refused(3, "ENOBUFS"), Nothing];

    for _ in 0..500 {
        play_amid(Settings { resilient: true, ..SETTINGS }, acts.clone(), faults.clone());
    }
}
