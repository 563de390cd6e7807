//! `acknowledge: never`: reads by time, writes what comes after the bookmark, and marks nothing. A plain Singer INCREMENTAL stream.

use anyhow::Result;

use super::by_time::ByTime;
use super::run::{Mode, Run};

/// Writes pages, and after each the STATE that covers it.
#[derive(Debug)]
pub struct NeverMode {
    pub reader: ByTime,
}

impl Mode for NeverMode {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        self.reader.begin()?;
        loop {
            self.reader.write_next(run)?;
            run.out.set_time_bookmark(self.reader.bookmark());
            run.out.write_state()?;
            if self.reader.is_at_end() {
                return Ok(());
            }
        }
    }

    fn left_by_stop(&self, _run: &Run) -> &'static str {
        "nothing is marked as read, and the next run goes on where the state says"
    }
}
