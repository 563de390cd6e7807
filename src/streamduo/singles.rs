//! Requests for single records by their ids, several at once over kept connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};

use anyhow::Result;

use super::Queue;
use super::api::{Api, parse};
use super::request::RecordRequest;
use crate::record::Page;

/// How many requests are sent at once. After as many failures in a row no more are sent.
const AT_ONCE: usize = 8;

/// A request for the last versions of a record.
#[derive(Debug, Clone, Copy)]
pub struct Single<'a> {
    /// `recordId`
    pub record_id: &'a str,
    /// How many versions to return.
    pub count: usize,
    /// Whether they are marked as read.
    pub marks: bool,
}

/// A queue whose records can be read, and marked, by their ids. Such a request can be repeated.
pub trait ById: Queue {
    /// Sends each request once, unless too many fail or a stop is asked for. Returns what became of each; `None` if it was not
    /// sent.
    fn singles(&mut self, requests: &[Single<'_>]) -> Vec<Option<Result<Page>>>;
}

impl ById for Api {
    fn singles(&mut self, requests: &[Single<'_>]) -> Vec<Option<Result<Page>>> {
        let api = &*self;
        let mut answers: Vec<_> = requests.iter().map(|_| None).collect();
        // Before there are threads: each of them would wait for a token that cannot be had.
        if let (Err(error), Some(first)) = (api.tokens.bearer(&api.http), answers.first_mut()) {
            *first = Some(Err(error));
            return answers;
        }
        let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let answers = Mutex::new(answers);
        let send = || {
            // A stop is looked for between two requests. One that is under way is waited for: its answer shows what was marked.
            while failures.load(Ordering::Relaxed) < AT_ONCE && api.stop.check().is_ok() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(index) else { break };
                let answer = api.single(*request);
                match answer {
                    Ok(_) => failures.store(0, Ordering::Relaxed),
                    Err(_) => drop(failures.fetch_add(1, Ordering::Relaxed)),
                }
                answers.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(answer);
            }
        };
        scope(|scope| {
            for _ in 1..AT_ONCE.min(requests.len()) {
                // Ignore the error: without this thread it takes longer.
                let _ = Builder::new().name("single".to_owned()).spawn_scoped(scope, send);
            }
            send();
        });
        answers.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Api {
    fn single(&self, Single { record_id, count, marks }: Single<'_>) -> Result<Page> {
        let request = RecordRequest::single(record_id, count, marks);
        let (answer, token) = self.exchange(request, None)?;
        parse(answer, request).map_err(|error| self.explain_body(error, &token))
    }
}
