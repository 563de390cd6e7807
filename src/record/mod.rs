//! What a record is: its [`Fingerprint`], the [`Page`] it comes in, the proof that it was delivered
//! ([`Delivered`]), and what a run remembers of it ([`Ledger`], [`InFlight`]).

mod identity;
mod in_flight;
mod invalid;
mod ledger;
mod members;
mod page;
mod parse;
mod proof;
mod text;

use std::io;

pub use identity::{Fingerprint, Fingerprints};
pub use in_flight::{Checkpoint, InFlight, Proven, Returned, ReturnedCheckpoint};
pub use ledger::Ledger;
pub use members::{Members, Texts};
pub use page::{Page, Timing};
pub use parse::Record;
pub use proof::{Batch, Bookmark, Delivered, Peeked, ReturnedBookmark};
pub use text::on_one_line;

use serde_json::value::RawValue;

#[cfg(test)]
mod tests;

/// Where messages are written.
pub trait MessageWriter {
    /// Writes a RECORD message. The record is JSON text without a line break. `time_extracted` says
    /// when its page arrived (RFC 3339, UTC).
    ///
    /// # Errors
    /// When it cannot be written. What was written since the last flush may be lost.
    fn record(&mut self, json: &[u8], time_extracted: &str) -> io::Result<()>;

    /// Takes a record that has no identity as a dead letter, and the reason. Without anywhere else
    /// to put it, writes it like any other.
    ///
    /// # Errors
    /// As for [`MessageWriter::record`].
    fn dead_letter(&mut self, json: &[u8], _reason: &str, time_extracted: &str) -> io::Result<()> {
        self.record(json, time_extracted)
    }

    /// How many of the records that it has taken are dead letters, because no target could load
    /// them.
    fn dead_letters(&self) -> usize {
        0
    }

    /// Shows a page before the first of its records is written.
    fn look_ahead(&mut self, _page: &Page) {}

    /// How many of the records that it has written have something in `dataPayloadRest`.
    fn with_rest(&self) -> usize {
        0
    }

    /// Hands over everything written so far.
    ///
    /// # Errors
    /// When it cannot be handed over.
    fn flush(&mut self) -> io::Result<()>;

    /// Writes a STATE message, and flushes.
    ///
    /// # Errors
    /// When it cannot be handed over.
    fn state(&mut self, value: &RawValue) -> io::Result<()>;

    /// Ends the input of a target that the tap runs: what is written next goes to a new one.
    /// Otherwise does nothing.
    fn close(&mut self) {}
}
