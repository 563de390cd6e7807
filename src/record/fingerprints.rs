//! How many copies of each record there are.

use std::collections::HashMap;

use super::identity::Fingerprint;

/// Records, and how many copies of each. Nothing but their number tells records apart that are equal in everything.
#[derive(Debug, Clone, Default)]
pub struct Fingerprints {
    copies: HashMap<Fingerprint, usize, foldhash::fast::RandomState>,
    len: usize,
}

impl Fingerprints {
    /// The number of copies of all records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of copies of a record.
    pub fn count(&self, record: Fingerprint) -> usize {
        self.copies.get(&record).copied().unwrap_or(0)
    }

    /// The records, and the number of copies of each.
    pub fn iter(&self) -> impl Iterator<Item = (Fingerprint, usize)> {
        self.copies.iter().map(|(record, copies)| (*record, *copies))
    }

    /// Adds a copy. Returns how many there are now.
    pub fn add(&mut self, record: Fingerprint) -> usize {
        let copies = self.copies.entry(record).or_default();
        (*copies, self.len) = (*copies + 1, self.len + 1);
        *copies
    }

    /// Removes a copy. Returns whether there was one.
    pub fn remove(&mut self, record: Fingerprint) -> bool {
        let Some(copies) = self.copies.get_mut(&record) else { return false };
        (*copies, self.len) = (*copies - 1, self.len - 1);
        if *copies == 0 {
            self.copies.remove(&record);
        }
        true
    }

    /// Removes all copies of a record.
    pub fn remove_all(&mut self, record: Fingerprint) {
        self.len -= self.copies.remove(&record).unwrap_or(0);
    }

    /// Adds copies, so that there are at least as many of each record as there are in `others`.
    pub fn fill_up_to(&mut self, others: Fingerprints) {
        if self.is_empty() {
            *self = others;
            return;
        }
        for (record, wanted) in others.iter() {
            let copies = self.copies.entry(record).or_default();
            self.len += wanted.saturating_sub(*copies);
            *copies = wanted.max(*copies);
        }
    }

    /// Removes all copies of the records that are not in `others`.
    pub fn keep_records_of(&mut self, others: &Fingerprints) {
        self.copies.retain(|record, _| others.count(*record) > 0);
        self.len = self.copies.values().sum();
    }

    /// Removes copies, so that there are no more of each record than there are in `others`. Returns how many it has removed.
    pub fn cut_down_to(&mut self, others: &Fingerprints) -> usize {
        let before = self.len;
        self.copies.retain(|record, copies| {
            *copies = others.count(*record).min(*copies);
            *copies > 0
        });
        self.len = self.copies.values().sum();
        before - self.len
    }
}

impl FromIterator<Fingerprint> for Fingerprints {
    fn from_iter<I: IntoIterator<Item = Fingerprint>>(records: I) -> Fingerprints {
        let mut fingerprints = Fingerprints::default();
        let records = records.into_iter();
        // Nearly every record of a page has a fingerprint, so the upper bound is a good guess.
        fingerprints.copies.reserve(records.size_hint().1.unwrap_or(0));
        for record in records {
            fingerprints.add(record);
        }
        fingerprints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(ids: &str) -> Fingerprints {
        ids.chars().map(record).collect()
    }

    fn record(id: char) -> Fingerprint {
        Fingerprint::of(&id.to_string(), "t", Some("1"))
    }

    #[track_caller]
    fn assert_same(some: &Fingerprints, ids: &str) {
        let others = records(ids);
        assert_eq!(some.len(), others.len());
        assert!(others.iter().all(|(record, copies)| some.count(record) == copies), "{ids}");
    }

    #[test]
    fn copies_are_counted() {
        let mut some = records("aab");
        assert_eq!((some.add(record('a')), some.add(record('c')), some.len()), (3, 1, 5));
        assert!(some.remove(record('a')) && some.remove(record('b')) && !some.remove(record('b')));
        assert_same(&some, "aac");
        some.remove_all(record('a'));
        some.remove_all(record('z'));
        assert_same(&some, "c");
        assert!(some.remove(record('c')) && some.is_empty());
    }

    #[test]
    fn copies_are_filled_up_and_cut_down() {
        let mut some = records("aab");
        some.fill_up_to(records("abbc"));
        assert_same(&some, "aabbc");
        assert_eq!(some.cut_down_to(&records("abbd")), 2);
        assert_same(&some, "abb");
        some.keep_records_of(&records("bc"));
        assert_same(&some, "bb");
    }
}
