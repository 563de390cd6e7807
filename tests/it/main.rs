//! The real binary against a stand-in for StreamDuo: one module per behaviour.

#![allow(clippy::unwrap_used, missing_docs)]

mod about;
mod bad_record;
mod catalog;
mod closed_loop;
mod commit;
mod configuration;
mod connect_proxy;
mod dead_letters;
mod documents;
mod extracted;
mod following;
mod http;
mod large;
mod live;
mod logs;
mod look;
mod mark_by_id;
mod marks;
mod proxy;
mod quickstart;
mod reading;
mod refusals;
mod replay;
mod shapes;
mod soak;
mod state;
mod stdout;
mod stops;
mod survival;
mod tap;
mod target;
mod terminal;
mod tls;
mod twins;
