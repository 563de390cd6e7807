//! Marking what was not delivered does not compile.
//!
//! The tap is a binary, whose documentation is not tested; so its `src/record.rs` is compiled here as a library. To mark takes
//! a [`Delivered`](record::Delivered) by value, as `Queue::mark` in `src/api.rs` does:
//!
//! ```
//! use promise::record::{Delivered, Page, Peeked, Sink, Written};
//!
//! fn mark(_: Delivered) {}
//!
//! /// The right order: peek, write and flush, mark.
//! fn right(page: Peeked, written: &mut Written, out: &mut impl Sink) -> std::io::Result<()> {
//!     mark(page.deliver(written, out)?);
//!     Ok(())
//! }
//! ```
//!
//! A page that was only peeked cannot be marked:
//!
//! ```compile_fail,E0308
//! # use promise::record::{Delivered, Peeked};
//! # fn mark(_: Delivered) {}
//! fn wrong(page: Peeked) {
//!     mark(page);
//! }
//! ```
//!
//! The proof cannot be made by hand:
//!
//! ```compile_fail,E0451
//! # use promise::record::{Delivered, Page};
//! # fn mark(_: Delivered) {}
//! fn wrong(page: Page) {
//!     mark(Delivered { page, count: 100, written: 100 });
//! }
//! ```
//!
//! It cannot be used twice:
//!
//! ```compile_fail,E0382
//! # use promise::record::{Delivered, Peeked, Sink, Written};
//! # fn mark(_: Delivered) {}
//! fn wrong(page: Peeked, written: &mut Written, out: &mut impl Sink) -> std::io::Result<()> {
//!     let delivered = page.deliver(written, out)?;
//!     mark(delivered);
//!     mark(delivered);
//!     Ok(())
//! }
//! ```
//!
//! It cannot be copied first:
//!
//! ```compile_fail,E0599
//! # use promise::record::Delivered;
//! fn wrong(delivered: Delivered) -> (Delivered, Delivered) {
//!     (delivered.clone(), delivered)
//! }
//! ```
//!
//! A page that could not be written gives none:
//!
//! ```compile_fail,E0308
//! # use promise::record::{Delivered, Peeked, Sink, Written};
//! # fn mark(_: Delivered) {}
//! fn wrong(page: Peeked, written: &mut Written, out: &mut impl Sink) {
//!     mark(page.deliver(written, out));
//! }
//! ```
//!
//! What a page holds says nothing about what the target has committed: only a STATE that came back does.
//!
//! ```compile_fail,E0308
//! # use promise::record::{Committed, Covered, Peeked};
//! fn wrong(page: &Peeked) -> Option<Committed> {
//!     Committed::prove(page, &Covered::by(page))
//! }
//! ```
//!
//! ```compile_fail,E0423
//! # use promise::record::{CameBack, Committed, Covered, Peeked};
//! fn wrong(page: &Peeked) -> Option<Committed> {
//!     Committed::prove(page, &CameBack(Covered::by(page)))
//! }
//! ```
//!
//! What the answer to a mark shows is marked already, and is written without giving a right to mark more:
//!
//! ```compile_fail,E0308
//! # use promise::record::{Delivered, Page, Sink};
//! # fn mark(_: Delivered) {}
//! fn wrong(answer: Page, out: &mut impl Sink) -> std::io::Result<()> {
//!     mark(answer.write(|_| false, out)?);
//!     Ok(())
//! }
//! ```

#[path = "../../../src/record.rs"]
pub mod record;
