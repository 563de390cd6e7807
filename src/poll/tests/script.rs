//! What a run of the tap meets.

use bytes::Bytes;

use super::*;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fate {
    pub applied: Applied,
    pub answer: Answer,
}

impl Fate {
    pub const GOOD: Fate = Fate { applied: Applied::Once, answer: Answer::Comes };
}

/// How often and when a mark is applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Applied {
    Once,
    /// After so many further requests. Then it hits what is oldest.
    Late(usize),
    /// Once, and again after so many further requests; 0 for at once.
    Twice(usize),
    /// To no more than so many records.
    InPart(usize),
    Never,
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    Comes,
    /// To a mark: the answer to another one.
    Other,
    /// None, or one that cannot be read.
    Lost,
    /// An error. Below 500 nothing has been applied.
    Status(u16),
    /// The tap is killed while it waits.
    Killed,
    /// The tap is killed before the request has arrived.
    KilledBefore,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub before: Vec<Event>,
    pub fate: Fate,
    /// For a mark: whether the peek that is made meanwhile is served before it.
    pub overtaken: bool,
}

/// What the service and the way to it can carry.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// The service refuses more records, or a longer answer, with this status.
    pub records: usize,
    pub bytes: usize,
    pub refusal: u16,
    /// How long a byte of an answer takes.
    pub pace: Duration,
}

impl Capacity {
    pub const UNLIMITED: Capacity =
        Capacity { records: usize::MAX, bytes: usize::MAX, refusal: 413, pace: Duration::ZERO };

    fn transfer(&self, answer: &Bytes) -> Duration {
        self.pace * u32::try_from(answer.len()).unwrap()
    }

    /// The answer to a request for `asked` records, and how long it takes, if it is not refused and
    /// takes no longer than that.
    pub fn serve(&self, asked: usize, answer: Bytes, timeout: Duration) -> Result<Page, Failure> {
        if asked > self.records || answer.len() > self.bytes {
            return Err(failure(self.refusal));
        }
        let transfer = self.transfer(&answer);
        if transfer >= timeout {
            return Err(HttpError::TimedOut { host: "h".to_owned(), timeout, has_begun: true }.into());
        }
        let mut page = Page::parse(answer, asked).unwrap();
        page.timing.transfer = transfer;
        Ok(page)
    }
}

/// One run of the tap: what becomes of its requests, and of what it writes.
#[derive(Debug, Clone)]
pub struct Script {
    pub calls: Vec<Call>,
    pub capacity: Capacity,
    /// The most records that the service shows and marks in one request.
    pub cap: usize,
    /// stdout breaks after so many records.
    pub stdout_breaks: Option<usize>,
    /// The target commits what came before this STATE, for each STATE; all, if there are no more.
    pub commits: Vec<bool>,
    /// Whether the run goes on when the stream is drained.
    pub follows: bool,
    /// A stop is asked for before this request.
    pub stops_at: Option<usize>,
}

impl Script {
    /// Nothing happens, and the target commits everything.
    pub fn of(capacity: Capacity) -> Script {
        let commits = Vec::new();
        Script {
            calls: Vec::new(),
            capacity,
            cap: usize::MAX,
            stdout_breaks: None,
            commits,
            follows: false,
            stops_at: None,
        }
    }

    /// Each request has this fate, in turn, and this happens before it.
    pub fn of_calls(calls: Vec<(Vec<Event>, Fate)>) -> Script {
        let call = |(before, fate)| Call { before, fate, overtaken: false };
        Script { calls: calls.into_iter().map(call).collect(), ..Script::of(Capacity::UNLIMITED) }
    }

    /// When a stop is asked for. A run that follows ends with one.
    pub fn stop(&self) -> Option<usize> {
        let end = self.follows.then_some(self.calls.len() + 20);
        self.stops_at.or(end)
    }
}
