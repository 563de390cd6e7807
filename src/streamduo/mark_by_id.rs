//! `markBy: id`: marks exactly the records that were delivered, with a request for each of their ids.
//!
//! Such a request can be repeated, so nothing is open after a lost answer, and neither late records nor other consumers shift it.
//! Only where a producer writes an id again does it reach other versions: see [`super::versions`]. Those that it marks unseen are
//! part of the answer, so that the loop delivers them at once.
//!
//! A record without an id can only be marked by its position. That is done once such records are the oldest unread ones, and for them
//! alone.

use anyhow::{Error, Result, anyhow};
use indexmap::IndexMap;
use log::debug;

use super::retry::{Retry, RetryPolicy, retrying};
use super::singles::{ById, Single};
use super::versions::{Versions, reach};
use super::{Count, Marked, Queue};
use crate::record::{Delivered, Fingerprints, Page, Peeked, Record};
use crate::shutdown::{Shutdown, Stopped};

/// How often versions are looked for that are gone by the time they are to be marked, because the producer writes the id again
/// and again. What is left then is shown by the next peek.
const MAX_ROUNDS: usize = 8;

/// A queue that marks by id.
#[derive(Debug)]
pub struct MarkById<Q> {
    queue: Q,
    policy: RetryPolicy,
    stop: Shutdown,
    /// Whether answers show the read status from before the request: one has shown a record as unread that it has marked.
    is_status_before: bool,
    /// Why the last mark has ended early. It had to be answered all the same.
    failure: Option<Error>,
}

/// The versions of each id.
type Ids = IndexMap<String, Versions>;

/// An answer: the index of the request, the records, and whether the request was sent more than once.
type Answer = (usize, Page, bool);

impl<Q: ById> MarkById<Q> {
    /// Marks the records of this queue.
    pub fn new(queue: Q, policy: RetryPolicy, stop: &Shutdown) -> MarkById<Q> {
        MarkById { queue, policy, stop: stop.clone(), is_status_before: false, failure: None }
    }

    /// Marks the delivered versions, wherever they are by now.
    fn mark_delivered(&mut self, ids: &mut Ids) -> Result<()> {
        for _ in 0..MAX_ROUNDS {
            self.mark_chosen(ids)?;
            if !self.choose(ids, Versions::wanted, |_| true)? {
                break;
            }
        }
        Ok(())
    }

    /// Marks more copies of the delivered versions where the requests have hit copies that were read before.
    fn mark_copies(&mut self, ids: &mut Ids, count: usize) -> Result<()> {
        if ids.values().all(|versions| versions.shown_read().is_empty()) {
            return Ok(());
        }
        // Where answers show every record as read, they say nothing: only what is still shown as unread is looked for.
        let unread = if self.is_status_before {
            None
        } else {
            match retrying(self.policy, "peek", &self.stop, || self.queue.peek(Count::AtOnce(count))) {
                Ok(page) => Some(page.fingerprints().collect()),
                Err(error) if error.is::<Stopped>() => return Err(error),
                // Ignore the error: a copy that is left comes with the next peek.
                Err(_) => return Ok(()),
            }
        };
        let left = |versions: &Versions| {
            let mut left = versions.shown_read();
            if let Some(unread) = &unread {
                left.cut_down_to(unread);
            }
            left
        };
        for _ in 0..MAX_ROUNDS {
            if !self.choose(ids, left, |copy| !copy.is_read)? {
                break;
            }
            self.mark_chosen(ids)?;
        }
        Ok(())
    }

    /// Sends the requests that mark.
    fn mark_chosen(&mut self, ids: &mut Ids) -> Result<()> {
        let chosen: Vec<_> = ids.iter().enumerate().filter(|(_, (_, versions))| versions.to_mark > 0).collect();
        let requests: Vec<_> = chosen
            .iter()
            .map(|(_, (record_id, versions))| Single { record_id, count: versions.to_mark, marks: true })
            .collect();
        let indices: Vec<_> = chosen.iter().map(|(index, _)| *index).collect();
        let (answers, end) = self.ask("mark", &requests);
        for (index, page, was_repeated) in answers {
            self.is_status_before |= page.records().any(|record| !record.is_read);
            ids[indices[index]].learn(page, was_repeated);
        }
        end
    }

    /// Looks for the wanted versions of each id, of those that count, and chooses how many of its last versions to mark, so that
    /// they are among them. Returns whether there are any.
    fn choose(
        &mut self,
        ids: &mut Ids,
        wanted: impl Fn(&Versions) -> Fingerprints,
        counts: impl Fn(&Record<'_>) -> bool,
    ) -> Result<bool> {
        let mut found = false;
        let mut open: Vec<_> = ids
            .values()
            .enumerate()
            .map(|(index, versions)| (index, wanted(versions), 1))
            .filter(|(_, wanted, _)| !wanted.is_empty())
            .collect();
        while !open.is_empty() {
            let mut requests = Vec::new();
            for (index, wanted, asked) in &mut open {
                *asked = 2 * wanted.len().max(*asked);
                let record_id = ids.get_index(*index).map_or("", |(record_id, _)| record_id);
                requests.push(Single { record_id, count: *asked, marks: false });
            }
            let (answers, end) = self.ask("look up", &requests);
            end?;
            let mut rest = Vec::new();
            for (index, page, _) in answers {
                let (id, wanted, asked) = &open[index];
                let (reach, is_complete) = reach(&page, wanted, &counts);
                if is_complete || page.len() < *asked {
                    ids[*id].to_mark = reach;
                    found |= reach > 0;
                } else {
                    rest.push((*id, wanted.clone(), *asked));
                }
            }
            open = rest;
        }
        Ok(found)
    }

    /// Sends requests until each is answered. Returns the answers that came, and an error if not all did.
    fn ask(&mut self, what: &str, requests: &[Single<'_>]) -> (Vec<Answer>, Result<()>) {
        let mut answers: Vec<Answer> = Vec::new();
        let mut failures = Retry::new(self.policy);
        // The requests that are not answered, and whether each was sent before.
        let mut open: Vec<_> = (0..requests.len()).map(|index| (index, false)).collect();
        while !open.is_empty() {
            if let Err(stopped) = self.stop.check() {
                return (answers, Err(stopped.into()));
            }
            let batch: Vec<_> = open.iter().map(|(index, _)| requests[*index]).collect();
            let (mut rest, mut failure, answered) = (Vec::new(), None, answers.len());
            for ((index, was_sent), answer) in open.into_iter().zip(self.queue.singles(&batch)) {
                match answer {
                    Some(Ok(page)) => answers.push((index, page, was_sent)),
                    Some(Err(error)) => {
                        debug!("{what}: {error:#}");
                        failure.get_or_insert(error);
                        rest.push((index, true));
                    }
                    None => rest.push((index, was_sent)),
                }
            }
            open = rest;
            if answers.len() > answered {
                failures.reset();
            }
            if let Some(error) = failure
                && let Err(error) = failures.wait(what, error, &self.stop)
            {
                return (answers, Err(as_final(error)));
            }
        }
        (answers, Ok(()))
    }
}

/// Whether a page's first record has an id, and how many records in a row from there are like it in that.
fn first_alike(page: &Page) -> (bool, usize) {
    let has_id = |record: &Record<'_>| record.record_id.is_some();
    let first = page.records().next().is_none_or(|record| has_id(&record));
    (first, page.records().take_while(|record| has_id(record) == first).count())
}

/// The error as a text only, unless it is a stop: no outer queue may take it for transient.
fn as_final(error: Error) -> Error {
    if error.is::<Stopped>() { error } else { anyhow!("{error:#}") }
}

impl<Q: ById> Queue for MarkById<Q> {
    fn peek(&mut self, count: Count) -> Result<Peeked> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => self.queue.peek(count),
        }
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Marked> {
        let (has_ids, alike) = first_alike(delivered.page());
        let delivered = delivered.at_most(alike);
        if !has_ids {
            return self.queue.mark(delivered);
        }
        let page = delivered.into_records();
        let mut ids = Ids::new();
        for record in page.records() {
            let record_id = record.record_id.unwrap_or_default().into_owned();
            ids.entry(record_id).or_default().add(record.fingerprint);
        }
        let end = self.mark_delivered(&mut ids).and_then(|()| self.mark_copies(&mut ids, page.len()));
        let unseen: Vec<_> = ids.values().flat_map(|versions| versions.unseen(self.is_status_before)).collect();
        match end {
            Err(error) if unseen.is_empty() => return Err(error),
            // What was marked unseen has to be delivered first.
            end => self.failure = end.err(),
        }
        let mut marked = Fingerprints::default();
        ids.values().for_each(|versions| marked.fill_up_to(versions.marked()));
        Ok(Marked::Answered(page.select(|record| marked.count(record), &unseen)?))
    }

    fn take(&mut self, count: usize) -> Result<Page> {
        self.queue.take(count)
    }

    fn since(&mut self, timestamp: &str, count: Count) -> Result<Page> {
        self.queue.since(timestamp, count)
    }

    fn versions(&mut self, record_id: &str, count: usize) -> Result<Page> {
        self.queue.versions(record_id, count)
    }
}
