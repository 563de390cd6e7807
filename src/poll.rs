//! The loop that keeps the promise: a record is marked as read only after it has been delivered.
//!
//! A mark hits whatever the oldest unread records are at that moment, and its answer may get lost. So the loop remembers
//! who it has written ([`Written`]) until an answer shows that they are marked, or nothing is unread any more; what a
//! mark's answer shows that was never written is written at once; and a mark whose answer is lost is not repeated as such:
//! the next peek tells.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use log::{info, warn};

use crate::api::{Marked, Queue};
use crate::config::{Acknowledge, Config};
use crate::http::HttpError;
use crate::logging::Meter;
use crate::pages::{KNOWN_PAGE, Pages};
use crate::record::{Committed, Covered, Delivered, Fingerprint, Identity, Page, Peeked, Sink, Written};
use crate::retry::{Retry, transient};
use crate::shutdown::{Shutdown, Stopped};
use crate::singer;
use crate::state::StreamState;

/// How many peeks ahead may overtake their marks before they are given up for the run.
const MOST_WASTED: usize = 3;

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
    max_pending: usize,
    pages: Pages,
    /// A page that was peeked while the one before it was marked, and how many records were asked for.
    ahead: Option<(usize, Peeked)>,
    /// How many peeks ahead showed nothing new.
    wasted: usize,
    state: StreamState,
    /// Whether the last message on stdout is the STATE as it is now.
    state_is_told: bool,
    stop: Shutdown,
    meter: Meter,
    /// What this run has written and the service may show again.
    written: Written,
    /// The marks whose answers were lost, until nothing is unread any more.
    lost: Option<Lost>,
    /// Marks in a row that came to nothing although they were answered.
    fruitless: Retry,
}

/// What to remember of marks whose answers were lost: each may be applied, and may still be applied later.
struct Lost {
    /// The oldest record of the page that was marked last.
    first: Identity,
    /// How many records they may mark.
    count: usize,
}

impl<Q: Queue, S: Sink> Poll<Q, S> {
    fn new(config: &Config, queue: Q, out: S, state: StreamState, stop: Shutdown, meter: Meter) -> Poll<Q, S> {
        Poll {
            queue,
            out,
            acknowledge: config.acknowledge,
            max_pending: config.max_pending,
            pages: Pages::up_to(config.page_size),
            ahead: None,
            wasted: 0,
            state,
            state_is_told: false,
            stop,
            meter,
            written: Written::default(),
            lost: None,
            fruitless: Retry::new(config.max_retries),
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
            Err(error) => {
                if let Some(lost) = &self.lost {
                    let since = &lost.first.timestamp;
                    warn!(
                        "the answer to a mark was lost: a record after {since} that slipped in just then may be lost too"
                    );
                }
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn drain_and_follow(&mut self, pause: Option<Duration>) -> Result<()> {
        loop {
            match self.acknowledge {
                Acknowledge::Write => while self.write_then_mark()? {},
                Acknowledge::Read => while self.take()? {},
                Acknowledge::Commit => {
                    if self.mark_committed()? {
                        self.write_windows()?;
                    }
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
        let (asked, page) = match self.ahead.take() {
            Some(ahead) => ahead,
            None => {
                let (asked, page) = self.peek()?;
                self.look_back(&page)?;
                if self.written.is_marked_in(&page) {
                    self.wait_for_fruit(
                        "the service shows records as unread that it has answered to be marked as read",
                    )?;
                    return Ok(true);
                }
                (asked, page)
            }
        };
        let last = self.pages.learn(asked, page.len());
        self.forget_marked(&page, last);
        let (first, count) = (page.first(), page.len());
        let delivered = self.deliver(page)?;
        let Some(first) = first else { return Ok(false) };
        if delivered.count() == 0 {
            // It has overtaken the mark before it.
            self.wasted += 1;
            return Ok(true);
        }
        // Whoever is stopped may have lost its reader: what it wrote last is better written twice than lost.
        self.stop.check()?;
        let next = self.pages.size();
        let (marked, ahead) = if last || self.wasted >= MOST_WASTED || self.lost.is_some() {
            (self.queue.mark(delivered), None)
        } else {
            self.queue.mark_and_peek(delivered, next)
        };
        match marked? {
            Marked::Answered(answer) => {
                self.deliver_marked(&answer, |_| false)?;
                let news = self.written.mark(&answer);
                self.judge_mark(news)?;
                if let Some(lost) = &mut self.lost {
                    lost.first = first;
                }
                match ahead {
                    Some(Ok(page)) => self.ahead = Some((next, page)),
                    Some(Err(error)) if !self.pages.is_proven() && may_be_too_much(&error) => self.pages.shrink(&error),
                    // Whatever is wrong with it: the next peek will tell, and is tried again.
                    Some(Err(_)) | None => {}
                }
                Ok(!last || self.written.unmarked() > 0 || self.lost.is_some())
            }
            // A page that was peeked meanwhile cannot be told from the one whose mark is unknown.
            Marked::Unknown => {
                let before = self.lost.take().map_or(0, |lost| lost.count);
                self.lost = Some(Lost { first, count: before + count });
                Ok(true)
            }
        }
    }

    /// Peeks a page of the size that seems right, and a smaller one if the service cannot serve that. Returns how many records
    /// were asked for.
    fn peek(&mut self) -> Result<(usize, Peeked)> {
        loop {
            let size = self.pages.size();
            if self.pages.is_proven() {
                return Ok((size, self.queue.peek(size)?));
            }
            match self.queue.try_peek(size) {
                Ok(page) => return Ok((size, page)),
                Err(error) if may_be_too_much(&error) => self.pages.shrink(&error),
                // It has nothing to do with the size.
                Err(error) if transient(&error).is_some() => return Ok((size, self.queue.peek(size)?)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes on after an answered mark that told of marked records; one that did not has come to nothing.
    fn judge_mark(&mut self, tells: bool) -> Result<()> {
        if tells {
            self.fruitless.reset();
            return Ok(());
        }
        self.wait_for_fruit("the service has marked no record")
    }

    /// An answered mark has come to nothing: waits before another one, or gives up.
    fn wait_for_fruit(&mut self, problem: &str) -> Result<()> {
        self.fruitless.wait("mark", HttpError::Unreadable(problem.to_owned()).into(), &self.stop)
    }

    /// `read` mode: takes a page that is marked as read as it is read, and writes it. Returns whether there may be more.
    fn take(&mut self) -> Result<bool> {
        self.stop.check()?;
        let size = self.pages.size();
        let page = self.queue.take(size)?;
        let last = self.pages.learn(size, page.len());
        self.deliver_marked(&page, |_| false)?;
        Ok(!last)
    }

    /// `commit` mode: marks the records that the STATE covers, which the target has committed: these and no others. Returns
    /// whether to go on: not as long as a mark is on its way.
    fn mark_committed(&mut self) -> Result<bool> {
        let Some(state) = self.state.take_proof() else { return Ok(true) };
        let count = state.covered().count;
        let mut page = self.queue.peek(count)?;
        let Some(mut committed) = Committed::prove(&page, &state) else {
            info!(
                "the state covers {count} records, but it does not match what is unread now: marking nothing, delivering again"
            );
            self.state.cover(None);
            return Ok(true);
        };
        while let Some(first) = page.first() {
            let Some(delivered) = committed.delivered(page) else { break };
            self.stop.check()?;
            let marked = delivered.count();
            match self.queue.mark(delivered)? {
                Marked::Answered(answer) => {
                    self.deliver_marked(&answer, |record| committed.knows(record))?;
                    self.judge_mark(committed.mark(&answer))?;
                }
                Marked::Unknown => {
                    page = self.queue.peek(committed.len())?;
                    if page.first().as_ref() == Some(&first) {
                        // It may still be applied. It marks what is committed, unless another mark has done that already.
                        info!(
                            "the answer to a mark was lost, and it is not applied yet: the next run marks what is left"
                        );
                        return Ok(false);
                    }
                    self.deliver_read_since(&first, 2 * marked, |record| committed.knows(record))?;
                    continue;
                }
            }
            if committed.is_empty() {
                break;
            }
            page = self.queue.peek(committed.len())?;
        }
        self.state.cover(None);
        Ok(true)
    }

    /// `commit` mode: writes a growing window of unread records, and marks nothing: each STATE says what is out.
    fn write_windows(&mut self) -> Result<()> {
        let mut window = KNOWN_PAGE.min(self.max_pending);
        let mut out = 0;
        loop {
            self.stop.check()?;
            let page = match self.queue.peek(window) {
                Err(error) if out > 0 && refuses_size(&error) => {
                    info!("{out} records are out, the rest follows in the next run: more cannot be shown: {error:#}");
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
                    info!("{out} records are out, and no more are shown: if there are, they follow in the next run");
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
    fn deliver_marked(&mut self, answer: &Page, committed: impl Fn(Fingerprint) -> bool) -> Result<()> {
        self.meter.marked(answer.len());
        let new = self.write_marked(answer, committed)?;
        if new > 0 && self.acknowledge != Acknowledge::Read {
            info!("{new} records slipped in between peek and mark, and were written at once");
        }
        Ok(())
    }

    /// Writes the records of a page that are marked, and neither written nor committed; returns how many. Those that cannot be
    /// written are lost, and named.
    fn write_marked(&mut self, page: &Page, committed: impl Fn(Fingerprint) -> bool) -> Result<usize> {
        let known = |record| self.written.knows(record) || committed(record);
        let new = page
            .write(known, &mut self.out)
            .map_err(|error| self.unwritten_but_marked(error, &page.ids_undelivered(known)))?;
        self.count(new);
        Ok(new)
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
    fn unwritten_but_marked(&self, error: io::Error, ids: &[Cow<'_, str>]) -> anyhow::Error {
        let Some(count) = Some(ids.len()).filter(|count| *count > 0) else { return self.unwritten(error) };
        let named = ids[..count.min(NAMED)].join(", ");
        let more = if count > NAMED { ", …" } else { "" };
        anyhow!(
            "{count} records are marked as read and could not be written to stdout ({error}): recordId {named}{more}"
        )
    }

    /// Forgets records that the service does not hold as unread any more.
    ///
    /// Only the last page shows that: a record that another one does not show may be marked, or may have been pushed behind it
    /// by records that appeared before it. It is remembered as long as that takes no more memory than a few pages.
    fn forget_marked(&mut self, page: &Page, last: bool) {
        if last {
            let marked = self.written.keep_shown(page);
            self.meter.marked(marked);
        } else if self.written.unmarked() > 4 * self.pages.size().max(KNOWN_PAGE) {
            self.written.keep_shown(page);
        }
    }

    /// After marks whose answers were lost: what slipped in when they were applied, or what they hit when they were applied
    /// later than another one, is marked, and nobody has seen it. Looks for it behind the first record of the page that was
    /// marked last, with every further page as long as pages are full.
    ///
    /// It narrows the gap and cannot close it: a record that slipped in before that first one is not found, nor is one that a
    /// mark hits after the run has ended.
    fn look_back(&mut self, page: &Page) -> Result<()> {
        let is_shown = |first: Fingerprint| page.fingerprints().any(|record| record == first);
        let Some(lost) = self.lost.take_if(|lost| !is_shown(lost.first.fingerprint())) else { return Ok(()) };
        self.deliver_read_since(&lost.first, 2 * lost.count, |_| false)?;
        if page.len() >= self.pages.size() {
            self.lost = Some(lost);
        }
        Ok(())
    }

    /// Delivers what the service has as read behind a record and what is neither written nor committed.
    fn deliver_read_since(
        &mut self,
        first: &Identity,
        count: usize,
        committed: impl Fn(Fingerprint) -> bool,
    ) -> Result<()> {
        let page = self.queue.since(&first.timestamp, count);
        let page =
            page.context("the answer to a mark was lost, and a record that slipped in just then may be lost too")?;
        self.write_marked(&page.already_read(), committed)?;
        Ok(())
    }
}

/// Whether the service does not take a request for so many records.
fn refuses_size(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref().and_then(HttpError::status), Some(400 | 413 | 422))
}

/// Whether a request may have failed because it asked for too much.
fn may_be_too_much(error: &anyhow::Error) -> bool {
    refuses_size(error) || error.downcast_ref().is_some_and(HttpError::may_be_served)
}

#[cfg(test)]
mod tests;
