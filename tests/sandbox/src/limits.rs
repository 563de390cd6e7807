//! Limits: the largest read that the service carries out.

use hyper::StatusCode;

use crate::answer::{Answer, final_status};
use crate::{Sandbox, Service};

/// What a read may ask for and return, and the status that refuses more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    records: Option<(usize, StatusCode)>,
    bytes: Option<(usize, StatusCode)>,
}

impl Limits {
    /// Refuses a read that asks for too many records.
    pub(crate) fn check_records(&self, count: usize) -> Result<(), Answer> {
        check(self.records, count, "records")
    }

    /// Refuses a read whose answer is too long.
    pub(crate) fn check_bytes(&self, length: usize) -> Result<(), Answer> {
        check(self.bytes, length, "bytes")
    }
}

fn check(limit: Option<(usize, StatusCode)>, number: usize, unit: &str) -> Result<(), Answer> {
    match limit {
        Some((max, status)) if number > max => {
            Err(Answer::error(status, &format!("{number} {unit} are too many: the limit is {max}")))
        }
        _ => Ok(()),
    }
}

impl Service {
    /// See [`Sandbox::limit_records`].
    #[track_caller]
    pub fn limit_records(&mut self, max: usize, status: u16) {
        self.limits.records = Some((max, final_status(status)));
    }

    /// See [`Sandbox::limit_bytes`].
    #[track_caller]
    pub fn limit_bytes(&mut self, max: usize, status: u16) {
        self.limits.bytes = Some((max, final_status(status)));
    }

    /// See [`Sandbox::lift_limits`].
    pub fn lift_limits(&mut self) {
        self.limits = Limits::default();
    }
}

impl Sandbox {
    /// Refuses every read that asks for more than `max` records, of any type and whether it marks
    /// or not, with this status. A read that is refused marks nothing. There is no limit by
    /// default.
    ///
    /// # Panics
    /// For a number that is not the status of a final answer.
    #[track_caller]
    pub fn limit_records(&self, max: usize, status: u16) {
        self.service().limit_records(max, status);
    }

    /// Refuses every read whose answer would be longer than `max` bytes with this status. A read
    /// that is refused marks nothing. There is no limit by default.
    ///
    /// # Panics
    /// For a number that is not the status of a final answer.
    #[track_caller]
    pub fn limit_bytes(&self, max: usize, status: u16) {
        self.service().limit_bytes(max, status);
    }

    /// Lifts both limits.
    pub fn lift_limits(&self) {
        self.service().lift_limits();
    }
}
