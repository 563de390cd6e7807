//! `acknowledge: never`: reads by time, writes what comes after the bookmark, and marks nothing. A
//! plain Singer INCREMENTAL stream.

use anyhow::Result;

use super::by_time::ByTime;
use super::run::{Mode, Run};

/// Writes pages, and after each the STATE that covers it.
impl Mode for ByTime {
    fn drain(&mut self, run: &mut Run) -> Result<()> {
        self.begin()?;
        loop {
            self.write_next(run)?;
            run.out.state.cover(self.bookmark().covers());
            run.out.write_state()?;
            if self.is_at_end() {
                return Ok(());
            }
        }
    }

    fn left_by_stop(&self, _run: &Run) -> &'static str {
        "nothing is marked as read, and the next run goes on where the state says"
    }
}
