//! The columns of a payload, nested as its fields are.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::column::{Column, Columns};
use super::names::{MAX_COLUMNS, flattened, take};
use crate::singer::selection::Selection;
use crate::singer::transform::PAYLOAD;

/// How deep objects nest below the payload. A deeper one is JSON text.
pub const MAX_LEVELS: usize = 3;

impl Columns {
    /// These columns, and behind them those wanted that are not here yet and may have a column.
    /// What is here never changes.
    pub fn with(&self, wanted: &Columns) -> Columns {
        let mut names = HashSet::new();
        let mut room = MAX_COLUMNS;
        let mut columns = Columns::default();
        // In this order: names that are here come first.
        for more in [self, wanted] {
            columns.add(more, PAYLOAD, &mut names, &mut room);
        }
        columns
    }

    fn add(&mut self, more: &Columns, path: &str, names: &mut HashSet<String>, room: &mut usize) {
        for (name, column) in &more.0 {
            let path = flattened(path, name);
            match (self.0.get_mut(name), column) {
                (Some(Column::Object(own)), Column::Object(more)) => own.add(more, &path, names, room),
                (Some(_), _) => {}
                (None, _) if *room == 0 || !take(names, name, &path) => {}
                (None, Column::Object(more)) => {
                    let mut own = Columns::default();
                    own.add(more, &path, names, room);
                    if !own.0.is_empty() {
                        self.0.insert(name.clone(), Column::Object(own));
                    }
                }
                (None, leaf) => {
                    *room -= 1;
                    self.0.insert(name.clone(), leaf.clone());
                }
            }
        }
    }

    /// The columns that others do not have.
    pub fn without(&self, others: &Columns) -> Columns {
        self.filtered(|name, column| match (others.0.get(name), column) {
            (None, column) => Some(column.clone()),
            (Some(Column::Object(others)), Column::Object(own)) => Some(Column::Object(own.without(others))),
            _ => None,
        })
    }

    /// The columns that are selected.
    pub fn selected(&self, selection: &Selection) -> Columns {
        self.filtered(|name, column| match column {
            _ if selection.leaves_out(name) => None,
            Column::Object(own) => Some(Column::Object(own.selected(selection.of(name)))),
            leaf => Some(leaf.clone()),
        })
    }

    /// What `change` makes of each field. An object without a column is left out.
    fn filtered(&self, change: impl Fn(&str, &Column) -> Option<Column>) -> Columns {
        let keep = |(name, column): (&String, &Column)| match change(name, column)? {
            Column::Object(own) if own.0.is_empty() => None,
            column => Some((name.clone(), column)),
        };
        Columns(self.0.iter().filter_map(keep).collect())
    }

    /// The path of each column, with points between the names.
    pub fn paths(&self) -> Vec<String> {
        let paths = |(name, column): (&String, &Column)| match column {
            Column::Object(own) => own.paths().into_iter().map(|path| format!("{name}.{path}")).collect(),
            _ => vec![name.clone()],
        };
        self.0.iter().flat_map(paths).collect()
    }

    /// The JSON schema of the columns, as it goes to a target: types alone.
    pub fn schema(&self) -> Value {
        let schema = |(name, column): (&String, &Column)| match column {
            Column::Object(own) => (name.clone(), own.schema()),
            leaf => (name.clone(), json!({"type": ["null", leaf.name()]})),
        };
        let properties: Map<_, _> = self.0.iter().map(schema).collect();
        json!({"type": ["null", "object"], "properties": properties})
    }
}
