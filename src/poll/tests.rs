//! The loop against random interleavings of what a service, a gateway, other consumers, a target
//! and a power cut can do.
//!
//! `service.rs` keeps the records and their read status as StreamDuo does, and notes which of them
//! the tap's marks hit. `fake.rs` is the way to it, by a `script.rs` of what becomes of each
//! request; `process.rs` is a target. `world.rs` runs the tap, and checks after each run that
//! everything that is marked is delivered, or named in a warning. `excused.rs` is the table of what
//! may be lost without one. The properties are in `properties.rs` (pipes), `closed_loop.rs`
//! (targets that the tap runs), `replay.rs` (`acknowledge: never`) and `look.rs`; what went wrong
//! once is in `regressions.rs`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::config::{Acknowledge, Config};
use crate::poll::Endpoints;
use crate::poll::target::Target;
use crate::record::{Delivered, MessageWriter, Page};
use crate::shutdown::Shutdown;
use crate::singer::state::State;
use crate::streamduo::http_error::HttpError;
use crate::streamduo::retry::Retry;
use crate::streamduo::{Failure, Tuning};

mod closed_loop;
mod excused;
mod fake;
mod look;
mod process;
mod properties;
mod regressions;
mod replay;
mod script;
mod service;
mod strategies;
mod warnings;
mod world;

use fake::{FakeService, failure, lost_answer, text};
use process::{Targets, at_state, targets};
use script::{Answer, Applied, Call, Capacity, Fate, Script};
use service::{Event, Kind, Record, Row, Service, Shown};
use strategies::*;
use world::{FakeTarget, Output, World, config, tuning};

/// Small, because the streams are short.
const FIRST_PAGE: usize = 3;

/// The longest that a record's payload gets, in bytes. One record alone is within every
/// [`Capacity`].
const MAX_PAYLOAD: usize = 300;

type Shared<T> = Rc<RefCell<T>>;

/// So many cases, the same each time; or as many as `PROPTEST_CASES` says, drawn anew.
fn cases(count: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if cases.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    ProptestConfig { cases: cases.unwrap_or(count), failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}
