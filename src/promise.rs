//! The proofs of the promise: a record is marked as read only after it has been delivered. There is
//! no code here. `cargo test --doc` compiles what is right, and sees that what is wrong does not
//! compile.
//!
//! [`Queue::mark`](crate::streamduo::Queue::mark) takes a [`Delivered`](crate::record::Delivered)
//! by value. The right order is to peek, to write and flush, and to mark:
//!
//! ```
//! # use tap_streamduo::record::{Ledger, MessageWriter};
//! # use tap_streamduo::streamduo::{Count, Queue};
//! fn right(queue: &mut Queue, ledger: &mut Ledger, out: &mut dyn MessageWriter) -> anyhow::Result<()> {
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
//! # use tap_streamduo::record::{Ledger, MessageWriter};
//! # use tap_streamduo::streamduo::{Count, Queue};
//! fn wrong(queue: &mut Queue) -> anyhow::Result<()> {
//!     let page = queue.peek(Count::UpTo(100))?;
//!     queue.mark(page)?;
//!     Ok(())
//! }
//! ```
//!
//! A page that could not be written gives no proof, so the error cannot be ignored:
//!
//! ```compile_fail,E0308
//! # use tap_streamduo::record::{Ledger, MessageWriter};
//! # use tap_streamduo::streamduo::{Count, Queue};
//! fn wrong(queue: &mut Queue, ledger: &mut Ledger, out: &mut dyn MessageWriter) -> anyhow::Result<()> {
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
//! # use tap_streamduo::record::{Ledger, MessageWriter};
//! # use tap_streamduo::streamduo::{Count, Queue};
//! fn wrong(queue: &mut Queue, ledger: &mut Ledger, out: &mut dyn MessageWriter) -> anyhow::Result<()> {
//!     let page = queue.peek(Count::UpTo(100))?;
//!     let delivered = page.deliver(ledger, out)?;
//!     queue.mark(delivered)?;
//!     queue.mark(delivered)?;
//!     Ok(())
//! }
//! ```
//!
//! It cannot be copied. What can be is a [`Bookmark`](crate::record::Bookmark), which proves
//! nothing:
//!
//! ```
//! # use tap_streamduo::record::Bookmark as Copied;
//! fn twice(copied: Copied) -> (Copied, Copied) {
//!     (copied.clone(), copied)
//! }
//! ```
//!
//! ```compile_fail,E0599
//! # use tap_streamduo::record::Delivered as Copied;
//! fn twice(copied: Copied) -> (Copied, Copied) {
//!     (copied.clone(), copied)
//! }
//! ```
//!
//! It can be made to cover less, and looked at, and not made by hand:
//!
//! ```
//! # use tap_streamduo::record::{Delivered, Page};
//! fn less(delivered: Delivered) -> Delivered {
//!     delivered.at_most(1)
//! }
//!
//! fn look(delivered: &Delivered) -> (&Page, usize, usize) {
//!     assert_eq!(delivered.to_mark().count(), delivered.count());
//!     assert!(delivered.fence().is_none());
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
//! The answer to a mark is written without a right to mark more:
//!
//! ```
//! # use std::io::Result;
//! # use tap_streamduo::record::{Fingerprint, Ledger, MessageWriter, Page};
//! # type Out<'a> = &'a mut dyn MessageWriter;
//! fn right(page: &Page, some: &[Fingerprint], ledger: &mut Ledger, out: Out) -> Result<usize> {
//!     page.write(some, ledger, out)
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use std::io::Result;
//! # use tap_streamduo::record::{Delivered, Fingerprint, Ledger, MessageWriter, Page};
//! # type Out<'a> = &'a mut dyn MessageWriter;
//! fn wrong(page: &Page, some: &[Fingerprint], ledger: &mut Ledger, out: Out) -> Result<Delivered> {
//!     page.write(some, ledger, out)
//! }
//! ```
//!
//! # What a target has committed
//!
//! Only a STATE that came back proves it, never what the page itself shows:
//!
//! ```
//! # use tap_streamduo::record::{Ledger, Peeked, ReturnedBookmark};
//! fn right(page: &Peeked, returned: &ReturnedBookmark, ledger: &mut Ledger) -> bool {
//!     ledger.prove(page, returned)
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use tap_streamduo::record::{Bookmark, Ledger, Peeked};
//! fn wrong(page: &Peeked, ledger: &mut Ledger) -> bool {
//!     ledger.prove(page, &Bookmark::of(page))
//! }
//! ```
//!
//! ```compile_fail,E0423
//! # use tap_streamduo::record::{Bookmark, Ledger, Peeked, Returned};
//! fn wrong(page: &Peeked, ledger: &mut Ledger) -> bool {
//!     ledger.prove(page, &Returned(Bookmark::of(page)))
//! }
//! ```
//!
//! If the tap runs the target, only a STATE that the target has printed proves anything, or its
//! good exit, never the STATE that was written to it:
//!
//! ```
//! # use tap_streamduo::record::{Batch, InFlight, Ledger, ReturnedCheckpoint};
//! fn right(in_flight: &mut InFlight<Batch>, printed: &ReturnedCheckpoint, ledger: &mut Ledger) {
//!     for batch in in_flight.acknowledge(printed) {
//!         ledger.commit(batch);
//!     }
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use tap_streamduo::record::{Batch, InFlight, Ledger};
//! fn wrong(in_flight: &mut InFlight<Batch>, batch: Batch, ledger: &mut Ledger) {
//!     let written = in_flight.add(batch);
//!     for batch in in_flight.acknowledge(&written) {
//!         ledger.commit(batch);
//!     }
//! }
//! ```
//!
//! ```
//! # use std::process::ExitStatus;
//! # use tap_streamduo::record::{Batch, InFlight, Ledger};
//! fn right(in_flight: &mut InFlight<Batch>, status: ExitStatus, has_read_all: bool, ledger: &mut Ledger) {
//!     in_flight.acknowledge_all(status, has_read_all).into_iter().for_each(|batch| ledger.commit(batch));
//! }
//! ```
//!
//! A batch that was given up proves nothing, and a proof cannot be made of it by hand:
//!
//! ```compile_fail,E0308
//! # use tap_streamduo::record::{Batch, InFlight, Ledger};
//! fn wrong(in_flight: &mut InFlight<Batch>, ledger: &mut Ledger) {
//!     in_flight.abandon().into_iter().for_each(|batch| ledger.commit(batch));
//! }
//! ```
//!
//! ```compile_fail,E0423
//! # use tap_streamduo::record::{Batch, InFlight, Ledger, Proven};
//! fn wrong(in_flight: &mut InFlight<Batch>, ledger: &mut Ledger) {
//!     in_flight.abandon().into_iter().for_each(|batch| ledger.commit(Proven(batch)));
//! }
//! ```
