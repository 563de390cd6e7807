//! The network between the clients and the service: how long a request takes to arrive, and how
//! fast answers come back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::spawn_blocking;
use tokio::time::{Sleep, sleep, sleep_until};

use crate::{Builder, Sandbox};

/// How late a timer may be: they count in milliseconds. Threads sleep more precisely, and only that
/// makes requests overtake each other as a jitter of a few milliseconds does.
const TIMER: Duration = Duration::from_millis(2);

/// How many pieces of a body the line carries in a second, if it is slow enough: 10 ms each.
const PIECES_PER_SECOND: u64 = 100;

/// How much of its time a body may make up for: timers are coarse, and the machine may be busy.
const CATCH_UP: Duration = Duration::from_millis(50);

/// The network of a [`Builder`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) latency: Duration,
    jitter: Duration,
    seed: u64,
    connect: Duration,
    bandwidth: Option<u64>,
}

impl Builder {
    /// Delays every request by a random time from 0 to `jitter`, in addition to the latency. The
    /// default is none. The delay comes before the request is carried out, so a later request on
    /// another connection may overtake an earlier one.
    pub fn jitter(mut self, jitter: Duration) -> Builder {
        self.link.jitter = jitter;
        self
    }

    /// The seed of the jitter. The default is 0: the same requests in the same order get the same
    /// delays.
    pub fn seed(mut self, seed: u64) -> Builder {
        self.link.seed = seed;
        self
    }

    /// Delays the first request on each TCP connection, in addition to the latency, as the
    /// handshakes of TCP and TLS would over a long way. The default is none.
    pub fn connect(mut self, price: Duration) -> Builder {
        self.link.connect = price;
        self
    }

    /// The bytes of answers' bodies that are sent in a second. All connections share them: of two
    /// answers at once, each gets a part. The heads of answers are sent at once. The default is no
    /// limit.
    ///
    /// # Panics
    /// For 0.
    #[track_caller]
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Builder {
        self.link.bandwidth = Some(positive(bytes_per_second));
        self
    }
}

impl Sandbox {
    /// Changes the [`bandwidth`](Builder::bandwidth), also for the rest of the answers on their
    /// way. `None` lifts the limit.
    ///
    /// # Panics
    /// For 0.
    #[track_caller]
    pub fn set_bandwidth(&self, bytes_per_second: Option<u64>) {
        lock(&self.shared.link.line).bytes_per_second = bytes_per_second.map(positive);
    }
}

#[track_caller]
fn positive(bytes_per_second: u64) -> u64 {
    assert!(bytes_per_second >= 1, "no answer would ever arrive");
    bytes_per_second
}

/// The network of a running sandbox.
pub(crate) struct Link {
    settings: Settings,
    random: Mutex<Rng>,
    line: Arc<Mutex<Line>>,
}

impl Link {
    pub(crate) fn new(settings: &Settings) -> Link {
        Link {
            settings: settings.clone(),
            random: Mutex::new(Rng::with_seed(settings.seed)),
            line: Arc::new(Mutex::new(Line { bytes_per_second: settings.bandwidth, free_at: Instant::now() })),
        }
    }

    /// Waits until the next request has arrived.
    pub(crate) async fn travel(&self, first_on_connection: bool) {
        let delay = self.delay(first_on_connection);
        let until = Instant::now() + delay;
        if delay > TIMER {
            sleep(delay - TIMER).await;
        }
        let rest = until.saturating_duration_since(Instant::now());
        if !rest.is_zero() {
            // Ignore the error: the task does not panic, and is not aborted.
            let _ = spawn_blocking(move || thread::sleep(rest)).await;
        }
    }

    /// How long the next request takes to arrive.
    fn delay(&self, first_on_connection: bool) -> Duration {
        let Settings { latency, jitter, connect, .. } = self.settings;
        let jitter = jitter.mul_f64(lock(&self.random).f64());
        latency + jitter + if first_on_connection { connect } else { Duration::ZERO }
    }

    /// The way of one answer's body.
    pub(crate) fn transfer(&self) -> Pace {
        Pace { line: Arc::clone(&self.line), sent_until: None, piece: None }
    }
}

/// The line that all answers share. It carries one piece of a body after the other.
#[derive(Debug)]
struct Line {
    bytes_per_second: Option<u64>,
    /// When it has carried all pieces so far.
    free_at: Instant,
}

impl Line {
    /// Carries the next piece of a body of which `left` bytes, 1 or more, wait from `waiting_since`
    /// on. Returns the length of the piece and when it is over; nothing if there is no limit.
    fn carry(&mut self, left: usize, waiting_since: Instant) -> Option<(usize, Instant)> {
        let rate = self.bytes_per_second?;
        let piece = usize::try_from(rate / PIECES_PER_SECOND).unwrap_or(usize::MAX).clamp(1, left);
        let takes = Duration::from_secs_f64(piece as f64 / rate as f64);
        self.free_at = self.free_at.max(waiting_since) + takes;
        Some((piece, self.free_at))
    }
}

/// Paces the body of one answer.
pub(crate) struct Pace {
    line: Arc<Mutex<Line>>,
    /// When the last piece was over.
    sent_until: Option<Instant>,
    /// The piece that is on the line, and its end.
    piece: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Pace {
    /// Waits until the next piece of the body, of which `left` bytes are left, is over. Returns its
    /// length.
    pub(crate) fn poll_piece(&mut self, left: usize, cx: &mut Context<'_>) -> Poll<usize> {
        if self.piece.is_none() && left > 0 {
            let now = Instant::now();
            let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
            let waiting_since = self.sent_until.map_or(now, |until| until.max(earliest));
            if let Some((length, until)) = lock(&self.line).carry(left, waiting_since) {
                self.sent_until = Some(until);
                self.piece = (until > now).then(|| (length, Box::pin(sleep_until(until.into()))));
                if self.piece.is_none() {
                    return Poll::Ready(length);
                }
            }
        }
        if let Some((length, over)) = &mut self.piece {
            ready!(over.as_mut().poll(cx));
            let length = *length;
            self.piece = None;
            return Poll::Ready(length);
        }
        Poll::Ready(left)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Line, Link, Settings};

    const MS: Duration = Duration::from_millis(1);

    fn line(bytes_per_second: u64) -> (Line, Instant) {
        let now = Instant::now();
        (Line { bytes_per_second: Some(bytes_per_second), free_at: now }, now)
    }

    #[test]
    fn a_request_takes_the_latency_the_jitter_and_on_a_new_connection_its_price() {
        let settings = Settings { latency: 25 * MS, jitter: 5 * MS, connect: 50 * MS, ..Settings::default() };
        let delays = |settings: &Settings| -> Vec<Duration> {
            let link = Link::new(settings);
            (0..200).map(|nth| link.delay(nth == 0)).collect()
        };
        let seen = delays(&settings);
        assert!((75 * MS..80 * MS).contains(&seen[0]), "{seen:?}");
        let (least, most) = (seen[1..].iter().min().unwrap(), seen[1..].iter().max().unwrap());
        assert!(*least >= 25 * MS && *least < 26 * MS && *most <= 30 * MS && *most > 29 * MS, "{seen:?}");
        assert_eq!(delays(&settings), seen, "runs repeat");
        assert_ne!(delays(&Settings { seed: 1, ..settings.clone() }), seen);
        let steady = Settings { jitter: Duration::ZERO, connect: Duration::ZERO, ..settings };
        assert_eq!(delays(&steady), [25 * MS; 200]);
    }

    #[test]
    fn an_answer_takes_its_length_over_the_bandwidth() {
        let (mut line, start) = line(100_000);
        let (mut left, mut until, mut pieces) = (25_500, start, 0);
        while left > 0 {
            let (length, over) = line.carry(left, until).expect("a limit");
            (left, until, pieces) = (left - length, over, pieces + 1);
        }
        assert_eq!((until - start, pieces), (255 * MS, 26));
    }

    #[test]
    fn two_answers_at_once_share_the_line() {
        let (mut line, start) = line(100_000);
        let mut ends = [(start, 3_000), (start, 9_000)];
        // The answer whose last piece is over first sends the next piece first.
        while let Some(next) = ends.iter_mut().filter(|(_, left)| *left > 0).min_by_key(|(until, _)| *until) {
            let (length, over) = line.carry(next.1, next.0).expect("a limit");
            *next = (over, next.1 - length);
        }
        assert_eq!(ends.map(|(until, _)| until - start), [50 * MS, 120 * MS]);
    }

    #[test]
    fn an_idle_line_saves_nothing_up() {
        let (mut line, start) = line(1_000);
        assert_eq!(line.carry(5, start + 70 * MS), Some((5, start + 75 * MS)));
        assert_eq!(line.carry(1, start), Some((1, start + 76 * MS)), "it is busy until 75 ms");
    }

    #[test]
    fn a_line_without_a_limit_carries_all_at_once() {
        let (line, start) = line(1);
        assert_eq!(Line { bytes_per_second: None, ..line }.carry(usize::MAX, start), None);
    }
}
