//! The look back: reads by time what a mark may have hit that nobody has seen yet, and delivers it.
//!
//! It does not find a record at or before the time stamp that it begins after, nor one at a time
//! stamp that more records share than the service shows at once; a line says so.

use anyhow::{Context, Result};
use log::warn;

use super::cursor::Cursor;
use super::run::Run;
use crate::record::{Fingerprint, Fingerprints};

/// How many records may come late while a mark is under way. They are unread, and lie in front of
/// what the mark has hit.
const MAX_LATE: usize = 100;

/// What has marked a record that a look back finds.
const LATE_OR_FOREIGN: &str = "a late mark or somebody else has marked as read";

/// What a look back has found.
#[derive(Debug, Default)]
pub struct Found {
    /// The records that the service shows as read.
    pub read: Fingerprints,
    /// Those that this run had not seen, and that are delivered now.
    pub delivered: Vec<Fingerprint>,
    /// Their ids.
    pub ids: Vec<String>,
}

impl Found {
    /// Adds what was found besides.
    pub fn add(&mut self, more: Found) {
        self.read.extend(more.read);
        self.delivered.extend(more.delivered);
        self.ids.extend(more.ids);
    }
}

/// Reads what comes after a time stamp, and delivers what the service shows as read and this run
/// has not written. Ends with the stream, or behind more unread records in a row than a mark hits
/// (`most_marked`) and may have come late: no mark of this run reaches further.
///
/// A page of a single time stamp is asked for again, with more records, until it shows what comes
/// after that stamp: the next page begins strictly after a stamp.
///
/// # Errors
/// When the service keeps failing, or a record cannot be written.
pub fn look_back(from: &str, page_size: usize, most_marked: usize, found: &mut Found, run: &mut Run) -> Result<()> {
    let mut cursor = Cursor::at(from.to_owned());
    let mut unread = 0;
    let mut incomplete = None;
    loop {
        let page = cursor.read(page_size.max(MAX_LATE), run).context("look back for what a mark may have hit")?;
        let next = cursor.next(&page);
        let count = next.as_ref().map_or(page.len(), |(count, _)| *count);
        unread = page.records().take(count).fold(unread, |unread, record| if record.is_read { 0 } else { unread + 1 });
        let not_read: Fingerprints =
            page.records().filter(|record| !record.is_read).map(|record| record.fingerprint).collect();
        let is_one_stamp = count == page.len();
        let read = page.that_are_read(true);
        let (delivered, ids) = run.out.deliver_marked(&read, LATE_OR_FOREIGN)?;
        // Of records that are equal in everything, some may be read and others not.
        let read = read.fingerprints().filter(|record| !not_read.contains(record)).collect();
        found.add(Found { read, delivered, ids });
        let Some((_, timestamp)) = next else { break };
        if is_one_stamp {
            // A service that has not shown more at one time stamp is not asked ten times at each of
            // them.
            if incomplete.is_none() && cursor.ask_for_more(count) {
                continue;
            }
            incomplete.get_or_insert(timestamp.clone());
        }
        if timestamp == cursor.after() || unread > most_marked + MAX_LATE {
            break;
        }
        cursor = Cursor::at(timestamp);
    }
    if let Some(timestamp) = incomplete {
        warn!(
            "the service does not show all records at {timestamp} at once: one that slipped in there before a \
             mark may be lost"
        );
    }
    Ok(())
}
