//! Which names a column may have: a database must neither refuse it nor take it for another one.

use std::collections::HashSet;

/// The most columns: so many long texts fit a row of PostgreSQL.
pub const MAX_COLUMNS: usize = 400;

/// The most bytes of a flattened name.
const MAX_NAME: usize = 62;

/// Stands between the names of a path in a target that flattens.
const SEPARATOR: &str = "__";

/// Takes a name, with its path as a target flattens it. Returns false if it may not be one.
pub fn take(taken: &mut HashSet<String>, name: &str, flattened: &str) -> bool {
    let spellings = spellings(flattened);
    let is_new = !spellings.iter().any(|spelling| taken.contains(spelling));
    let is_free = is_new && is_good(name) && flattened.len() <= MAX_NAME;
    if is_free {
        taken.extend(spellings);
    }
    is_free
}

/// The name of a field with its path, as a target flattens it.
pub fn flattened(path: &str, name: &str) -> String {
    format!("{path}{SEPARATOR}{name}")
}

fn is_good(name: &str) -> bool {
    let is_bad = |c: char| c.is_control() || matches!(c, '"' | '\'' | '`' | '\\' | '%');
    !name.is_empty() && !name.contains(is_bad)
}

/// What targets make of a name: they fold its case, and replace what is neither a letter nor a
/// digit, or leave it away.
fn spellings(name: &str) -> [String; 2] {
    let is_odd = |c: char| c != '_' && !c.is_alphanumeric();
    let is_left_away = |c: char| is_odd(c) && !matches!(c, '-' | '.' | ' ');
    [name.to_owned(), name.replace(is_left_away, "")].map(|name| name.replace(is_odd, "_").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(names: &[&str]) -> Vec<bool> {
        let mut taken = HashSet::new();
        names.iter().map(|name| take(&mut taken, name, &flattened("dataPayload", name))).collect()
    }

    #[test]
    fn a_name_that_a_database_takes_for_another_one_is_refused() {
        for names in [["Name", "name"], ["a b", "a-b"], ["ab", "a(b"], ["a$", "a"], ["x.y", "x_y"]] {
            assert_eq!(taken(&names), [true, false], "{names:?}");
        }
        let names = ["userId", "user_id", "größe", "grösse", "Odometer (KM)", "価格", "名前", "a1", "a2", "_"];
        assert_eq!(taken(&names), [true; 10]);
    }

    #[test]
    fn a_name_that_a_database_refuses_is_refused() {
        let names = ["", "a\"b", "a'b", "a`b", "a\\b", "a%b", "a\nb", "\0", &"x".repeat(50)];
        assert_eq!(taken(&names), [false; 9]);
        assert_eq!(taken(&[&"x".repeat(49)]), [true]);
    }
}
