//! How a record is told from every other, and how a run remembers it.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;

use foldhash::quality::RandomState;

/// A record's key: its id, and the time stamp that tells the versions of one id apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `recordId`
    pub record_id: String,
    /// `recordTimeStampISO`, the text as sent: an RFC 9557 time stamp
    pub timestamp: String,
}

impl Identity {
    /// The fingerprint of a record with this identity.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.record_id, &self.timestamp)
    }
}

/// A record's identity in 128 bits: two hashes (foldhash) under two keys that each process draws at random. Neither the keys nor
/// the hashes leave the process, so nobody can choose ids that share a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u128);

/// A set of records.
pub type Fingerprints = std::collections::HashSet<Fingerprint, foldhash::fast::RandomState>;

impl Fingerprint {
    pub(super) fn of(record_id: &str, timestamp: &str) -> Fingerprint {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
        let [high, low] = KEYS.each_ref().map(|key| {
            let mut hasher = key.build_hasher();
            hasher.write_usize(record_id.len());
            hasher.write(record_id.as_bytes());
            hasher.write(timestamp.as_bytes());
            hasher.finish()
        });
        Fingerprint(u128::from(high) << 64 | u128::from(low))
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Half of the bits are enough: all are random.
        hasher.write_u64(self.0 as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_where_the_id_ends() {
        assert_eq!(Fingerprint::of("a", "1"), Fingerprint::of("a", "1"));
        let all = [("a", "11"), ("a1", "1"), ("a11", ""), ("", "a11"), ("a", "1")];
        let different: Fingerprints = all.iter().map(|(id, stamp)| Fingerprint::of(id, stamp)).collect();
        assert_eq!(different.len(), all.len());
    }
}
