use super::*;

const ROLES: [Role; 3] = [Role::Leading, Role::Required, Role::Optional];

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn failure(code: Option<u16>) -> Failure {
    Failure { code, text: code.map_or("refused".into(), |code| format!("{code} x")), ..Failure::default() }
}

/// A watch with a clock.
struct Sim {
    watch: WatchState,
    now: Instant,
    reports: Vec<Report>,
}

impl Sim {
    fn new(role: Role) -> Self {
        Self { watch: WatchState::new(role, "things", 7), now: Instant::now(), reports: Vec::new() }
    }

    /// A watch whose list is complete.
    fn listed(role: Role) -> Self {
        let mut sim = Self::new(role);
        for input in [Input::Connected, Input::Started, Input::Listed, Input::Listed, Input::Changed] {
            sim.input(input);
        }
        assert_eq!(sim.take(), [Report::Connected], "{role:?}");
        assert_eq!(sim.watch.step(), Step::Receive { until: None }, "{role:?}");
        sim
    }

    fn input(&mut self, input: Input<'_>) {
        self.reports.extend(self.watch.handle(self.now, input));
    }

    fn fail(&mut self, code: Option<u16>) {
        self.input(Input::Failed(failure(code)));
    }

    fn take(&mut self) -> Vec<Report> {
        mem::take(&mut self.reports)
    }

    /// Advances the clock to the time that the step waits for, and returns how long it was.
    fn wait(&mut self, stale: bool) -> Duration {
        let until = match self.watch.step() {
            Step::Wait { until } | Step::Receive { until: Some(until) } => until,
            step => panic!("{step:?} does not wait"),
        };
        let waited = until - self.now;
        self.now = until;
        self.input(Input::Timeout { stale });
        waited
    }

    /// How many requests the API server gets within this time if each has this result.
    fn requests(&mut self, time: Duration, result: impl Fn(Step) -> Input<'static>) -> usize {
        let (end, mut requests) = (self.now + time, 0);
        while self.now < end {
            match self.watch.step() {
                Step::Wait { .. } => {
                    self.wait(false);
                }
                Step::Connect => self.input(Input::Connected),
                Step::Start { .. } => self.input(Input::Started),
                step @ (Step::Receive { .. } | Step::Probe) => {
                    requests += 1;
                    self.input(result(step));
                }
            }
        }
        requests
    }
}

fn causes(reports: &[Report]) -> Vec<(Cause, bool)> {
    let of = |report: &Report| match report {
        Report::Failed { cause, is_new, .. } => Some((*cause, *is_new)),
        _ => None,
    };
    reports.iter().filter_map(of).collect()
}

#[test]
fn each_error_is_followed_by_its_delay_and_its_next_step() {
    let resume = Step::Receive { until: None };
    let (start, streaming) = (Step::Start { streaming: false }, Step::Start { streaming: true });
    // Role, status code, credentials are stale, minimum delay in ms, next step.
    #[rustfmt::skip]
    let cases = [
        (Role::Leading,  Some(500), false, 100,    resume),
        (Role::Leading,  Some(429), false, 100,    resume),
        (Role::Leading,  Some(403), false, 100,    resume),
        (Role::Leading,  Some(404), false, 100,    resume),
        (Role::Leading,  Some(401), false, 100,    Step::Connect),
        (Role::Leading,  Some(500), true,  100,    Step::Connect),
        (Role::Leading,  None,      false, 100,    Step::Probe),
        (Role::Leading,  None,      true,  100,    Step::Connect),
        (Role::Required, None,      false, 100,    resume),
        (Role::Required, Some(401), false, 100,    Step::Connect),
        (Role::Required, Some(403), false, 100,    resume),
        (Role::Optional, None,      false, 5000,   resume),
        (Role::Optional, Some(500), false, 5000,   resume),
        (Role::Optional, Some(401), false, 5000,   Step::Connect),
        (Role::Optional, Some(403), false, 30_000, start),
        (Role::Optional, Some(404), false, 30_000, start),
        (Role::Optional, Some(404), true,  30_000, Step::Connect),
    ];
    for (role, code, stale, delay, next) in cases {
        let name = format!("{role:?} {code:?} stale {stale}");
        let mut sim = Sim::listed(role);
        sim.fail(code);
        assert!(matches!(sim.watch.step(), Step::Wait { .. }), "{name}");
        let waited = sim.wait(stale).as_millis();
        assert!((delay..delay + 101).contains(&waited), "{name}: {waited} ms");
        match (sim.watch.step(), next) {
            // Until the silence shows that the server is back.
            (Step::Receive { until: Some(until) }, Step::Receive { .. }) => {
                assert_eq!(until, sim.now + CONNECTED_AFTER, "{name}");
            }
            (step, next) => assert_eq!(step, next, "{name}"),
        }
        // A new stream after new credentials.
        if next == Step::Connect {
            sim.input(Input::Connected);
            let expected = if role == Role::Optional { start } else { streaming };
            assert_eq!(sim.watch.step(), expected, "{name}");
        }
    }
}

#[test]
fn an_api_server_that_fails_gets_few_requests_whatever_it_responds() {
    for role in ROLES {
        for code in [None, Some(401), Some(403), Some(404), Some(410), Some(429), Some(500)] {
            for mut sim in [Sim::new(role), Sim::listed(role)] {
                let fail = |step: Step| match step {
                    Step::Probe => Input::NoResponse("no response within 3 s"),
                    _ => Input::Failed(failure(code)),
                };
                let at_first = sim.requests(secs(6), fail);
                assert!(at_first <= 8, "{role:?} {code:?}: {at_first} requests in 6 s");
                let hour = sim.requests(secs(3600), fail);
                assert!((100..=730).contains(&hour), "{role:?} {code:?}: {hour} requests in an hour");
                let logged = causes(&sim.take()).iter().filter(|(_, is_new)| *is_new).count();
                assert!(logged <= 2, "{role:?} {code:?}: {logged} lines of log");
            }
        }
    }
}

#[test]
fn a_watch_that_expires_again_and_again_lists_rarely_and_is_no_outage() {
    for role in ROLES {
        let mut sim = Sim::listed(role);
        let mut delays = Vec::new();
        for _ in 0..8 {
            sim.fail(Some(410));
            delays.push(sim.wait(false));
            let list = Step::Receive { until: Some(sim.now + LIST_TIMEOUT) };
            assert_eq!(sim.watch.step(), list, "{role:?}: the stream lists again");
            sim.input(Input::Listed);
            sim.input(Input::Changed);
        }
        assert!(delays[7] >= secs(5), "a complete list does not restart this back-off: {delays:?}");
        assert!(sim.take().is_empty(), "{role:?}");
    }
}

#[test]
fn the_time_that_the_api_server_requests_is_respected_within_bounds() {
    for (requested, expected) in [(Some(secs(7)), secs(7)), (Some(secs(1 << 40)), MAX_RETRY_AFTER)] {
        let mut sim = Sim::listed(Role::Required);
        let failure = Failure { retry_after: requested, ..failure(Some(429)) };
        sim.input(Input::Failed(failure));
        assert_eq!(sim.wait(false), expected);
    }
}

#[test]
fn a_list_without_progress_is_retried_in_pages() {
    let mut sim = Sim::new(Role::Leading);
    sim.input(Input::Connected);
    assert_eq!(sim.watch.step(), Step::Start { streaming: true });
    sim.input(Input::Started);
    for _ in 0..10 {
        sim.now += LIST_TIMEOUT - secs(1);
        sim.input(Input::Listed);
    }
    assert!(sim.take().is_empty(), "slow, but not silent");
    assert_eq!(sim.wait(false), LIST_TIMEOUT);
    let text = "list of things timed out".to_owned();
    assert_eq!(sim.take(), [Report::Failed { cause: Cause::Unreachable, text, is_new: true }]);
    sim.wait(false);
    assert_eq!(sim.watch.step(), Step::Start { streaming: false });
}

#[test]
fn a_server_without_streaming_lists_is_listed_in_pages_at_once() {
    for code in [400, 422] {
        let mut sim = Sim::new(Role::Required);
        sim.input(Input::Connected);
        sim.input(Input::Started);
        let refused = || Failure { at_start: true, ..failure(Some(code)) };
        sim.input(Input::Failed(refused()));
        assert_eq!(sim.watch.step(), Step::Start { streaming: false });
        assert_eq!(sim.take(), [Report::NoStreaming]);
        // Once: another refusal is an error.
        sim.input(Input::Started);
        sim.input(Input::Failed(refused()));
        assert!(matches!(sim.watch.step(), Step::Wait { .. }), "{code}");
        assert_eq!(causes(&sim.take()), [(Cause::Unreachable, true)]);
    }
}

#[test]
fn the_end_of_an_outage_is_noticed_though_no_object_changes() {
    let mut sim = Sim::listed(Role::Leading);
    sim.fail(None);
    for _ in 0..3 {
        sim.wait(false);
        assert_eq!(sim.watch.step(), Step::Probe);
        sim.input(Input::NoResponse("no response within 3 s"));
    }
    sim.wait(false);
    sim.take();
    sim.input(Input::Responded);
    assert_eq!(sim.take(), [Report::Connected]);
    assert_eq!(sim.watch.step(), Step::Receive { until: None }, "resumed, not listed again");

    // Other watches send no such request: silence after the resumption shows that the server is
    // back.
    let mut sim = Sim::listed(Role::Required);
    sim.fail(Some(500));
    sim.wait(false);
    sim.take();
    assert_eq!(sim.wait(false), CONNECTED_AFTER);
    assert_eq!(sim.take(), [Report::Connected]);
    assert_eq!(sim.watch.step(), Step::Receive { until: None });
}

#[test]
fn each_error_is_logged_once_per_outage_and_a_flood_of_errors_is_bounded() {
    let mut sim = Sim::listed(Role::Leading);
    let lines = |sim: &mut Sim, texts: &[&str]| {
        for text in texts {
            sim.input(Input::Failed(Failure { text: (*text).into(), ..failure(Some(500)) }));
            sim.wait(false);
        }
        causes(&sim.take()).iter().filter(|(_, is_new)| *is_new).count()
    };
    assert_eq!(lines(&mut sim, &["a", "a", "b", "a", "b"]), 2);
    sim.input(Input::Changed);
    assert_eq!(lines(&mut sim, &["a", "a"]), 1, "another outage");
    let many: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert!(lines(&mut sim, &many) <= MAX_LOGGED_ERRORS);
}

#[test]
fn a_kind_is_absent_once_it_was_missing_twice_and_present_once_it_is_listed() {
    let mut sim = Sim::new(Role::Optional);
    sim.input(Input::Connected);
    for expected in [(Cause::Missing, false), (Cause::Absent, true), (Cause::Absent, false)] {
        sim.input(Input::Started);
        sim.fail(Some(404));
        assert_eq!(causes(&sim.take()), [expected]);
        assert_eq!(sim.wait(false), MISSING_KIND_INTERVAL);
    }
    sim.input(Input::Started);
    sim.input(Input::Changed);
    assert_eq!(sim.take(), [Report::Connected]);
    sim.fail(Some(404));
    assert_eq!(causes(&sim.take()), [(Cause::Missing, false)], "an API server that starts");
}

#[test]
fn refused_credentials_and_rights_are_explained() {
    for (code, advice) in
        [(401, "rejects our token"), (403, "allow our ServiceAccount to list and watch things")]
    {
        let mut sim = Sim::listed(Role::Leading);
        sim.fail(Some(code));
        let Some(Report::Failed { text, .. }) = sim.take().pop() else { panic!("{code}") };
        assert!(text.starts_with(&format!("{code} x; ")) && text.contains(advice), "{text}");
    }
}

#[test]
fn another_selection_starts_a_stream_at_once_and_does_not_shorten_a_delay() {
    let mut sim = Sim::listed(Role::Required);
    sim.input(Input::Reselected);
    assert_eq!(sim.watch.step(), Step::Start { streaming: true });
    sim.input(Input::Started);
    sim.input(Input::Changed);
    for _ in 0..8 {
        sim.fail(Some(500));
        let waits = sim.watch.step();
        sim.input(Input::Reselected);
        assert_eq!(sim.watch.step(), waits);
        sim.wait(false);
        assert_eq!(sim.watch.step(), Step::Start { streaming: true });
        sim.input(Input::Started);
    }
}

#[test]
fn missing_credentials_are_read_again_at_intervals() {
    for (role, min) in [(Role::Leading, 100), (Role::Required, 5000), (Role::Optional, 5000)] {
        let mut sim = Sim::new(role);
        assert_eq!(sim.watch.step(), Step::Connect);
        sim.input(Input::NotConnected("/x: no such file"));
        let text = "/x: no such file".to_owned();
        assert_eq!(sim.take(), [Report::Failed { cause: Cause::Unreachable, text, is_new: true }]);
        let waited = sim.wait(false).as_millis();
        assert!((min..=min + 100).contains(&waited), "{role:?}: {waited} ms");
        assert_eq!(sim.watch.step(), Step::Connect);
    }
}

#[test]
fn a_stream_that_ends_is_started_again_after_a_delay() {
    let mut sim = Sim::listed(Role::Required);
    let starts = sim.requests(secs(60), |_| Input::Ended);
    assert!(starts < 20, "{starts} in a minute");
    assert!(causes(&sim.take()).is_empty());
}
