//! Singer tap for StreamDuo: reads the unread records of a stream and writes them to stdout as Singer messages. The library is
//! the program's inside, and makes no promise to other programs.
//!
//! # The promise
//!
//! **A record is marked as read only after it has been delivered**: written to stdout and flushed, or committed by the target.
//! A crash, a `kill -9` or a lost answer costs duplicates of a page or so. The README lists the cases that the service's own way of
//! marking leaves open. `acknowledge: read` does without the promise, by [`Queue::take`](streamduo::Queue::take).
//!
//! The wrong order does not compile. [`Queue::mark`](streamduo::Queue::mark) takes a [`Delivered`](record::Delivered) by value:
//!
//! ```
//! use tap_streamduo::record::{Ledger, MessageWriter, Peeked};
//! use tap_streamduo::streamduo::{Count, Queue};
//!
//! /// The right order: peek, write and flush, mark.
//! fn right(queue: &mut dyn Queue, ledger: &mut Ledger, out: &mut dyn MessageWriter) -> anyhow::Result<()> {
//!     let page = queue.peek(Count::UpTo(100))?;
//!     let delivered = page.deliver(ledger, out)?;
//!     queue.mark(delivered)?;
//!     Ok(())
//! }
//! ```
//!
//! A page that was only peeked cannot be marked:
//!
//! ```compile_fail,E0308
//! # use tap_streamduo::record::{Ledger, MessageWriter, Peeked};
//! # use tap_streamduo::streamduo::{Count, Queue};
//! fn wrong(queue: &mut dyn Queue, ledger: &mut Ledger, out: &mut dyn MessageWriter) -> anyhow::Result<()> {
//!     let page = queue.peek(Count::UpTo(100))?;
//!     queue.mark(page)?;
//!     Ok(())
//! }
//! ```
//!
//! A page that could not be written gives no proof, so the error cannot be ignored:
//!
//! ```compile_fail,E0308
//! # use tap_streamduo::record::{Ledger, MessageWriter, Peeked};
//! # use tap_streamduo::streamduo::{Count, Queue};
//! fn wrong(queue: &mut dyn Queue, ledger: &mut Ledger, out: &mut dyn MessageWriter) -> anyhow::Result<()> {
//!     let page = queue.peek(Count::UpTo(100))?;
//!     let delivered = page.deliver(ledger, out);
//!     queue.mark(delivered)?;
//!     Ok(())
//! }
//! ```
//!
//! A proof is used once:
//!
//! ```compile_fail,E0382
//! # use tap_streamduo::record::{Ledger, MessageWriter, Peeked};
//! # use tap_streamduo::streamduo::{Count, Queue};
//! fn wrong(queue: &mut dyn Queue, ledger: &mut Ledger, out: &mut dyn MessageWriter) -> anyhow::Result<()> {
//!     let page = queue.peek(Count::UpTo(100))?;
//!     let delivered = page.deliver(ledger, out)?;
//!     queue.mark(delivered)?;
//!     queue.mark(delivered)?;
//!     Ok(())
//! }
//! ```
//!
//! It cannot be copied. `Copied` stands for [`Delivered`](record::Delivered): the first one compiles, the second does not.
//!
//! ```
//! # use tap_streamduo::record::Identity as Copied;
//! fn twice(proof: Copied) -> (Copied, Copied) {
//!     (proof.clone(), proof)
//! }
//! ```
//!
//! ```compile_fail,E0599
//! # use tap_streamduo::record::Delivered as Copied;
//! fn twice(proof: Copied) -> (Copied, Copied) {
//!     (proof.clone(), proof)
//! }
//! ```
//!
//! It cannot be made by hand. The fields can be read, by name, and not written:
//!
//! ```
//! # use tap_streamduo::record::{Delivered, Page};
//! fn read(delivered: &Delivered) -> (&Page, usize, usize) {
//!     (delivered.page(), delivered.count(), delivered.written())
//! }
//! ```
//!
//! ```compile_fail,E0451
//! # use tap_streamduo::record::{Delivered, Page};
//! fn wrong(page: Page) -> Delivered {
//!     Delivered { page, count: 100, written: 100 }
//! }
//! ```
//!
//! Only a STATE that came back proves what the target has committed, never what the page itself shows:
//!
//! ```
//! # use tap_streamduo::record::{Bookmark, Committed, Peeked, ReturnedBookmark};
//! fn right(page: &Peeked, returned: &ReturnedBookmark) -> Option<Committed> {
//!     Committed::prove(page, returned)
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use tap_streamduo::record::{Bookmark, Committed, Peeked, ReturnedBookmark};
//! fn wrong(page: &Peeked) -> Option<Committed> {
//!     Committed::prove(page, &Bookmark::of(page))
//! }
//! ```
//!
//! ```compile_fail,E0423
//! # use tap_streamduo::record::{Bookmark, Committed, Peeked, ReturnedBookmark};
//! fn wrong(page: &Peeked) -> Option<Committed> {
//!     Committed::prove(page, &ReturnedBookmark(Bookmark::of(page)))
//! }
//! ```
//!
//! Where the tap runs the target, only a STATE that the target has printed proves anything, or its good exit, never the STATE that
//! was written to it:
//!
//! ```
//! # use tap_streamduo::record::{Committed, InFlight, ReturnedCheckpoint};
//! fn right(in_flight: &mut InFlight, printed: &ReturnedCheckpoint, committed: &mut Committed) -> bool {
//!     in_flight.acknowledge(printed, committed)
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use tap_streamduo::record::{Committed, InFlight};
//! fn wrong(in_flight: &mut InFlight, committed: &mut Committed) -> bool {
//!     let written = in_flight.add(Vec::new(), Vec::new());
//!     in_flight.acknowledge(&written, committed)
//! }
//! ```
//!
//! ```
//! # use std::process::ExitStatus;
//! # use tap_streamduo::record::{Committed, GoodExit, InFlight};
//! fn right(in_flight: &mut InFlight, status: ExitStatus, has_read_all: bool, committed: &mut Committed) {
//!     if let Some(exit) = GoodExit::of(status, has_read_all) {
//!         in_flight.acknowledge_all(exit, committed);
//!     }
//! }
//! ```
//!
//! ```compile_fail,E0423
//! # use tap_streamduo::record::{Committed, GoodExit, InFlight};
//! fn wrong(in_flight: &mut InFlight, committed: &mut Committed) {
//!     in_flight.acknowledge_all(GoodExit(()), committed);
//! }
//! ```
//!
//! The answer to a mark is written without a right to mark more:
//!
//! ```
//! # use tap_streamduo::record::{MessageWriter, Page};
//! fn right(answer: Page, out: &mut dyn MessageWriter) -> std::io::Result<usize> {
//!     answer.write(|_| 0, out)
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use tap_streamduo::record::{Delivered, MessageWriter, Page};
//! fn wrong(answer: Page, out: &mut dyn MessageWriter) -> std::io::Result<Delivered> {
//!     answer.write(|_| 0, out)
//! }
//! ```
//!
//! # The map
//!
//! Arrows point at what a module uses; none points back.
//!
//! ```text
//! main ─> cli, commands ─> poll ─┬─> streamduo ─┬─> record
//!                                └─> singer ────┴─> config
//! ```
//!
//! - [`config`]: the settings, checked before the first request.
//! - [`record`]: what a record is, and the proof that it was delivered.
//! - [`streamduo`]: the service: HTTP, tokens, retries, page sizes, prefetch.
//! - [`singer`]: the format: messages, STATE, catalog, schema, and the way to stdout.
//! - [`poll`]: the loop, a file for each mode; and the target that the tap runs.
//! - [`commands`] wires them. All may use [`logging`], [`metrics`] with [`progress`] (the live line), and [`shutdown`] (signals).
//!   [`cli`], [`help`], [`man`], [`about`] and [`exit`] are the program's command line, what it says of itself, and exit codes.

pub mod about;
pub mod cli;
pub mod commands;
pub mod config;
pub mod exit;
pub mod help;
pub mod logging;
pub mod man;
pub mod metrics;
pub mod poll;
pub mod progress;
pub mod record;
pub mod shutdown;
pub mod singer;
pub mod streamduo;
