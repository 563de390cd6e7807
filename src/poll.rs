//! The loop that keeps the promise: a record is marked as read only after it has been delivered.
//!
//! A mark hits whatever the oldest unread records are at that moment, and its answer may get lost. So the loop remembers
//! who it has written (`unmarked`) until an answer shows that they are marked, or a peek does not show them any more; what
//! a mark's answer shows that was never written is written at once; and a mark whose answer is lost is not repeated as
//! such: the next peek tells.

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::api::{Marked, Queue};
use crate::config::{Acknowledge, Config};
use crate::logging::Meter;
use crate::record::{Delivered, Identity, Page, Sink};
use crate::shutdown::{Shutdown, Stopped};
use crate::singer::{UNWRITTEN, Writer};

/// The page size that the service is known to serve: the vendor's tap always asked for it. A page that is shorter than
/// this, and than what was asked for, is the last one.
const KNOWN_PAGE: usize = 100;

/// Reads the stream until it is drained or, given a pause to make between polls, until a stop is asked for; and ends
/// with the STATE.
///
/// # Errors
/// When the service or stdout fails; [`Stopped`] when a stop was asked for. No undelivered record is marked as read.
pub fn run<W: Write>(
    config: &Config,
    queue: impl Queue,
    out: Writer<W>,
    state: &Value,
    pause: Option<Duration>,
    stop: &Shutdown,
    meter: Meter,
) -> Result<()> {
    let mut poll = Poll::new(config, queue, out, stop.clone(), meter);
    let end = poll.drain_and_follow(state, pause);
    // A stop is an orderly end too.
    let end = match end {
        Ok(()) => poll.out.state(state),
        Err(error) if error.is::<Stopped>() => poll.out.state(state).and(Err(error)),
        Err(error) => Err(error),
    };
    poll.meter.finish(end.is_ok());
    end
}

/// One run on one stream.
struct Poll<Q, S> {
    queue: Q,
    out: S,
    acknowledge: Acknowledge,
    page_size: usize,
    stop: Shutdown,
    meter: Meter,
    /// Records that this run has written and the service may still hold as unread.
    unmarked: HashSet<Identity>,
    /// The size of the largest page so far: what the service serves at least when there is enough.
    largest_page: usize,
}

impl<Q: Queue, W: Write> Poll<Q, Writer<W>> {
    fn drain_and_follow(&mut self, state: &Value, pause: Option<Duration>) -> Result<()> {
        loop {
            let written = self.drain()?;
            let Some(pause) = pause else { return Ok(()) };
            if written > 0 {
                self.out.state(state)?;
            }
            self.stop.sleep(pause)?;
        }
    }
}

impl<Q: Queue, S: Sink> Poll<Q, S> {
    fn new(config: &Config, queue: Q, out: S, stop: Shutdown, meter: Meter) -> Poll<Q, S> {
        Poll {
            queue,
            out,
            acknowledge: config.acknowledge,
            page_size: config.page_size,
            stop,
            meter,
            unmarked: HashSet::new(),
            largest_page: KNOWN_PAGE,
        }
    }

    /// Reads until the stream is drained; returns how many records were written.
    fn drain(&mut self) -> Result<usize> {
        let mut written = 0;
        loop {
            self.stop.check()?;
            let (page, more) = match self.acknowledge {
                Acknowledge::Write => self.write_then_mark()?,
                Acknowledge::Read => self.take()?,
            };
            written += page;
            if !more {
                return Ok(written);
            }
        }
    }

    /// Peeks a page, delivers it and marks it. Returns how many records were written and whether there may be more.
    fn write_then_mark(&mut self) -> Result<(usize, bool)> {
        let page = self.queue.peek(self.page_size)?;
        let last = self.is_last(&page);
        self.forget_marked(&page, last);
        let delivered = self.deliver(&page)?;
        let mut written = delivered.written();
        self.unmarked.extend(page.identities().cloned());
        if page.is_empty() {
            return Ok((written, false));
        }
        // Whoever is stopped may have lost its reader: what it wrote last is better written twice than lost.
        self.stop.check()?;
        let Marked::Answered(answer) = self.queue.mark(delivered)? else { return Ok((written, true)) };
        self.meter.marked(answer.len());
        // What slipped in between peek and mark is read for the service now, and exists nowhere else.
        written += self.deliver(&answer)?.written();
        for identity in answer.identities() {
            self.unmarked.remove(identity);
        }
        Ok((written, !last || !self.unmarked.is_empty()))
    }

    /// Takes a page that is marked as read as it is read, and writes it.
    fn take(&mut self) -> Result<(usize, bool)> {
        let page = self.queue.take(self.page_size)?;
        self.meter.marked(page.len());
        let more = !self.is_last(&page);
        Ok((self.deliver(&page)?.written(), more))
    }

    fn deliver(&mut self, page: &Page) -> Result<Delivered> {
        let delivered = page.deliver(&self.unmarked, &mut self.out).map_err(explain)?;
        self.meter.wrote(delivered.written());
        Ok(delivered)
    }

    /// Whether nothing was left behind this page: it is shorter than what was asked for, and than what the service is
    /// known to serve, should it cap pages.
    fn is_last(&mut self, page: &Page) -> bool {
        self.largest_page = self.largest_page.max(page.len());
        page.len() < self.page_size.min(self.largest_page)
    }

    /// Forgets records that the service does not hold as unread any more.
    ///
    /// Only the last page shows all that is unread: a record that another one does not show may be marked, or may have
    /// been pushed behind it by records that appeared before it. It is remembered as long as that takes no more memory
    /// than a page or two.
    fn forget_marked(&mut self, page: &Page, last: bool) {
        if last || self.unmarked.len() > 2 * self.largest_page {
            let shown: HashSet<&Identity> = page.identities().collect();
            let before = self.unmarked.len();
            self.unmarked.retain(|identity| shown.contains(identity));
            self.meter.marked(before - self.unmarked.len());
        }
    }
}

/// Says what a failed write means.
fn explain(error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(UNWRITTEN)
}
