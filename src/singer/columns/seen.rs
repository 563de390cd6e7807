//! What was seen of a field, in payloads or in a JSON schema, and the column that follows from it.

use indexmap::IndexMap;

use super::column::{Column, Columns};
use super::names::MAX_COLUMNS;
use super::tree::MAX_LEVELS;
use crate::record::Members;

/// The most fields that are looked at.
const MAX_FIELDS: usize = 10_000;

/// The types of what is not an object. Of those that are seen equally often, the last one counts.
static LEAVES: [Column; 5] = [Column::Boolean, Column::Integer, Column::Number, Column::Json, Column::String];

/// The types of a field, each with how often it was seen. Null is not a type.
#[derive(Debug, Default)]
pub struct Seen {
    leaves: [usize; LEAVES.len()],
    objects: usize,
    /// The fields of the objects.
    pub fields: IndexMap<String, Seen>,
}

impl Seen {
    /// Notes a value at this level below the payload, given as JSON text. `fields` counts all that
    /// are known.
    pub fn note(&mut self, json: &str, level: usize, fields: &mut usize) {
        if json == "null" {
            return;
        }
        self.note_column(&Column::of(json), level);
        let members = Some(json).filter(|json| level <= MAX_LEVELS && json.starts_with('{'));
        let Some(Ok(Members(members))) = members.map(serde_json::from_str) else { return };
        for (name, _, value) in members {
            let is_new = !self.fields.contains_key(&*name);
            if !is_new || *fields < MAX_FIELDS {
                *fields += usize::from(is_new);
                self.fields.entry(name.into_owned()).or_default().note(value.get(), level + 1, fields);
            }
        }
    }

    /// Notes the column that a value would have. An object that is too deep is JSON text.
    pub fn note_column(&mut self, column: &Column, level: usize) {
        match column {
            Column::Object(_) if level <= MAX_LEVELS => self.objects += 1,
            Column::Object(_) => self.note_column(&Column::Json, level),
            leaf => self.leaves.iter_mut().zip(&LEAVES).for_each(|(count, other)| *count += usize::from(leaf == other)),
        }
    }

    /// Whether an object was seen, or nothing.
    pub fn may_be_object(&self) -> bool {
        self.leaves == [0; LEAVES.len()]
    }

    /// The columns of the fields. `column` decides on each.
    pub fn columns(&self, column: fn(&Seen) -> Option<Column>) -> Columns {
        Columns(self.fields.iter().filter_map(|(name, seen)| Some((name.clone(), column(seen)?))).collect())
    }

    /// The column for most of the values that were seen; `None` if all were null.
    pub fn most(&self) -> Option<Column> {
        let (leaf, count) = self.leaf();
        if self.objects <= count {
            return (count > 0).then_some(leaf);
        }
        if self.fields.len() > MAX_COLUMNS {
            // Its names are data.
            return Some(Column::Json);
        }
        let columns = self.columns(Seen::most);
        (!columns.0.is_empty()).then_some(Column::Object(columns))
    }

    /// The column for all that a schema allows. If that is more than one type, it is JSON text.
    pub fn all(&self) -> Option<Column> {
        let columns = self.columns(Seen::all);
        let (leaf, count) = self.leaf();
        let others = self.objects + self.leaves.iter().sum::<usize>() - count;
        Some(match (count, self.objects) {
            (1.., _) if others == 0 => leaf,
            (0, 1..) if !columns.0.is_empty() => Column::Object(columns),
            _ => Column::Json,
        })
    }

    /// The type of most leaves, and their number. Whole numbers and decimals together are numbers.
    fn leaf(&self) -> (Column, usize) {
        let mut counts = self.leaves;
        let [_, integers, numbers, ..] = &mut counts;
        if *numbers > 0 {
            *numbers += std::mem::take(integers);
        }
        let (place, count) = counts.into_iter().enumerate().max_by_key(|(_, count)| *count).unwrap_or_default();
        (LEAVES[place].clone(), count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn columns(payloads: &[&str]) -> Value {
        let mut seen = Seen::default();
        let mut fields = 0;
        payloads.iter().for_each(|payload| seen.note(payload, 0, &mut fields));
        seen.columns(Seen::most).schema()["properties"].take()
    }

    fn leaf(kind: &str) -> Value {
        json!({"type": ["null", kind]})
    }

    #[test]
    fn a_field_has_the_type_of_most_of_its_values() {
        let payloads = [
            r#"{"make":"Toyota","price":10.00,"doors":4,"tags":["a",1],"id":12345678901234567890,"n":null}"#,
            r#"{"make":null,"price":7,"doors":2,"tags":"none","owner":{"name":"x","n":null},"at":"N/A"}"#,
            r#"{"tags":[],"owner":{"age":7},"at":1,"empty":{}}"#,
            r#"{"owner":"x","at":2.5}"#,
        ];
        assert_eq!(
            columns(&payloads),
            json!({
                "make": leaf("string"), "price": leaf("number"), "doors": leaf("integer"), "tags": leaf("string"),
                "id": leaf("string"),
                "owner": {"type": ["null", "object"], "properties": {"name": leaf("string"), "age": leaf("integer")}},
                "at": leaf("number"),
            })
        );
        assert_eq!(columns(&["7", "null", "[]"]), json!({}));
    }

    #[test]
    fn objects_nest_up_to_three_levels() {
        let object = |fields: Value| json!({"type": ["null", "object"], "properties": fields});
        assert_eq!(
            columns(&[r#"{"a":{"b":{"c":{"d":{"e":1},"f":2}}}}"#]),
            json!({"a": object(json!({"b": object(json!({"c": object(
                json!({"d": leaf("string"), "f": leaf("integer")})
            )}))}))})
        );
        let deep = format!("{}1{}", r#"{"a":"#.repeat(1200), "}".repeat(1200));
        assert!(columns(&[&deep]).to_string().len() < 500);
    }

    #[test]
    fn an_object_whose_names_are_data_is_json_text() {
        let fields: Vec<_> = (0..4000).map(|n| format!("\"{n}\":{{\"x\":1}}")).collect();
        let payload = format!("{{\"by_id\":{{{}}},\"n\":1}}", fields.join(","));
        assert_eq!(columns(&[&payload]), json!({"by_id": leaf("string"), "n": leaf("integer")}));
    }
}
