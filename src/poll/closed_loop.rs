//! The tap runs the target: what the target proves to have committed is marked in the same run.
//!
//! A window begins with the oldest unread records. What is unread behind them is read ahead by
//! time, in ordinary pages, so a window may be larger than what one peek shows. Only a peek is the
//! ground for a mark: it shows what has come in late, and what a read by time has not shown. The
//! order and the read status that the service shows by time change only how many windows it takes.
//!
//! After each page the loop writes a STATE. The target prints it once it has committed everything
//! before it. If it does not print it by itself, the loop ends its input: every target then
//! commits, prints its last STATE and ends. If there is more, the target is started again. If it
//! fails, it gets less, until the record is found that makes it fail: see `search`.
//!
//! While a mark whose answer was lost may still be applied, the loop marks nothing until the target
//! has ended. If the service applies both marks then, they hit committed records, or records that
//! nobody has seen: a look back delivers those.

mod search;

use anyhow::Result;
use log::warn;

use super::cursor::Cursor;
use super::look_back::Found;
use super::marker::Marker;
use super::output::{MAX_LOST, MAX_NAMED, named};
use super::run::{Mode, Run};
use super::session::{TargetSession, final_error, log_failure};
use super::target::Target;
use crate::config::Config;
use crate::metrics::{plural, records};
use crate::record::{Batch, Page, Peeked};
use crate::shutdown::Stopped;
use crate::streamduo::queue::Count;

use search::Search;

/// A peek before a mark shows at least so many records: each mark then hits many that are equal.
const MIN_PEEKED: usize = 100;

/// What a window takes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Nothing: all of its records are out already.
    Nothing,
    /// All that are not out yet.
    All,
    /// Not all of them: the window is full.
    Part,
}

/// Loads windows of unread records, and marks them once they are committed.
pub struct ClosedLoop {
    /// `maxPending`
    max_pending: usize,
    /// How many records a target gets at a time that acknowledges at once: `pageSize`, but no more
    /// than `maxPending`.
    page_size: usize,
    session: TargetSession<Batch>,
    /// Whether the service can be read by time, so that a window may be larger than a page.
    reads_ahead: bool,
    /// Whether the last peek has shown that nothing is unread, or the last mark has hit all that
    /// was, and nothing else.
    is_drained: bool,
    /// Whether a target has failed, so that not all that was in flight is committed.
    has_failed: bool,
    marker: Marker,
    /// Whether `deadLetterFile` names a file.
    has_dead_letters: bool,
    search: Search,
    /// The page that shows the record that was tried alone.
    tried: Option<Page>,
    /// How many records were put aside because they make the target fail.
    put_aside: usize,
}

impl ClosedLoop {
    /// Loads into this target.
    pub fn new(config: &Config, marker: Marker, target: Box<dyn Target>) -> ClosedLoop {
        ClosedLoop {
            max_pending: config.max_pending,
            page_size: config.page_size.min(config.max_pending),
            session: TargetSession::new(target, config.target_proof),
            reads_ahead: true,
            is_drained: false,
            has_failed: false,
            marker,
            has_dead_letters: config.dead_letter_file.is_some(),
            search: Search::new(config.dead_letter_file.is_some()),
            tried: None,
            put_aside: 0,
        }
    }

    /// Loads until the stream is drained.
    fn load_all(&mut self, run: &mut Run) -> Result<()> {
        loop {
            self.fill(run)?;
            if self.search.is_on() && !self.session.is_running() {
                self.search.at_end();
            }
            self.settle(run)?;
            if self.is_drained && run.out.ledger.committed() == 0 && !self.search.is_on() {
                return Ok(());
            }
        }
    }

    /// Gives the target what is unread, until all of it is out, the window is full or the target
    /// takes no more.
    fn fill(&mut self, run: &mut Run) -> Result<()> {
        let mut cursor = Cursor::default();
        // It may end at each wait.
        while !self.session.is_running() || self.session.is_open() {
            let start = cursor.clone();
            let (page, has_more) = self.read(&mut cursor, run)?;
            let taken = self.write(&page, run)?;
            let is_search = self.search.is_on();
            let is_alone = self.search.max() == 1 && taken != Taken::Nothing;
            self.tried = is_alone.then_some(page);
            if is_alone {
                return Ok(());
            }
            let is_over = match taken {
                Taken::Part => is_search || !self.session.wait_when_full(&run.stop)?,
                Taken::All | Taken::Nothing => !has_more,
            };
            if is_over {
                return Ok(());
            }
            if taken == Taken::All && !is_search {
                self.session.wait_a_moment(&run.stop)?;
            }
            if taken != Taken::Nothing && !is_search && self.session.is_open() {
                self.mark_committed(run)?;
                if self.session.in_flight().is_empty() {
                    cursor = Cursor::default();
                } else if taken == Taken::Part {
                    cursor = start;
                }
            }
        }
        Ok(())
    }

    /// Reads the next page of a window: the oldest unread records, or, by time, what is unread
    /// behind those that are out. What this does not show is seen by the next peek. Returns also
    /// whether there may be more.
    fn read(&mut self, cursor: &mut Cursor, run: &mut Run) -> Result<(Page, bool)> {
        let max = if self.session.acknowledges_at_once() { self.page_size } else { self.max_pending };
        loop {
            run.stop.check()?;
            // One record alone would leave no fence.
            let count = cursor.count(max.max(2));
            if self.reads_ahead && !cursor.is_at_start() {
                match run.queue.since(cursor.after(), count) {
                    Ok(page) => {
                        let has_more = cursor.advance(&page);
                        let page = page.that_are_read(false);
                        if self.has_dead_letters {
                            return Ok((page, has_more));
                        }
                        // A peek refuses an odd record, once all before it is marked.
                        let shown = page.len();
                        let page = page.before_odd();
                        let is_whole = page.len() == shown;
                        return Ok((page, has_more && is_whole));
                    }
                    Err(error) if error.is::<Stopped>() => return Err(error),
                    Err(error) => warn!("{error:#}; so a target gets no more than one page from now on"),
                }
                self.reads_ahead = false;
            }
            let page = self.peek_and_note(count, run)?;
            let has_more = self.reads_ahead && cursor.advance(&page);
            // If all share a time stamp, there is none to go on behind.
            if !has_more || !cursor.is_at_start() {
                return Ok((page.into_page(), has_more));
            }
        }
    }

    /// How many more records may be out: in flight, or committed and not marked. If none is in
    /// flight, what is committed can be marked only once what comes before it is loaded, so that gets
    /// all the room.
    fn room(&mut self, run: &Run) -> usize {
        let out = if self.session.in_flight().is_empty() { 0 } else { run.out.ledger.waiting() };
        self.search.max().min(self.max_pending).saturating_sub(out)
    }

    /// Writes the records of a page that are not out yet, the STATE that covers them, and waits
    /// until the target takes more. Only the first page of a window is cut: some targets hold back
    /// a STATE that comes right after a round number of records.
    fn write(&mut self, page: &Page, run: &mut Run) -> Result<Taken> {
        self.search.note_shown(page);
        let room = self.room(run);
        let unknown = page.unknown(|record| run.out.ledger.contains(record) || !self.search.wants(record));
        let mut records = Vec::new();
        let mut ids = Vec::new();
        for (record, id) in unknown.take(room + 1) {
            if ids.len() < MAX_NAMED {
                ids.push(id.into_owned());
            }
            records.push(record);
        }
        let is_whole = records.len() <= room;
        records.truncate(room);
        records.shrink_to_fit();
        ids.truncate(room);
        if records.is_empty() || !is_whole && !self.session.in_flight().is_empty() {
            return Ok(if is_whole { Taken::Nothing } else { Taken::Part });
        }
        self.session.target().keep_stderr(self.search.max() == 1);
        let written = run.out.write_some(page, &records)?;
        self.send(Batch { records, ids, written, slipped_in: false }, run)?;
        while self.session.is_taking() {
            if self.session.wait(&run.stop)? && !self.search.is_on() {
                self.mark_committed(run)?;
            }
        }
        Ok(if is_whole { Taken::All } else { Taken::Part })
    }

    /// Peeks, and compares with what is committed.
    fn peek_and_note(&mut self, count: Count, run: &mut Run) -> Result<Peeked> {
        let page = self.peek(count, run)?;
        self.is_drained = page.is_empty();
        run.out.ledger.note_unread(&page);
        Ok(page)
    }

    fn peek(&mut self, count: Count, run: &mut Run) -> Result<Peeked> {
        let page = self.marker.peek(count, run);
        self.take_found(run)?;
        page
    }

    /// Notes what a peek or a mark has shown as read, and covers what it has delivered by a STATE.
    fn take_found(&mut self, run: &mut Run) -> Result<()> {
        let Found { read, delivered: records, ids } = self.marker.take_found();
        let written = records.len();
        let batch = Batch { records, ids, written, slipped_in: true };
        let sent = if written > 0 { self.send(batch, run) } else { Ok(()) };
        run.out.ledger.note_read(read);
        sent
    }

    /// Writes the STATE that covers a batch that was just written.
    fn send(&mut self, batch: Batch, run: &mut Run) -> Result<()> {
        run.out.ledger.send(&batch.records);
        self.session.send(batch, &mut run.out)
    }

    /// Marks what is committed and comes first among the unread records.
    fn mark_committed(&mut self, run: &mut Run) -> Result<()> {
        for batch in self.session.take_proven() {
            self.search.loaded(batch.get());
            run.out.ledger.commit(batch);
        }
        while run.out.ledger.committed() > 0 {
            // One more is the fence.
            let page =
                self.peek(Count::UpTo(run.out.ledger.committed().max(MIN_PEEKED.min(self.max_pending)) + 1), run)?;
            let is_in_flight = self.has_failed || !self.session.in_flight().is_empty();
            if self.marker.may_be_applied() && is_in_flight {
                return Ok(());
            }
            let is_last = page.is_last;
            let Some(delivered) = run.out.ledger.delivered(page) else { return Ok(()) };
            let marked = self.marker.mark(delivered, run);
            self.take_found(run)?;
            self.is_drained = marked? && is_last;
        }
        Ok(())
    }

    /// Ends the target, and marks what it has committed. What slips in meanwhile is loaded as well.
    fn settle(&mut self, run: &mut Run) -> Result<()> {
        let mut failure = Ok(());
        loop {
            let closed = self.session.close(&mut run.out, &run.stop)?;
            let marked = self.mark_committed(run);
            if let Some((problem, left)) = closed
                && let Err(error) = self.judge(problem, left, run)
            {
                log_failure(std::mem::replace(&mut failure, Err(error)));
            }
            if let Err(error) = marked {
                log_failure(failure);
                return Err(error);
            }
            if !self.session.is_running() {
                return failure;
            }
        }
    }

    /// What to add to an error about the records that a target has not committed. They stay unread,
    /// unless a mark has come late or twice.
    fn what_is_left(&mut self, left: &[Batch], run: &mut Run) -> String {
        // The run ends with this failure, whatever else is asked for.
        run.stop.defer();
        let (slipped_in, others): (Vec<_>, Vec<_>) = left.iter().partition(|batch| batch.slipped_in);
        let marked: Vec<_> = slipped_in.iter().flat_map(|batch| &batch.ids).map(String::as_str).collect();
        let first: Vec<_> = others.iter().flat_map(|batch| &batch.ids).collect();
        let unread: usize = others.iter().map(|batch| batch.records.len()).sum();
        let mut text = String::new();
        if unread > 0 && self.are_unread(&others, run) {
            let stay = plural(unread, "stays", "stay");
            text += &format!("; {} that it has not committed {stay} unread", records(unread));
        } else if unread > 0 {
            text += &format!(
                "; {} that it has not committed may be marked as read, by a mark that came late or twice, and can \
                 then be read with `acknowledge` `never`: recordId {}",
                records(unread),
                named(&first, MAX_NAMED, unread)
            );
        }
        if !marked.is_empty() {
            let are = plural(marked.len(), "is", "are");
            text += &format!(
                "; {} that slipped in before a mark {are} marked as read and not committed: recordId {}",
                records(marked.len()),
                named(&marked, MAX_LOST, marked.len())
            );
        }
        text
    }

    /// Whether the service still shows as unread what was in flight, as far as can be told.
    fn are_unread(&mut self, left: &[&Batch], run: &mut Run) -> bool {
        let is_checked = self.peek(Count::AtOnce(1), run).is_ok() && !self.marker.may_be_applied();
        is_checked && left.iter().all(|batch| run.out.ledger.are_unread(&batch.records))
    }
}

impl Mode for ClosedLoop {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        let Err(error) = self.load_all(run) else { return Ok(()) };
        // Whatever has ended the run: the target commits what it has, and that is marked.
        run.stop.defer();
        if self.session.is_running() && !error.is::<Stopped>() {
            warn!("{error:#}; the target still commits what it has");
        }
        let mut end = Ok(());
        loop {
            let settled = self.settle(run);
            self.marker.end_early(run);
            // What that has delivered is loaded and marked as well, and that mark is looked at.
            let found = self.take_found(run);
            let is_over = found.is_err() || !self.session.is_running();
            for result in [settled, found] {
                if end.is_ok() {
                    end = result;
                } else {
                    log_failure(result);
                }
            }
            if is_over {
                return Err(final_error(error, end));
            }
        }
    }

    fn finish(&mut self, _run: &mut Run) -> Result<()> {
        Ok(())
    }

    fn left_by_stop(&self, run: &Run) -> &'static str {
        match (run.out.has_unmarked(), run.out.has_written()) {
            (false, false) => "no record was written",
            (false, true) => "all that was written is committed and marked as read",
            _ if run.out.ledger.committed() == 0 => {
                "what the target has committed is marked as read, and the rest stays unread"
            }
            _ => "what the target has committed last may not be marked as read yet, and comes again",
        }
    }
}
