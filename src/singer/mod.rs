//! The Singer format: messages, and what they are made of.

pub mod catalog;
pub mod columns;
pub mod dead_letters;
pub mod files;
pub mod schema;
pub mod selection;
pub mod state;
pub mod stdout;
pub mod transform;
pub mod writer;

pub use writer::{Stream, Writer, state_message};
