//! How a record is told from every other, and how a run remembers it.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;

use foldhash::fast;
use foldhash::quality::{FoldHasher, RandomState};

/// A set of records. Records that are equal in everything are one.
pub type Fingerprints = HashSet<Fingerprint, fast::RandomState>;

/// What tells a record from every other, in 128 bits: its id, its time stamp, and the text of its
/// payload. Two records with one id and one time stamp are two if their payloads differ. Of a record
/// without an identity it is the whole text. `readStatus` does not count: a mark changes it.
///
/// These are two hashes (foldhash) under two keys that each process draws at random. Neither the
/// keys nor the hashes leave the process, so nobody can choose records that share a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The fingerprint of a record with this `dataPayload`, if it has one.
    pub(super) fn of(record_id: &str, timestamp: &str, payload: Option<&str>) -> Fingerprint {
        Fingerprint::hash_with(|hasher| {
            hasher.write_usize(record_id.len());
            hasher.write(record_id.as_bytes());
            hasher.write_usize(timestamp.len());
            hasher.write(timestamp.as_bytes());
            // No JSON text is empty, so a payload is never taken for none.
            hasher.write(payload.unwrap_or_default().as_bytes());
        })
    }

    /// The fingerprint of a record without an identity: that of its text before and after the value of `readStatus`.
    pub(super) fn of_odd(text: [&[u8]; 2]) -> Fingerprint {
        Fingerprint::hash_with(|hasher| {
            // No `recordId` is that long, so a record with an identity never writes the same.
            hasher.write_usize(usize::MAX);
            for part in text {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
        })
    }

    fn hash_with(write: impl Fn(&mut FoldHasher<'_>)) -> Fingerprint {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
        let [high, low] = KEYS.each_ref().map(|key| {
            let mut hasher = key.build_hasher();
            write(&mut hasher);
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
    fn a_fingerprint_tells_where_id_and_time_stamp_end() {
        assert_eq!(Fingerprint::of("a", "1", Some("7")), Fingerprint::of("a", "1", Some("7")));
        let all = [
            ("a", "11", Some("7")),
            ("a1", "1", Some("7")),
            ("a11", "", Some("7")),
            ("", "a11", Some("7")),
            ("a", "1", Some("17")),
            ("a", "1", Some("7")),
            ("a", "1", Some("8")),
            ("a", "1", None),
        ];
        let different: HashSet<_> =
            all.iter().map(|(id, stamp, payload)| Fingerprint::of(id, stamp, *payload)).collect();
        assert_eq!(different.len(), all.len());
    }
}
