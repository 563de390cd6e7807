//! From a partner's JSON to columns: what `payloadSchema` `registered` and `sampled` do.
//!
//! Each field of the payload that has a column is written under its own name, with its value or
//! null. What has no column, or does not fit it, is in one more field, [`REST`], as JSON text under
//! its path. So every value arrives, and no target sees a type that it was not told of.
//!
//! A column never changes and never goes: `columnsFile` remembers it. New ones are added each time
//! that a target starts, before its SCHEMA goes out.
//!
//! `column` says what fits one, `names` what it may be called, `tree` how columns nest. `seen`
//! finds them in payloads, `schema` in a JSON schema. `file` keeps them, and `split` takes a
//! payload apart.

mod column;
mod file;
mod names;
mod schema;
mod seen;
mod split;
mod tree;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use log::info;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::selection::{Selection, begin_member};
use super::transform::{PAYLOAD, REST};
use crate::config::{Config, Invalid, PayloadSchema};
use crate::record::{Members, Page};

use column::Columns;
use seen::Seen;
use split::Split;

/// Takes payloads apart into columns and the rest.
#[derive(Debug, Default)]
pub struct Splitter {
    /// `columnsFile`
    path: PathBuf,
    /// Whether new columns are added to the file.
    writes: bool,
    /// Whether the fields of the records that are written become columns.
    samples: bool,
    columns: Columns,
    /// What should become columns.
    wanted: Columns,
    /// What was seen since the last start, and how many fields that are.
    seen: Seen,
    fields: usize,
    /// What is selected of the payload, and whether the rest is not.
    selection: Selection,
    drops_rest: bool,
    /// The columns that are selected.
    selected: Columns,
    split: Split,
    /// How many records have something in the rest.
    pub with_rest: usize,
}

impl Splitter {
    /// Reads `columnsFile`; `None` if the settings ask for no columns. Without `writes` nothing is
    /// added to the file.
    ///
    /// # Errors
    /// [`Invalid`] when the file cannot be used.
    pub fn load(config: &Config, writes: bool) -> Result<Option<Splitter>, Invalid> {
        let Some(path) = config.columns_file.clone() else { return Ok(None) };
        let columns = file::read(&path)
            .map_err(|problem| Invalid::new(format!("`columnsFile` {}: {problem:#}", path.display())))?;
        // New columns that the file does not get would be forgotten, and a target may have them.
        let samples = writes && config.payload_schema == PayloadSchema::Sampled;
        Ok(Some(Splitter { path, writes, samples, columns, ..Splitter::default() }))
    }

    /// Writes only what is selected of a record.
    pub fn select(&mut self, record: &Selection) {
        self.selection = record.of(PAYLOAD).clone();
        self.drops_rest = record.leaves_out(REST);
        if self.drops_rest {
            self.split.tell(format!("the catalog deselects `{REST}`: what has no column is not written"));
        }
    }

    /// Makes columns of the fields that a registered schema describes.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn register(&mut self, schema: &str) -> serde_json::Result<()> {
        self.wanted = schema::columns(&serde_json::from_str(schema)?).0;
        Ok(())
    }

    /// Looks at the records that come next, for columns that the SCHEMA names when a target starts.
    pub fn look_ahead(&mut self, page: &Page) {
        if self.samples {
            self.sample(page);
        }
    }

    /// Looks at payloads for new columns.
    pub fn sample(&mut self, page: &Page) {
        for payload in page.records().filter_map(|record| str::from_utf8(record.payload?).ok()) {
            self.seen.note(payload, 0, &mut self.fields);
        }
    }

    /// Adds what should become columns, for a target that starts, and describes them in the schema
    /// of its records. If the file cannot be written, nothing is added.
    pub fn start(&mut self, record_schema: &mut Value) {
        let seen = std::mem::take(&mut self.seen).columns(Seen::most);
        self.fields = 0;
        // Also what the file no longer has: this run has declared it.
        self.wanted = self.columns.with(&self.wanted).with(&seen).selected(&self.selection);
        let path = self.path.display();
        match self.writes.then(|| file::add(&self.path, &self.wanted)) {
            None => self.columns = self.columns.with(&self.wanted),
            Some(Ok(all)) => {
                let new = all.without(&self.columns).paths();
                if !new.is_empty() {
                    info!("new in `columnsFile` {path}: {}", new.join(", "));
                }
                let kept = self.columns.with(&all);
                if kept != all {
                    self.split.tell(format!(
                        "`columnsFile` {path} has changed: this run keeps the types that it has declared"
                    ));
                }
                self.columns = kept;
            }
            Some(Err(problem)) => {
                self.split.tell(format!("no column is added to `columnsFile` {path}: {problem:#}"));
            }
        }
        self.selected = self.columns.selected(&self.selection);
        let Some(Value::Object(fields)) = record_schema.get_mut("properties") else { return };
        // At the end, as in the records.
        fields.shift_remove(PAYLOAD);
        if self.selected.0.is_empty() {
            self.split.tell(format!("no field of `{PAYLOAD}` has a column: see `{REST}`"));
        } else {
            fields.insert(PAYLOAD.to_owned(), self.selected.schema());
        }
        if !self.drops_rest {
            fields.insert(REST.to_owned(), json!({"type": ["null", "string"]}));
        }
    }

    /// Appends the fields that a payload becomes to those of its record.
    pub fn write(&mut self, payload: Option<&RawValue>, out: &mut Vec<u8>) -> io::Result<()> {
        let text = payload.map_or("null", RawValue::get);
        let is_object = text.starts_with('{');
        let members = if is_object { serde_json::from_str(text)? } else { Members(Vec::new()) };
        let before = out.len();
        begin_member(PAYLOAD, out)?;
        let mut rest = self.split.payload(&self.selected, &self.selection, members, out)?.map(Cow::Borrowed);
        if self.selected.0.is_empty() {
            out.truncate(before);
        }
        if self.drops_rest {
            return Ok(());
        }
        if let Some(payload) = payload.filter(|_| !is_object && text != "null") {
            self.split.tell(format!("`{PAYLOAD}` is not always an object: see `{REST}`"));
            rest = Some(self.selection.kept(payload)?);
        }
        begin_member(REST, out)?;
        serde_json::to_writer(out, &rest)?;
        if let Some(rest) = rest {
            self.with_rest += 1;
            if self.samples {
                self.seen.note(&rest, 0, &mut self.fields);
            }
        }
        Ok(())
    }
}
