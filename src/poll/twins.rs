//! Tells records that are equal in everything from a mark that has had no effect yet.
//!
//! A peek may show records again that the last mark was answered to have marked. Either that is old news, and to mark again would
//! hit other records. Or a page ended between records with one id, one time stamp and one payload: the mark hit one copy, and the
//! peek shows the next. Only the service can tell: it is asked for the record by its id, and says how many copies are read. It cannot be
//! asked for a record without an id, so that counts as another copy, but only so often in a row: it may be a record that the service
//! cannot mark.

use anyhow::Result;

use super::Run;
use crate::record::{Page, ShownAgain};

/// How often in a row a record without an id counts as another copy of the one that was marked before. Each time it is put aside again.
const MAX_COPIES: usize = 10;

/// Whether the page shows records that are marked already. Records that are there more than once are forgotten as marked, so that
/// what is shown of them is delivered.
///
/// # Errors
/// When the service keeps failing.
pub fn shows_marked(page: &Page, run: &mut Run) -> Result<bool> {
    let again = run.out.ledger.shown_again(page);
    run.out.ledger.count_copies(page, &again);
    for shown in &again {
        if !are_copies(shown, run)? {
            return Ok(true);
        }
    }
    for shown in again {
        run.out.ledger.forget_marked(shown.record);
    }
    Ok(false)
}

/// Whether the service has as many copies as read as it has answered to be marked, and besides as many as unread as it shows.
fn are_copies(shown: &ShownAgain, run: &mut Run) -> Result<bool> {
    let Some(record_id) = &shown.record_id else {
        return Ok(run.out.ledger.copies_in_a_row(shown.record) <= MAX_COPIES);
    };
    let mut count = shown.marked + shown.shown;
    let mut answered = 0;
    loop {
        let versions = run.queue.versions(record_id, count)?;
        let copies = || versions.records().filter(|version| version.fingerprint == shown.record);
        let read = copies().filter(|copy| copy.is_read).count();
        let unread = copies().count() - read;
        if read >= shown.marked && unread >= shown.shown {
            return Ok(true);
        }
        if versions.is_short() || versions.len() <= answered {
            return Ok(false);
        }
        // Later versions of the id may come first.
        (answered, count) = (versions.len(), count.saturating_mul(2));
    }
}
