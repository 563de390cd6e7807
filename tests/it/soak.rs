//! Random faults, answers of gateways, thin links, large records, kills and targets that end, for
//! `TAP_STREAMDUO_SOAK_SECONDS`. Without that variable it does not run.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::Value;
use streamduo_sandbox::{Endpoint, Identity, Rule, Samples, Stamps};

use crate::closed_loop::{Chaos, mixed_up};
use crate::dead_letters::{put_aside_identities, with_dead_letter_file};
use crate::gateways::any_answer;
use crate::tap::{EARLY, Run, Running, Tap, written_identity};

/// The number of streams that are read at the same time. Most of the time each waits for a retry.
const STREAMS: usize = 12;

/// The most records that slip in on a thin link.
const SLIP_INS: usize = 3;

#[derive(Default)]
struct Tally {
    streams: AtomicUsize,
    runs: AtomicUsize,
    faults: AtomicUsize,
    kills: AtomicUsize,
    records: AtomicUsize,
    duplicates: AtomicUsize,
}

#[test]
fn nothing_is_lost_in_a_soak() {
    let Some(seconds) = env::var("TAP_STREAMDUO_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok()) else {
        return;
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let seed = env::var("TAP_STREAMDUO_SOAK_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let tally = Tally::default();
    thread::scope(|scope| {
        for stream in 0..STREAMS {
            let tally = &tally;
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed.wrapping_add(stream as u64));
                while Instant::now() < end {
                    match random.u8(..10) {
                        8.. => Soak::behind_gateway(&mut random).run_behind_gateway(&mut random, tally),
                        0..2 => Soak::on_thin_link(&mut random).drain(&mut random, tally),
                        2..4 => run_targets(&mut random, tally),
                        4 => Soak::by_time(&mut random).replay(&mut random, tally),
                        _ => Soak::new(&mut random).run(&mut random, tally),
                    }
                }
            });
        }
    });
    let get = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    writeln!(
        io::stderr(),
        "soak, seed {seed}: {} streams drained in {} runs with {} faults and {} kills; {} records, {} duplicates, none lost",
        get(&tally.streams),
        get(&tally.runs),
        get(&tally.faults),
        get(&tally.kills),
        get(&tally.records),
        get(&tally.duplicates)
    )
    .unwrap();
}

/// Loads a stream by taps that run the target.
fn run_targets(random: &mut Rng, tally: &Tally) {
    // A target that crashes at its eighth record gets a few of them a second.
    let tap = Tap::with_records(random.usize(1..200));
    let tap = if random.bool() { tap } else { with_odd_records(tap, random) };
    let tap = tap
        .set("maxPending", random.usize(1..500))
        .set("maxRetries", random.usize(3..6))
        .set("requestTimeoutSeconds", 2);
    let chaos = Chaos::new(tap);
    let mut chaos = if random.bool() { chaos.by_id() } else { chaos };
    for _ in 0..random.usize(1..8) {
        chaos.run(random);
        tally.runs.fetch_add(1, Ordering::Relaxed);
        tally.faults.fetch_add(2, Ordering::Relaxed);
    }
    let (records, duplicates) = chaos.finish();
    tally.streams.fetch_add(1, Ordering::Relaxed);
    tally.records.fetch_add(records, Ordering::Relaxed);
    tally.duplicates.fetch_add(duplicates, Ordering::Relaxed);
}

/// Has the tap put records aside that no target could load, and adds some to its stream, among
/// others.
fn with_odd_records(tap: Tap, random: &mut Rng) -> Tap {
    for n in 0..random.usize(1..10) {
        tap.sandbox.fill(&tap.stream, random.usize(..100));
        tap.sandbox.write_text(&tap.stream, &format!(r#"{{"recordId":"odd-{n}","readStatus":"false"}}"#));
    }
    with_dead_letter_file(tap)
}

/// Has a request fail.
fn fault(rule: Rule, random: &mut Rng) -> Rule {
    match random.usize(..8) {
        0 => rule.close(),
        1 => rule.cut(),
        2 => rule.cut_chunked(),
        3 => rule.not_json(),
        4 => rule.status(503).header("retry-after", "0"),
        5 => rule.status(429).header("retry-after", "0"),
        6 => rule.hold(),
        _ => rule.revoke_token(),
    }
}

/// A stream, its tap, and what its target has received.
struct Soak {
    tap: Tap,
    commit_mode: bool,
    /// `markBy` is `id`.
    by_id: bool,
    thin_link: bool,
    /// In `commit` and `never` mode the records that the target has committed, else those that the
    /// tap has written.
    delivered: Vec<Identity>,
    state: Option<Value>,
}

impl Soak {
    fn new(random: &mut Rng) -> Soak {
        let commit_mode = random.bool();
        let tap = Tap::with_records(0)
            .set("acknowledge", if commit_mode { "commit" } else { "write" })
            .set("pageSize", random.usize(1..150))
            .set("maxPending", random.usize(10..300))
            .set("maxRetries", random.usize(0..4))
            .set("requestTimeoutSeconds", 2);
        let by_id = random.bool();
        let tap = if by_id { tap.set("markBy", "id") } else { tap };
        let tap = if random.bool() { tap.with_token_from_another_host() } else { tap };
        let tap = if random.bool() { tap } else { with_odd_records(tap, random) };
        tap.sandbox.fill_sized(&tap.stream, random.usize(1..400), random.usize(..3_000));
        let thin_link = random.bool();
        if thin_link {
            tap.sandbox.set_bandwidth(Some(random.u64(30_000..1_000_000)));
        }
        Soak { tap, commit_mode, by_id, thin_link, delivered: Vec::new(), state: None }
    }

    /// A stream whose first page may take up to four times as long as the time-out, and whose
    /// single records never do. Now and then a record slips in behind the first one of a page.
    fn on_thin_link(random: &mut Rng) -> Soak {
        let commit_mode = random.bool();
        let tap = Tap::with_records(0)
            .set("acknowledge", if commit_mode { "commit" } else { "write" })
            .set("maxPending", random.usize(1..300))
            .set("maxRetries", 5)
            .set("requestTimeoutSeconds", 1);
        let record_bytes = random.usize(1_000..10_000);
        tap.sandbox.fill_sized(&tap.stream, random.usize(1..150), record_bytes);
        let records_per_second = random.usize(25..200);
        tap.sandbox.set_bandwidth(Some((record_bytes * records_per_second) as u64));
        for _ in 0..random.usize(..=SLIP_INS) {
            let stream = tap.stream.clone();
            tap.sandbox.script(Rule::on(Endpoint::Mark).call(random.usize(1..8)).before(move |service| {
                service.slip_in(&stream);
            }));
        }
        Soak { tap, commit_mode, by_id: false, thin_link: true, delivered: Vec::new(), state: None }
    }

    /// A stream behind a gateway that applies marks late or twice, or mixes answers up. A mark may
    /// be applied late until twice the time-out, which is long.
    fn behind_gateway(random: &mut Rng) -> Soak {
        let commit_mode = random.bool();
        let tap = Tap::with_records(0)
            .set("acknowledge", if commit_mode { "commit" } else { "write" })
            .set("pageSize", random.usize(2..50))
            .set("maxPending", random.usize(2..300))
            .set("maxRetries", 9);
        // No record without a time stamp: a run may begin with it, and what slips in right behind
        // it is not found.
        tap.sandbox.fill_sized(&tap.stream, random.usize(1..400), random.usize(..1_000));
        Soak { tap, commit_mode, by_id: false, thin_link: false, delivered: Vec::new(), state: None }
    }

    /// Runs the tap several times with such marks, while records slip in, and then without faults
    /// until the stream is drained.
    fn run_behind_gateway(&mut self, random: &mut Rng, tally: &Tally) {
        for _ in 0..random.usize(1..8) {
            let marks = self.tap.sandbox.count(Endpoint::Mark);
            for _ in 0..random.usize(1..4) {
                let rule = Rule::on(Endpoint::Mark).call(marks + random.usize(1..5));
                let stream = self.tap.stream.clone();
                self.tap.sandbox.script(match random.usize(..3) {
                    0 => rule.applied().close().before(move |service| drop(service.slip_in(&stream))),
                    1 => rule.before(move |service| drop(service.slip_in(&stream))),
                    _ => mixed_up(rule, random),
                });
                tally.faults.fetch_add(1, Ordering::Relaxed);
            }
            let (stream, arrivals) = (self.tap.stream.clone(), random.usize(..30));
            let peek = self.tap.sandbox.count(Endpoint::Peek) + random.usize(1..8);
            self.tap.sandbox.script(Rule::on(Endpoint::Peek).call(peek).before(move |service| {
                service.fill(&stream, arrivals);
            }));
            self.run_once(random, false, tally);
            // What is applied after a run is lost.
            self.tap.sandbox.clear_script();
        }
        self.drain_without_faults(random, tally);
    }

    /// A stream that is replayed, with records that share time stamps.
    fn by_time(random: &mut Rng) -> Soak {
        let tap = Tap::with_records(0)
            .set("acknowledge", "never")
            .set("pageSize", random.usize(1..150))
            .set("maxRetries", random.usize(0..4))
            .set("requestTimeoutSeconds", 2);
        let stamps = *random.choice(&[Stamps::Example, Stamps::Mixed, Stamps::Cut]).unwrap();
        let samples = Samples { bytes: random.usize(..3_000), ties: random.usize(1..8), stamps };
        let tap = if random.bool() { tap } else { with_odd_records(tap, random) };
        tap.sandbox.fill_with(&tap.stream, random.usize(1..400), samples);
        Soak { tap, commit_mode: true, thin_link: false, by_id: false, delivered: Vec::new(), state: None }
    }

    /// Replays the stream several times with faults while records arrive, and then without faults
    /// to its end. Nothing is marked.
    fn replay(&mut self, random: &mut Rng, tally: &Tally) {
        for _ in 0..random.usize(1..8) {
            let endpoint = if random.usize(..4) == 0 { Endpoint::Token } else { Endpoint::Since };
            let rule = Rule::on(endpoint).call(self.tap.sandbox.count(endpoint) + random.usize(1..4));
            let (stream, arrivals) = (self.tap.stream.clone(), random.usize(..4));
            let rule = rule.before(move |service| service.fill(&stream, arrivals));
            self.tap.sandbox.script(if random.bool() { any_answer(rule, random) } else { fault(rule, random) });
            tally.faults.fetch_add(1, Ordering::Relaxed);
            self.run_once(random, true, tally);
        }
        // Faults that did not happen yet may still happen.
        while self.run_once(random, false, tally).unwrap().code != 0 {}
        assert_eq!((self.tap.read(), self.tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
        self.finish(tally);
    }

    /// Runs the tap on its thin link without other faults, until the stream is drained. Each run
    /// succeeds and gets on. In `write` mode the first one drains the stream, but for what slips in
    /// at its last mark or is displaced from it.
    fn drain(&mut self, random: &mut Rng, tally: &Tally) {
        while let before @ [_, ..] = &self.tap.unread()[..] {
            let state = self.state.clone();
            let Run { code, stderr, .. } = self.run_once(random, false, tally).unwrap();
            assert_eq!(code, 0, "{stderr}");
            assert!(before != self.tap.unread() || state != self.state, "a run got nowhere:\n{stderr}");
            if !self.commit_mode {
                let unread = self.tap.unread().len();
                assert!(unread <= SLIP_INS, "a run left {unread} records unread:\n{stderr}");
            }
        }
        self.finish(tally);
    }

    /// Runs the tap several times with faults, and then without faults until the stream is drained.
    fn run(&mut self, random: &mut Rng, tally: &Tally) {
        for _ in 0..random.usize(1..8) {
            self.script(random, tally);
            self.run_once(random, true, tally);
        }
        self.tap.sandbox.set_bandwidth(None);
        self.drain_without_faults(random, tally);
    }

    /// Runs the tap until nothing is unread. Faults that did not happen yet may still happen.
    fn drain_without_faults(&mut self, random: &mut Rng, tally: &Tally) {
        let mut last = String::new();
        for _ in 0..500 {
            if self.tap.unread().is_empty() {
                return self.finish(tally);
            }
            last = self.run_once(random, false, tally).unwrap().stderr;
        }
        panic!("the stream is not drained after 500 runs:\n{last}");
    }

    /// Nothing was lost.
    fn finish(&self, tally: &Tally) {
        let delivered: Vec<_> = self.delivered.iter().cloned().chain(put_aside_identities(&self.tap)).collect();
        let distinct: BTreeSet<_> = delivered.iter().collect();
        for record in self.tap.records() {
            assert!(distinct.contains(&record.identity), "{:?} was lost", record.identity);
        }
        tally.streams.fetch_add(1, Ordering::Relaxed);
        tally.records.fetch_add(distinct.len(), Ordering::Relaxed);
        tally.duplicates.fetch_add(delivered.len() - distinct.len(), Ordering::Relaxed);
    }

    /// Scripts a few faults for the next requests. With `markBy` `position`, new records arrive
    /// only before a peek: a record that slips in between peek and mark may be lost with the mark's
    /// answer. None arrive where the link is thin: the tap may peek ahead there, while it marks.
    /// With `id` they arrive at any time.
    fn script(&self, random: &mut Rng, tally: &Tally) {
        let marks = if self.by_id { Endpoint::Single } else { Endpoint::Mark };
        for _ in 0..random.usize(1..4) {
            let endpoint = *random.choice(&[Endpoint::Peek, marks, marks, Endpoint::Token]).unwrap();
            let rule = Rule::on(endpoint).call(self.tap.sandbox.count(endpoint) + random.usize(1..4));
            self.tap.sandbox.script(match random.usize(..9) {
                0 => rule.cap(random.usize(1..50)),
                1..4 => any_answer(rule, random),
                _ if random.bool() => fault(rule.applied(), random),
                _ => fault(rule, random),
            });
            tally.faults.fetch_add(1, Ordering::Relaxed);
        }
        if (self.by_id || !self.thin_link) && random.bool() {
            let stream = self.tap.stream.clone();
            let late = format!("late-{}", random.u64(..));
            let endpoint = if self.by_id && random.bool() { Endpoint::Single } else { Endpoint::Peek };
            let call = self.tap.sandbox.count(endpoint) + random.usize(1..4);
            self.tap.sandbox.script(Rule::on(endpoint).call(call).before(move |service| {
                service.write_as(&stream, &late, EARLY, "1");
            }));
        }
    }

    /// Runs the tap once. With `may_end_early` its target may stop reading, and the tap is then
    /// killed or terminated. Returns how a run ended that was not.
    fn run_once(&mut self, random: &mut Rng, may_end_early: bool, tally: &Tally) -> Option<Run> {
        tally.runs.fetch_add(1, Ordering::Relaxed);
        let mut command = self.tap.command();
        if let Some(state) = &self.state {
            command.arg("--state").arg(self.tap.write_file("state.json", &state.to_string()));
        }
        let mut running = self.tap.start_command(&mut command);
        let ends_after = (may_end_early && random.bool()).then(|| random.usize(..300));
        if ends_after.is_some() {
            tally.kills.fetch_add(1, Ordering::Relaxed);
        }
        self.load(&mut running, ends_after, random);
        // What the pipe still holds has been written. A target that has ended does not commit it.
        let (rest, run) = if ends_after.is_some() {
            running.signal(if random.usize(..3) == 0 { Signal::TERM } else { Signal::KILL });
            (running.remaining_stdout(), None)
        } else {
            let run = running.wait(&self.tap);
            (run.stdout.clone(), Some(run))
        };
        if !self.commit_mode {
            rest.lines().for_each(|line| self.delivered.extend(written_identity(line)));
        }
        let delivered: BTreeSet<_> = self.delivered.iter().cloned().chain(put_aside_identities(&self.tap)).collect();
        for identity in self.tap.read() {
            let log = run.as_ref().map_or("", |run| &run.stderr);
            assert!(delivered.contains(&identity), "{identity:?} is read and was not delivered:\n{log}");
        }
        run
    }

    /// The target: reads at most this many lines, and then commits at random STATEs. Without a
    /// limit it commits at every STATE.
    fn load(&mut self, running: &mut Running, max_lines: Option<usize>, random: &mut Rng) {
        let mut waiting = Vec::new();
        for _ in 0..max_lines.unwrap_or(usize::MAX) {
            let line = running.read_line();
            if line.is_empty() {
                return;
            }
            waiting.extend(written_identity(&line));
            let state = serde_json::from_str::<Value>(&line).ok().filter(|message| message["type"] == "STATE");
            if !self.commit_mode {
                self.delivered.append(&mut waiting);
            } else if let Some(state) = state
                && (max_lines.is_none() || random.bool())
            {
                self.delivered.append(&mut waiting);
                self.state = Some(state["value"].clone());
            }
        }
    }
}
