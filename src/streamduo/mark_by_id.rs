//! `markBy: id`: marks exactly the records that were delivered, with a request for each of their
//! ids.
//!
//! Such a request can be repeated, so nothing is open after a lost answer, and neither late records
//! nor other consumers shift it. But it reaches only the last version of an id. So as soon as an id
//! shows up twice, or cannot be found, marks go by position for the rest of the run. What an answer
//! shows that was not delivered is part of the returned page, so that the loop delivers it at once.
//!
//! If an answer does not arrive, it may have been a later version that was marked. So that request
//! is repeated before any other mark is sent.

use std::collections::HashSet;

use indexmap::IndexSet;
use log::{debug, warn};

use super::http_error::{Failure, HttpError};
use super::service::Service;
use crate::record::{Delivered, Fingerprint, Fingerprints, Page, Record};

/// What is known of the ids of a stream, and of the marks by them.
#[derive(Debug, Default)]
pub struct MarkById {
    /// Whether marks go by id: `markBy` says so, and all ids were unique so far and could be found.
    is_on: bool,
    /// Whether the oldest record of the last peeked page has an id.
    has_id: bool,
    /// How many records in a row, from that one on, are alike in that.
    alike: usize,
    /// Records whose marks were sent and not answered.
    lost: IndexSet<(String, Fingerprint)>,
    /// Records that the last answers have shown as marked.
    marked: Fingerprints,
}

impl MarkById {
    /// Marks by id if it is on, as long as ids are unique.
    pub fn new(is_on: bool) -> MarkById {
        MarkById { is_on, ..MarkById::default() }
    }

    fn go_on_by_position(&mut self, reason: &str) {
        if self.is_on {
            warn!("{reason}, so records are marked by position from now on (`markBy`)");
        }
        self.is_on = false;
    }

    /// Learns from a page that a peek has shown.
    pub fn learn(&mut self, page: &Page) {
        if !self.is_on {
            return;
        }
        let ids: Vec<_> = page.records().map(|record| record.record_id).collect();
        self.has_id = ids.first().is_none_or(Option::is_some);
        self.alike = ids.iter().take_while(|id| id.is_some() == self.has_id).count();
        let mut seen = HashSet::new();
        if let Some(twice) = ids.iter().flatten().find(|id| !seen.insert(*id)) {
            self.go_on_by_position(&format!("recordId {twice:?} is there more than once"));
        }
        // An equal record, which the id does not reach.
        if page.fingerprints().any(|record| self.marked.contains(&record)) {
            self.go_on_by_position("a record is shown again after it was marked");
        }
    }

    /// Whether the next mark goes by id.
    pub fn is_next(&self) -> bool {
        !self.lost.is_empty() || self.is_on && self.has_id
    }

    /// The most that may be marked at once: a record without an id can only be marked by position,
    /// and alone.
    pub fn max_marked(&self) -> usize {
        if self.is_on { self.alike } else { usize::MAX }
    }

    /// Marks those that were delivered; after lost answers, repeats those marks, and leaves these to
    /// the next page. Returns what the answers show.
    pub fn mark(&mut self, delivered: Delivered, service: &mut dyn Service) -> Result<Page, Failure> {
        let mut records = Vec::from_iter(self.lost.clone());
        if records.is_empty() {
            let page = delivered.into_records();
            let id = |record: Record<'_>| Some((record.record_id?.into_owned(), record.fingerprint));
            records.extend(page.records().filter_map(id));
        }
        let mut pages = Vec::new();
        let mut failure = None;
        for (index, answer) in service.mark_singles(&records) {
            let (record_id, record) = &records[index];
            match answer {
                Err(error) if error.may_have_been_applied() => {
                    debug!("mark recordId {record_id:?}: {error}");
                    self.lost.insert(records[index].clone());
                    failure.get_or_insert_with(|| explain(record_id, error));
                    continue;
                }
                Err(error) if !is_refusal(&error) => {
                    failure.get_or_insert(error);
                    continue;
                }
                Ok(page) if !page.is_empty() => {
                    if !page.fingerprints().eq([*record]) {
                        self.go_on_by_position(&format!("recordId {record_id:?} is there more than once"));
                    }
                    pages.push(page);
                }
                _ => self.go_on_by_position(&format!("the service does not find recordId {record_id:?}")),
            }
            self.lost.shift_remove(&records[index]);
        }
        if let Some(failure) = failure.filter(|_| pages.is_empty()) {
            return Err(failure);
        }
        self.marked = pages.iter().flat_map(Page::fingerprints).collect();
        let texts: Vec<_> = pages.iter().flat_map(Page::texts).collect();
        let answer = [b"[", &texts.join(&b","[..])[..], b"]"].concat();
        Ok(Page::parse(answer.into(), texts.len())?)
    }
}

/// Whether the service refuses to find a record by its id.
fn is_refusal(failure: &Failure) -> bool {
    failure
        .http_error()
        .is_some_and(|error| matches!(error, HttpError::Status { status: 400..500, .. }) && !error.is_transient())
}

/// Says what may be lost with an answer, and what to do.
fn explain(record_id: &str, lost: Failure) -> Failure {
    lost.with_remedy(|error| {
        let setting = match error {
            HttpError::TooLarge(..) => "raise `maxAnswerMegabytes`",
            HttpError::TimedOut { .. } => "raise `requestTimeoutSeconds`",
            _ => "check the network",
        };
        format!(
            "the answer to the mark of recordId {record_id:?} did not arrive, so another version of it may be \
             marked as read and not delivered: {setting}; a replay (`acknowledge` `never`) reads it"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::time::Duration;

    use serde_json::value::RawValue;

    use super::*;
    use crate::record::{Ledger, MessageWriter, Peeked};
    use crate::streamduo::service::MarkedAndPeeked;

    /// A service that shows pages, and answers marks by id with these texts or failures.
    struct Pages {
        shown: VecDeque<String>,
        answers: VecDeque<Result<String, Failure>>,
        asked: Vec<String>,
        by_position: Vec<usize>,
    }

    impl Service for Pages {
        fn peek(&mut self, count: usize) -> Result<Page, Failure> {
            Ok(page(&self.shown.pop_front().unwrap(), count))
        }

        fn mark(&mut self, delivered: Delivered) -> Result<Page, Failure> {
            self.by_position.push(delivered.count());
            Ok(delivered.into_records())
        }

        fn since(&mut self, _: &str, _: usize) -> Result<Page, Failure> {
            unreachable!("nothing is read by time")
        }

        fn mark_and_peek(&mut self, _: Delivered, _: usize, _: Duration) -> MarkedAndPeeked {
            unreachable!("nothing is peeked ahead")
        }

        fn mark_singles(&mut self, records: &[(String, Fingerprint)]) -> Vec<(usize, Result<Page, Failure>)> {
            let mut answers = Vec::new();
            for (index, (record_id, record)) in records.iter().enumerate() {
                let Some(answer) = self.answers.pop_front() else { break };
                self.asked.push(record_id.clone());
                let answer = answer.map(|text| page(&text, 1));
                let goes_on = answer.as_ref().is_ok_and(|page| page.fingerprints().eq([*record]));
                answers.push((index, answer));
                if !goes_on {
                    break;
                }
            }
            answers
        }
    }

    struct Null;

    impl MessageWriter for Null {
        fn record(&mut self, _: &[u8], _: &str) -> io::Result<()> {
            Ok(())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn state(&mut self, _: &RawValue) -> io::Result<()> {
            Ok(())
        }
    }

    /// A page of records such as `a1`: their id and their payload. `-` is one without an id.
    fn page(texts: &str, asked: usize) -> Page {
        let record = |text: &str| match text.split_at(1) {
            ("-", payload) => format!(r#"{{"recordTimeStampISO":"t","dataPayload":{payload}}}"#),
            (id, payload) => format!(r#"{{"recordId":"{id}","recordTimeStampISO":"t","dataPayload":{payload}}}"#),
        };
        let records: Vec<_> = texts.split_whitespace().map(record).collect();
        Page::parse(format!("[{}]", records.join(",")).into(), asked).unwrap()
    }

    fn by_id(shown: &[&str], answers: Vec<Result<&str, Failure>>) -> (MarkById, Pages) {
        let service = Pages {
            shown: shown.iter().map(|&page| page.to_owned()).collect(),
            answers: answers.into_iter().map(|answer| answer.map(str::to_owned)).collect(),
            asked: Vec::new(),
            by_position: Vec::new(),
        };
        (MarkById::new(true), service)
    }

    /// Peeks and marks: how many records the answer shows.
    fn round((by_id, service): &mut (MarkById, Pages)) -> Result<usize, String> {
        let page = service.peek(9).unwrap();
        by_id.learn(&page);
        let delivered = Peeked::with_odd_records(page).deliver(&mut Ledger::default(), &mut Null).unwrap();
        let delivered = delivered.at_most(by_id.max_marked());
        let answer = if by_id.is_next() { by_id.mark(delivered, service) } else { service.mark(delivered) };
        answer.map(|page| page.len()).map_err(|failure| failure.to_string())
    }

    fn too_large() -> Failure {
        HttpError::TooLarge("h".to_owned(), 5).into()
    }

    fn refused() -> Failure {
        let text = String::new();
        HttpError::Status { host: "h".to_owned(), status: 404, retry_after: None, is_page: false, text }.into()
    }

    #[test]
    fn each_record_is_marked_by_its_id() {
        let mut queue = by_id(&["a1 b1"], vec![Ok("a1"), Ok("b1")]);
        assert_eq!(round(&mut queue), Ok(2));
        assert_eq!(
            (queue.0.is_next(), queue.1.asked, queue.1.by_position.len()),
            (true, vec!["a".to_owned(), "b".to_owned()], 0)
        );
    }

    #[test]
    fn an_id_that_shows_up_twice_is_marked_by_position_at_once() {
        let mut queue = by_id(&["a1 b1 a2"], Vec::new());
        assert_eq!(round(&mut queue), Ok(3));
        assert_eq!((queue.0.is_next(), queue.1.by_position), (false, vec![3]));
    }

    #[test]
    fn another_version_in_an_answer_is_returned_and_the_rest_goes_by_position() {
        let mut queue = by_id(&["a1 b1", "a1 b1"], vec![Ok("a2")]);
        assert_eq!(round(&mut queue), Ok(1));
        assert_eq!(round(&mut queue), Ok(2));
        assert_eq!((queue.0.is_next(), queue.1.by_position), (false, vec![2]));
    }

    #[test]
    fn an_id_that_is_not_found_is_marked_by_position() {
        for answer in [Ok(""), Err(refused())] {
            let mut queue = by_id(&["a1", "a1"], vec![answer]);
            assert_eq!(round(&mut queue), Ok(0));
            assert_eq!(round(&mut queue), Ok(1));
            assert_eq!(queue.1.by_position, [1]);
        }
    }

    #[test]
    fn records_without_an_id_are_marked_by_position_while_they_are_the_oldest() {
        let mut queue = by_id(&["-1 -2 b1", "b1 -3"], vec![Ok("b1")]);
        assert_eq!(round(&mut queue), Ok(2));
        assert_eq!(round(&mut queue), Ok(1));
        assert_eq!((queue.1.asked, queue.1.by_position), (vec!["b".to_owned()], vec![2]));
    }

    #[test]
    fn a_mark_whose_answer_does_not_arrive_is_repeated_before_any_other() {
        let pages = ["a1 b1 c1", "b1 c1", "c1"];
        let mut queue = by_id(&pages, vec![Ok("a1"), Err(too_large()), Err(too_large()), Ok("b1")]);
        assert_eq!(round(&mut queue), Ok(1));
        assert_eq!(
            round(&mut queue),
            Err("the answer to the mark of recordId \"b\" did not arrive, so another version of it may be marked as \
                 read and not delivered: raise `maxAnswerMegabytes`; a replay (`acknowledge` `never`) reads it: the \
                 answer of h is larger than 5 bytes"
                .to_owned())
        );
        assert_eq!(round(&mut queue), Ok(1));
        assert_eq!(queue.1.asked.concat(), "abbb");
        assert!(queue.0.lost.is_empty());
    }

    #[test]
    fn a_lost_answer_is_asked_for_even_if_marks_go_by_position_meanwhile() {
        let mut queue = by_id(&["a1 b1", "b1 b2", "b2"], vec![Ok("a1"), Err(too_large()), Ok("b2")]);
        assert_eq!(round(&mut queue), Ok(1));
        assert!(queue.0.is_next());
        assert_eq!(round(&mut queue), Ok(1));
        assert!(!queue.0.is_next());
        assert_eq!(round(&mut queue), Ok(1));
        assert_eq!(queue.1.by_position, [1]);
    }
}
