//! What the tap says of records that it may have lost.

use std::cell::RefCell;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata};

thread_local! {
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the warnings of each thread.
struct Keeper;

impl Log for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.with_borrow_mut(|warnings| warnings.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Keeps the warnings of this thread from now on.
pub fn keep() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&Keeper).expect("no other test logs");
        log::set_max_level(LevelFilter::Warn);
    });
    WARNINGS.take();
}

/// The warnings since then.
pub fn take() -> Vec<String> {
    WARNINGS.take()
}

/// Whether a line says that records may be lost.
pub fn is_of_loss(line: &str) -> bool {
    // A line about a request that is repeated is not the last word.
    !line.contains("; trying again in ")
        && ["may be lost", "may be marked as read", "marked as read and"].iter().any(|words| line.contains(words))
}
