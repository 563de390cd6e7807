//! One payload: its columns, and the rest.

use std::collections::HashSet;
use std::io::{Error, Result};

use log::warn;
use serde_json::value::RawValue;

use super::column::{Column, Columns};
use crate::logging::shortened;
use crate::record::Members;
use crate::singer::selection::{Selection, begin_member};
use crate::singer::transform::PAYLOAD;

/// The most lines of the log that name fields.
const MAX_TOLD: usize = 100;

/// Tells what fits a column from what does not.
#[derive(Debug, Default)]
pub struct Split {
    /// The members of a JSON object, from its brace on, that have no column or do not fit it.
    rest: Vec<u8>,
    /// The way to the object at hand.
    path: String,
    /// What the log has said.
    told: HashSet<String>,
}

/// A member's key and its value, as they are written.
type Member<'a> = (&'a RawValue, &'a RawValue);

impl Split {
    /// Writes the columns of a payload that is an object, each with its value or null. Returns the
    /// rest, if there is one.
    pub fn payload(
        &mut self,
        columns: &Columns,
        selection: &Selection,
        members: Members,
        out: &mut Vec<u8>,
    ) -> Result<Option<&str>> {
        PAYLOAD.clone_into(&mut self.path);
        self.rest.clear();
        self.rest.push(b'{');
        self.write(columns, selection, members, out)?;
        self.rest.push(b'}');
        let rest = str::from_utf8(&self.rest).map_err(Error::other)?;
        Ok((rest != "{}").then_some(rest))
    }

    /// Writes the columns of an object, and gathers the rest.
    fn write(&mut self, columns: &Columns, selection: &Selection, object: Members, out: &mut Vec<u8>) -> Result<()> {
        // For each column its member; `Some(None)` if there are several.
        let mut of_columns: Vec<Option<Option<Member>>> = vec![None; columns.0.len()];
        for (name, key, value) in object.0.iter().filter(|(.., value)| value.get() != "null") {
            match columns.0.get_index_of(&**name).map(|place| &mut of_columns[place]) {
                None => self.put_aside(selection, name, (key, value), "has no column")?,
                Some(place @ None) => *place = Some(Some((key, value))),
                Some(Some(first)) => {
                    for member in first.take().into_iter().chain([(*key, *value)]) {
                        self.put_aside(selection, name, member, "is there more than once in an object")?;
                    }
                }
            }
        }
        out.push(b'{');
        for ((name, column), member) in columns.0.iter().zip(of_columns) {
            begin_member(name, out)?;
            let selected = selection.of(name);
            match (column, member.flatten()) {
                (Column::Json, Some((_, value))) => {
                    serde_json::to_writer(&mut *out, &selected.kept(value)?)?;
                }
                (Column::Object(columns), Some(member)) if column.fits(member.1.get()) => {
                    self.write_object(columns, selected, name, member, out)?;
                }
                (leaf, Some((_, value))) if leaf.fits(value.get()) => out.extend(value.get().bytes()),
                (column, misfit) => {
                    if let Some(member) = misfit {
                        self.put_aside(selection, name, member, "has values that do not fit its column")?;
                    }
                    match column {
                        Column::Object(columns) => self.write(columns, selected, Members(Vec::new()), out)?,
                        _ => out.extend(b"null"),
                    }
                }
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// The same for an object in an object. Its rest is an object in the rest.
    fn write_object(
        &mut self,
        columns: &Columns,
        selection: &Selection,
        name: &str,
        (key, value): Member,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let rest = self.rest.len();
        let path = self.path.len();
        begin_member(key, &mut self.rest)?;
        self.rest.push(b'{');
        let begun = self.rest.len();
        self.path.extend([".", name]);
        let object: Members = serde_json::from_str(value.get())?;
        // Its columns do not show that it is there.
        let is_empty = object.0.is_empty();
        self.write(columns, selection, object, out)?;
        self.path.truncate(path);
        if self.rest.len() > begun || is_empty {
            self.rest.push(b'}');
        } else {
            self.rest.truncate(rest);
        }
        Ok(())
    }

    /// Puts a member into the rest, as far as it is selected.
    fn put_aside(&mut self, selection: &Selection, name: &str, member: Member, why: &str) -> Result<()> {
        let selected = selection.of(name);
        if selection.leaves_out(name) {
            if selection.is_unknown(name) {
                self.tell_field(name, "is left out: the catalog selects by name, and does not know it", "");
            }
        } else if !selected.is_all() && member.1.get().starts_with('{') {
            self.write_object(&Columns::default(), selected, name, member, &mut Vec::new())?;
        } else {
            self.tell_field(name, why, ": see `dataPayloadRest`");
            begin_member(member.0, &mut self.rest)?;
            selected.cut(member.1, &mut self.rest)?;
        }
        Ok(())
    }

    fn tell_field(&mut self, name: &str, what: &str, see: &str) {
        if self.told.len() < MAX_TOLD {
            self.tell(format!("{:?} {what}{see}", shortened(format!("{}.{name}", self.path))));
        } else {
            self.tell("there are more such fields, which are not named".to_owned());
        }
    }

    /// Says something in the log, once.
    pub fn tell(&mut self, line: String) {
        if !self.told.contains(&line) {
            warn!("{line}");
            self.told.insert(line);
        }
    }
}
