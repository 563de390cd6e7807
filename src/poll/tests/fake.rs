//! The service as one run of the tap meets it, behind a gateway that may do anything with a
//! request.

use std::collections::VecDeque;

use bytes::Bytes;

use super::service::{Mark, What};
use super::*;
use crate::config::MarkBy;
use crate::record::Fingerprint;
use crate::streamduo::service::MarkedAndPeeked;

/// More requests than any run makes that ends.
const MAX_REQUESTS: usize = 20_000;

pub fn failure(status: u16) -> Failure {
    HttpError::Status { host: "h".to_owned(), status, retry_after: None, is_page: false, text: String::new() }.into()
}

pub fn lost_answer() -> Failure {
    HttpError::InvalidBody("the answer was lost".to_owned()).into()
}

fn killed() -> Failure {
    anyhow::anyhow!("killed").into()
}

pub fn text(rows: &[Row]) -> Bytes {
    let texts: Vec<_> = rows.iter().map(|Row { record, read }| record.text(*read)).collect();
    format!("[{}]", texts.join(",")).into()
}

fn records(rows: &[Row]) -> Vec<Record> {
    rows.iter().map(|row| row.record.clone()).collect()
}

pub struct FakeService {
    service: Shared<Service>,
    output: Shared<Output>,
    acknowledge: Acknowledge,
    is_by_id: bool,
    calls: VecDeque<Call>,
    script: Script,
    timeout: Duration,
    failures: Shared<usize>,
    /// Whether the tap is killed: nothing that it sends arrives any more.
    is_killed: Shared<bool>,
    stop: Shutdown,
    requests: usize,
    /// The answers to earlier marks.
    answers: Vec<Vec<Row>>,
}

impl FakeService {
    pub fn new(world: &World, script: &Script, stop: &Shutdown) -> FakeService {
        FakeService {
            service: Rc::clone(&world.service),
            output: Rc::clone(&world.output),
            acknowledge: world.config.acknowledge,
            is_by_id: world.config.mark_by == MarkBy::Id,
            calls: script.calls.iter().cloned().collect(),
            script: script.clone(),
            timeout: world.config.request_timeout,
            failures: Rc::clone(&world.failures),
            is_killed: Rc::clone(&world.is_killed),
            stop: stop.clone(),
            requests: 0,
            answers: Vec::new(),
        }
    }

    fn next(&mut self) -> Fate {
        self.requests += 1;
        assert!(self.requests < MAX_REQUESTS, "a run does not end");
        if self.script.stop() == Some(self.requests) {
            self.stop.request(15);
        }
        if *self.is_killed.borrow() {
            return Fate { answer: Answer::KilledBefore, ..Fate::GOOD };
        }
        let call = self.calls.pop_front();
        let mut service = self.service.borrow_mut();
        call.iter().flat_map(|call| &call.before).for_each(|event| service.happen(event));
        service.tick();
        let fate = call.map_or(Fate::GOOD, |call| call.fate);
        *self.failures.borrow_mut() += usize::from(fate != Fate::GOOD);
        *self.is_killed.borrow_mut() = matches!(fate.answer, Answer::Killed | Answer::KilledBefore);
        fate
    }

    /// A request that marks nothing.
    fn look(&mut self, asked: usize, look: impl Fn(&Service, usize) -> Vec<Row>) -> Result<Page, Failure> {
        match self.next().answer {
            Answer::Comes | Answer::Other => {
                let rows = look(&self.service.borrow(), asked.min(self.script.cap));
                self.script.capacity.serve(asked, text(&rows), self.timeout)
            }
            Answer::Status(status) => Err(failure(status)),
            Answer::Lost => Err(lost_answer()),
            Answer::Killed | Answer::KilledBefore => Err(killed()),
        }
    }

    /// The peek that goes with a mark. Whether the run looks at the page is seen when it marks it.
    fn peek_ahead(&self, count: usize) -> Result<Page, Failure> {
        let rows = self.service.borrow().unread(count.min(self.script.cap));
        self.script.capacity.serve(count, text(&rows), self.timeout)
    }

    /// Applies a mark as often and as late as its fate says.
    fn apply(&mut self, mark: &Mark, applied: Applied, shown: &[Record]) {
        let service = &mut *self.service.borrow_mut();
        match (applied, &mark.what) {
            (Applied::Never, _) => {}
            (Applied::Late(requests), _) => service.apply_late(requests.max(1), mark.clone()),
            (Applied::InPart(part), What::Oldest(count)) => {
                service.apply(&Mark { what: What::Oldest(part.min(*count)), ..mark.clone() }, shown);
            }
            (Applied::Once | Applied::InPart(_), _) => service.apply(mark, shown),
            (Applied::Twice(0), _) => {
                service.apply(mark, shown);
                service.apply(mark, shown);
            }
            (Applied::Twice(requests), _) => {
                service.apply(mark, shown);
                service.apply_late(requests, Mark { is_known: true, ..mark.clone() });
            }
        }
    }

    /// Nothing is to be marked that is not delivered.
    fn check_delivered(&self, delivered: &Delivered) {
        let output = self.output.borrow();
        for record in delivered.page().texts().take(delivered.count()).map(Record::parse) {
            assert!(output.is_delivered(&record, self.acknowledge), "{record:?} is to be marked, and not delivered");
        }
    }

    /// One request that marks the last record with an id.
    fn mark_single(&mut self, record_id: &str) -> Result<Page, Failure> {
        let Fate { applied, answer } = self.next();
        match answer {
            Answer::KilledBefore => return Err(killed()),
            Answer::Status(status) if status < 500 => return Err(failure(status)),
            _ => {}
        }
        let row = self.service.borrow_mut().last_of(record_id).cloned();
        let rows: Vec<_> = match answer {
            Answer::Other if !self.answers.is_empty() => self.answers[0].clone(),
            _ => row.into_iter().collect(),
        };
        let is_seen = matches!(answer, Answer::Comes | Answer::Other);
        let shown = if is_seen { records(&rows) } else { Vec::new() };
        let run = self.service.borrow().watch.run;
        let what = What::Id(record_id.to_owned());
        self.apply(&Mark { run, what, is_known: is_seen, is_unfenced: true }, applied, &shown);
        self.answers.push(rows.clone());
        match answer {
            Answer::Status(status) => Err(failure(status)),
            Answer::Lost => Err(lost_answer()),
            Answer::Killed | Answer::KilledBefore => Err(killed()),
            Answer::Comes | Answer::Other => Ok(Page::parse(text(&rows), 1).unwrap()),
        }
    }
}

impl crate::streamduo::Service for FakeService {
    fn peek(&mut self, count: usize) -> Result<Page, Failure> {
        let page = self.look(count, Service::unread)?;
        let shown: Vec<_> = page.texts().map(Record::parse).collect();
        self.service.borrow_mut().watch.show(shown.iter());
        Ok(page)
    }

    fn mark(&mut self, delivered: Delivered) -> Result<Page, Failure> {
        self.check_delivered(&delivered);
        let page: Vec<_> = delivered.page().texts().map(Record::parse).collect();
        self.service.borrow_mut().watch.mark(page.iter());
        self.service.borrow_mut().expect(page.get(delivered.count()).cloned());
        let Fate { applied, mut answer } = self.next();
        match answer {
            Answer::KilledBefore => return Err(killed()),
            Answer::Status(status) if status < 500 => {
                self.service.borrow_mut().expect(page.first().cloned());
                return Err(failure(status));
            }
            _ => {}
        }
        let count = delivered.count().min(self.script.cap);
        let rows = self.service.borrow().unread(2 * count);
        let (first, second) = rows.split_at(rows.len().min(count));
        // A mark shares the line with others, so its answer takes longer than that of the peek.
        match self.script.capacity.serve(count, text(first), self.timeout / 19 * 10) {
            Err(_) if self.script.capacity.serve(count, text(first), Duration::MAX).is_err() => {
                self.service.borrow_mut().expect(page.first().cloned());
                return Err(failure(self.script.capacity.refusal));
            }
            Err(_) if answer != Answer::Killed => answer = Answer::Lost,
            _ => {}
        }
        let rows = match (answer, applied) {
            (Answer::Other, Applied::Twice(0)) => second.to_vec(),
            (Answer::Other, _) if !self.answers.is_empty() => self.answers[self.answers.len() - 1].clone(),
            (_, Applied::InPart(part)) => first[..first.len().min(part)].to_vec(),
            _ => first.to_vec(),
        };
        let is_seen = matches!(answer, Answer::Comes | Answer::Other);
        let shown = if is_seen { records(&rows) } else { Vec::new() };
        let run = self.service.borrow().watch.run;
        // The tap takes the mark for applied if its records are read, by whomever.
        let is_read = |row: &Row| row.read && page[..delivered.count()].contains(&row.record);
        let is_known = is_seen || self.service.borrow().rows.iter().any(is_read);
        let is_unfenced = self.is_by_id && !page[0].shown.id();
        self.apply(&Mark { run, what: What::Oldest(count), is_known, is_unfenced }, applied, &shown);
        self.answers.push(first.to_vec());
        match answer {
            Answer::Comes | Answer::Other => Ok(delivered.parse_marked(text(&rows)).unwrap()),
            Answer::Status(status) => Err(failure(status)),
            Answer::Killed => Err(killed()),
            _ => {
                *self.failures.borrow_mut() += 1;
                Err(lost_answer())
            }
        }
    }

    fn since(&mut self, timestamp: &str, count: usize) -> Result<Page, Failure> {
        self.look(count, |service, count| service.since(timestamp, count))
    }

    fn mark_and_peek(&mut self, delivered: Delivered, count: usize, _head_start: Duration) -> MarkedAndPeeked {
        let overtaken = self.calls.front().is_some_and(|call| call.overtaken);
        let before = overtaken.then(|| self.peek_ahead(count));
        let marked = self.mark(delivered);
        let ahead = before.unwrap_or_else(|| self.peek_ahead(count));
        (marked, ahead)
    }

    /// Sends no more after an answer that is not exactly the record.
    fn mark_singles(&mut self, records: &[(String, Fingerprint)]) -> Vec<(usize, Result<Page, Failure>)> {
        let mut answers = Vec::new();
        for (index, (record_id, fingerprint)) in records.iter().enumerate() {
            let answer = self.mark_single(record_id);
            let is_other = answer.as_ref().is_ok_and(|page| !page.fingerprints().eq([*fingerprint]));
            answers.push((index, answer));
            if is_other {
                break;
            }
        }
        answers
    }
}
