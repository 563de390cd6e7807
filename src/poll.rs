//! The loop that keeps the promise: a record is marked as read only after it has been delivered.
//!
//! A mark hits whatever the oldest unread records are at that moment, and its answer may get lost. So the loop remembers
//! who it has written ([`Written`]) until an answer shows that they are marked, or nothing is unread any more; what a
//! mark's answer shows that was never written is written at once; and a mark whose answer is lost is not repeated as such:
//! the next peek tells.

use std::io;
use std::time::Duration;

use anyhow::{Result, anyhow};
use log::{info, warn};

use crate::api::{Marked, Queue};
use crate::config::{Acknowledge, Config};
use crate::http::HttpError;
use crate::logging::Meter;
use crate::record::{Committed, Covered, Delivered, Identity, Page, Peeked, Sink, Written};
use crate::retry::Retry;
use crate::shutdown::{Shutdown, Stopped};
use crate::singer;
use crate::state::StreamState;

/// The page size that the service is known to serve: the vendor's tap always asked for it. A page that is shorter than
/// this, and than what was asked for, is the last one.
const KNOWN_PAGE: usize = 100;

/// How many ids of lost records are named.
const NAMED: usize = 10;

/// Reads the stream until it is drained or, given a pause to make between polls, until a stop is asked for; and ends
/// with the STATE.
///
/// # Errors
/// When the service or stdout fails; [`Stopped`] when a stop was asked for. No undelivered record is marked as read.
pub fn run(
    config: &Config,
    queue: impl Queue,
    out: impl Sink,
    state: StreamState,
    pause: Option<Duration>,
    stop: Shutdown,
    meter: Meter,
) -> Result<()> {
    let mut poll = Poll::new(config, queue, out, state, stop, meter);
    let end = poll.run(pause);
    poll.meter.finish(end.as_ref().err().is_none_or(|error| error.is::<Stopped>()));
    end
}

/// One run on one stream.
struct Poll<Q, S> {
    queue: Q,
    out: S,
    acknowledge: Acknowledge,
    page_size: usize,
    max_pending: usize,
    state: StreamState,
    /// Whether the last message on stdout is the STATE as it is now.
    state_is_told: bool,
    stop: Shutdown,
    meter: Meter,
    /// What this run has written and the service may show again.
    written: Written,
    /// The size of the largest page so far: what the service serves at least when there is enough.
    largest_page: usize,
    /// The page whose mark's answer was lost, until the next peek.
    lost: Option<Lost>,
    /// Peeks in a row that showed as unread what an answer had shown as marked.
    stale: Retry,
}

/// What to remember of a page whose mark's answer was lost.
struct Lost {
    /// Its oldest record: gone from the next peek if the mark was applied.
    first: Identity,
    count: usize,
}

impl<Q: Queue, S: Sink> Poll<Q, S> {
    fn new(config: &Config, queue: Q, out: S, state: StreamState, stop: Shutdown, meter: Meter) -> Poll<Q, S> {
        Poll {
            queue,
            out,
            acknowledge: config.acknowledge,
            page_size: config.page_size,
            max_pending: config.max_pending,
            state,
            state_is_told: false,
            stop,
            meter,
            written: Written::default(),
            largest_page: KNOWN_PAGE,
            lost: None,
            stale: Retry::new(config.max_retries),
        }
    }

    fn run(&mut self, pause: Option<Duration>) -> Result<()> {
        let end = self.drain_and_follow(pause);
        match end {
            // A stop is an orderly end too, but whoever was stopped may have lost its reader.
            Err(error) if error.is::<Stopped>() => {
                let _ = self.tell_state();
                Err(error)
            }
            // Any other error leaves the last STATE that was told.
            end => end,
        }
    }

    fn drain_and_follow(&mut self, pause: Option<Duration>) -> Result<()> {
        loop {
            match self.acknowledge {
                Acknowledge::Write => while self.write_then_mark()? {},
                Acknowledge::Read => while self.take()? {},
                Acknowledge::Commit => {
                    self.mark_committed()?;
                    self.write_windows()?;
                }
            }
            self.tell_state()?;
            match pause {
                None => return Ok(self.stop.check()?),
                Some(pause) => self.stop.sleep(pause)?,
            }
        }
    }

    /// `write` mode: peeks a page, delivers it and marks it. Returns whether there may be more.
    fn write_then_mark(&mut self) -> Result<bool> {
        self.stop.check()?;
        let page = self.queue.peek(self.page_size)?;
        self.look_back(&page)?;
        if self.written.is_marked_in(&page) {
            let stale = "the service shows records as unread that it has answered to be marked as read".to_owned();
            self.stale.wait("peek", HttpError::Unreadable(stale).into(), &self.stop)?;
            return Ok(true);
        }
        self.stale.reset();
        let last = self.is_last(&page);
        self.forget_marked(&page);
        let (first, count) = (page.identities().next().cloned(), page.len());
        let delivered = self.deliver(page)?;
        let Some(first) = first else { return Ok(false) };
        // Whoever is stopped may have lost its reader: what it wrote last is better written twice than lost.
        self.stop.check()?;
        match self.queue.mark(delivered)? {
            Marked::Answered(answer) => {
                self.deliver_marked(&answer, |_| false)?;
                self.written.mark(&answer);
                Ok(!last || self.written.unmarked() > 0)
            }
            Marked::Unknown => {
                self.lost = Some(Lost { first, count });
                Ok(true)
            }
        }
    }

    /// `read` mode: takes a page that is marked as read as it is read, and writes it. Returns whether there may be more.
    fn take(&mut self) -> Result<bool> {
        self.stop.check()?;
        let page = self.queue.take(self.page_size)?;
        let more = !self.is_last(&page);
        self.deliver_marked(&page, |_| false)?;
        Ok(more)
    }

    /// `commit` mode: marks the records that the STATE covers, which the target has committed: these and no others.
    fn mark_committed(&mut self) -> Result<()> {
        let Some(covered) = self.state.covered().cloned() else { return Ok(()) };
        let mut page = self.queue.peek(covered.count)?;
        let Some(mut committed) = Committed::prove(&page, &covered) else {
            info!(
                "the state covers {} records, but it does not match what is unread now: marking nothing, delivering again",
                covered.count
            );
            self.state.cover(None);
            return Ok(());
        };
        while let Some(delivered) = committed.delivered(&page) {
            self.stop.check()?;
            if let Marked::Answered(answer) = self.queue.mark(delivered)? {
                self.deliver_marked(&answer, |identity| committed.knows(identity))?;
                committed.mark(&answer);
            }
            if committed.is_empty() {
                break;
            }
            page = self.queue.peek(committed.len())?;
        }
        self.state.cover(None);
        Ok(())
    }

    /// `commit` mode: writes a growing window of unread records, and marks nothing: each STATE says what is out.
    fn write_windows(&mut self) -> Result<()> {
        let mut window = KNOWN_PAGE.min(self.max_pending);
        let mut out = 0;
        loop {
            self.stop.check()?;
            let page = match self.queue.peek(window) {
                Err(error) if out > 0 && refuses_size(&error) => {
                    info!(
                        "the service refuses to show {window} records: {out} are out, the rest follows in the next run"
                    );
                    return Ok(());
                }
                page => page?,
            };
            let (shown, covered) = (page.len(), Covered::by(&page));
            // Not to be marked before the next run brings the STATE back.
            let _ = self.deliver(page)?;
            self.state.cover(Some(covered));
            self.state_is_told = false;
            self.tell_state()?;
            if shown < window {
                if shown == out && out > 0 {
                    info!("the service shows {out} records at most: if there are more, they follow in the next run");
                }
                return Ok(());
            }
            out = shown;
            if window == self.max_pending {
                info!("{out} records are out (`maxPending`): if there are more, they follow in the next run");
                return Ok(());
            }
            window = self.max_pending.min(2 * window);
        }
    }

    /// Writes the records of a page that a peek has shown and that are not written yet.
    fn deliver(&mut self, page: Peeked) -> Result<Delivered> {
        let delivered = page.deliver(&mut self.written, &mut self.out).map_err(|error| self.unwritten(error))?;
        self.count(delivered.written());
        Ok(delivered)
    }

    /// Writes the records of a mark's answer that are neither written nor committed: what slipped in between peek and mark is
    /// read for the service now, and exists nowhere else.
    fn deliver_marked(&mut self, answer: &Page, committed: impl Fn(&Identity) -> bool) -> Result<()> {
        self.meter.marked(answer.len());
        let known = |identity: &Identity| self.written.knows(identity) || committed(identity);
        match answer.write(known, &mut self.out) {
            Ok(new) => {
                if new > 0 && self.acknowledge != Acknowledge::Read {
                    info!("{new} records slipped in between peek and mark, and were written at once");
                }
                self.count(new);
                Ok(())
            }
            Err(error) => Err(self.unwritten_but_marked(error, &answer.ids_undelivered(known))),
        }
    }

    fn count(&mut self, new: usize) {
        self.meter.wrote(new);
        self.state_is_told &= new == 0;
    }

    fn tell_state(&mut self) -> Result<()> {
        if !self.state_is_told {
            self.out.state(&self.state.value()).map_err(|error| self.unwritten(error))?;
            self.state_is_told = true;
        }
        Ok(())
    }

    /// Says what a failed write means: that of a run that is stopped means nothing, for its target is often stopped too.
    fn unwritten(&self, error: io::Error) -> anyhow::Error {
        match self.stop.check() {
            Ok(()) => singer::unwritten(error),
            Err(stopped) => stopped.into(),
        }
    }

    /// Says what a failed write of records means that are marked already.
    fn unwritten_but_marked(&self, error: io::Error, ids: &[&str]) -> anyhow::Error {
        let Some(count) = Some(ids.len()).filter(|count| *count > 0) else { return self.unwritten(error) };
        let named = ids[..count.min(NAMED)].join(", ");
        let more = if count > NAMED { ", …" } else { "" };
        anyhow!(
            "{count} records are marked as read and could not be written to stdout ({error}): recordId {named}{more}"
        )
    }

    /// Whether nothing was left behind this page: it is shorter than what was asked for, and than what the service is
    /// known to serve, should it cap pages.
    fn is_last(&mut self, page: &Page) -> bool {
        self.largest_page = self.largest_page.max(page.len());
        page.len() < self.page_size.min(self.largest_page)
    }

    /// Forgets records that the service does not hold as unread any more.
    ///
    /// Only an empty page shows that for sure: a record that another one does not show may be marked, or may have been pushed
    /// behind it by records that appeared before it. It is remembered as long as that takes no more memory than two pages.
    fn forget_marked(&mut self, page: &Page) {
        if page.is_empty() {
            let marked = self.written.keep_shown(page);
            self.meter.marked(marked);
        } else if self.written.unmarked() > 2 * self.largest_page {
            self.written.keep_shown(page);
        }
    }

    /// After a mark that was applied and whose answer was lost: a record that had slipped in is marked, and nobody has seen
    /// it. Looks at what the service has as read behind the page's first record, and delivers what this run has not written.
    ///
    /// It narrows the gap and cannot close it: a record that slipped in before that first one is not found.
    fn look_back(&mut self, page: &Page) -> Result<()> {
        let Some(lost) = self.lost.take() else { return Ok(()) };
        if page.identities().any(|identity| *identity == lost.first) {
            return Ok(());
        }
        // As many again as the page held: whoever slipped in is among them unless more did.
        match self.queue.since(&lost.first.timestamp, 2 * lost.count) {
            Ok(page) => {
                let written = &self.written;
                let new = page.already_read().write(|identity| written.knows(identity), &mut self.out);
                let new = new.map_err(|error| self.unwritten(error))?;
                self.count(new);
                Ok(())
            }
            Err(error) if error.is::<Stopped>() => Err(error),
            Err(error) => {
                warn!("cannot look back for records that slipped in: {error:#}");
                Ok(())
            }
        }
    }
}

/// Whether the service does not take a request for so many records.
fn refuses_size(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref().and_then(HttpError::status), Some(400 | 413 | 422))
}

#[cfg(test)]
mod tests;
