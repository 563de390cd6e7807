//! What may be lost without a warning, when, and why.
//!
//! | what | when | why |
//! |---|---|---|
//! | [`Excused::TooEarly`] | no answer shows what a mark has hit, and that is not later than the page before last, or than the run's first record | a look back begins after it |
//! | [`Excused::Again`] | a mark was answered, or its records are read (by itself, by another mark, or by a second consumer), and it is applied now: of a page without a fence; of any page, if the next one begins with the fence all the same (it hits exactly what has slipped in, or a record equal to the fence comes in), or the run ends before that | all that the tap sees is as it should be |
//! | [`Excused::AfterItsRun`] | a mark is applied after the end of its run | nobody is there to look |
//! | [`Excused::Killed`] | the tap is killed | it cannot say anything |
//! | [`Excused::InPipe`] | a target behind a pipe fails, and gets no more of what was written for it | its end is not seen |
//! | [`Excused::SharedId`] | `markBy: id`, and records share an id | it is for streams whose ids are unique |
//!
//! More records that share a stamp than the service shows at once, records without any time stamp,
//! a stop or a failure before the look back, and records in flight to a target that fails: each
//! needs a warning.

use super::service::{Mark, Record, What};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excused {
    TooEarly,
    Again,
    AfterItsRun,
    Killed,
    InPipe,
    SharedId,
    /// A line says so.
    Warned,
}

/// What the run knows when a mark hits a record.
#[derive(Debug, Default)]
pub struct Watch {
    /// Counts the runs.
    pub run: usize,
    /// The record that the next page has to begin with.
    pub fence: Option<Record>,
    /// The pages that the run was shown.
    pub pages: Vec<Vec<Record>>,
    /// The first time stamp of each of them, but for pages that begin like the one before.
    starts: Vec<String>,
    /// How many of them there were when the last mark was sent.
    marked: usize,
}

impl Watch {
    /// A run begins.
    pub fn begin(&mut self) {
        *self = Watch { run: self.run + 1, ..Watch::default() };
    }

    /// The run is shown a page.
    pub fn show<'a>(&mut self, page: impl Iterator<Item = &'a Record>) {
        let page: Vec<_> = page.cloned().collect();
        self.fence = page.first().cloned();
        let start = page.iter().find(|record| record.shown.stamp()).map(|record| &record.stamp);
        self.starts.extend(start.filter(|start| self.starts.last() != Some(start)).cloned());
        self.pages.push(page);
    }

    /// The run marks a page: it has accepted it, and all that came before.
    pub fn mark<'a>(&mut self, page: impl Iterator<Item = &'a Record>) {
        let page: Vec<_> = page.collect();
        // It was peeked while the page before was marked.
        if !self.pages.last().is_some_and(|last| last.iter().eq(page.iter().copied())) {
            self.show(page.into_iter());
        }
        self.marked = self.starts.len();
    }

    /// Whether no look back finds the record, because it begins after it: where the page before
    /// last began, be the last one the page that was marked last or one that was shown since.
    fn is_too_early(&self, record: &Record) -> bool {
        let begin = |starts: &[String]| starts.get(starts.len().saturating_sub(2)).cloned();
        let begins = [begin(&self.starts[..self.marked]), begin(&self.starts)];
        begins.iter().flatten().any(|begin| record.stamp <= *begin)
    }

    /// Why the tap may lose a record that a mark has hit just now, and that its answer does not
    /// show. `is_shared` says whether others have its id.
    pub fn excuse(&self, record: &Record, mark: &Mark, is_shared: bool) -> Option<Excused> {
        let is_by_id = matches!(mark.what, What::Id(_));
        if mark.run != self.run {
            Some(Excused::AfterItsRun)
        } else if is_by_id && is_shared {
            Some(Excused::SharedId)
        } else if self.is_too_early(record) {
            Some(Excused::TooEarly)
        } else if mark.is_known && (mark.is_unfenced || self.fence.is_none()) {
            Some(Excused::Again)
        } else {
            None
        }
    }

    /// Whether the page after so many others shows nothing of a mark: it begins with the fence, or
    /// the run has ended.
    pub fn shows_nothing(&self, pages: usize, fence: Option<&Record>) -> bool {
        fence.is_none() || self.pages.get(pages).is_none_or(|page| page.first() == fence)
    }
}
