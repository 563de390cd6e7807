//! A gateway in front of the service: it carries requests out late or once more, and mixes answers
//! up.

use std::collections::HashMap;

use bytes::Bytes;

use crate::answer::Answer;
use crate::api::Overrides;
use crate::fault::Rule;
use crate::hook::Hook;
use crate::journal::Endpoint;
use crate::route::Request;

/// What the gateway keeps.
#[derive(Default)]
pub(crate) struct Gateway {
    /// The requests that are still to be carried out.
    pub(crate) late: Vec<Late>,
    /// The last answers, of the endpoints that a rule asks for.
    pub(crate) kept: HashMap<Endpoint, Option<Answer>>,
}

/// A request that is carried out after others.
pub(crate) struct Late {
    /// How many others are still to come.
    after: usize,
    pub(crate) between: Option<Hook>,
    pub(crate) request: Request,
    pub(crate) body: Bytes,
    pub(crate) overrides: Overrides,
}

impl Late {
    pub(crate) fn new(after: usize, request: Request, body: Bytes, rule: &Rule) -> Late {
        let overrides = Overrides { dry_run: false, revoke: false, ..rule.overrides() };
        Late { after, between: rule.between.clone(), request, body, overrides }
    }
}

impl Gateway {
    /// Keeps an answer to this endpoint, if a rule asks for it.
    pub(crate) fn keep(&mut self, endpoint: Endpoint, answer: &Answer) {
        if let Some(kept) = self.kept.get_mut(&endpoint) {
            *kept = Some(answer.clone());
        }
    }

    /// The answer to pass on: the last one to another call, if that is asked for and there is one.
    pub(crate) fn pass(&mut self, endpoint: Endpoint, own: Answer, other: Option<Endpoint>) -> Answer {
        let other = other.and_then(|other| self.kept.get(&other).cloned().flatten());
        self.keep(endpoint, &own);
        other.unwrap_or(own)
    }

    /// Counts a request that has been carried out, and takes those that are due now. `late` is that
    /// request itself, if it is to be carried out late or again.
    pub(crate) fn take_due(&mut self, late: Option<Late>) -> Vec<Late> {
        for waiting in &mut self.late {
            waiting.after = waiting.after.saturating_sub(1);
        }
        self.late.extend(late);
        self.late.extract_if(.., |late| late.after == 0).collect()
    }
}
