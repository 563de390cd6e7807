//! How a record is told from every other, and how a run remembers it.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use foldhash::fast;
use foldhash::quality::RandomState;

/// A set of records. Records that are equal in everything are one.
pub type Fingerprints = HashSet<Fingerprint, fast::RandomState>;

/// What tells a record from every other, in 128 bits: its id, its time stamp, and the text of its
/// payload. Two records with one id and one time stamp are two if their payloads differ. Of a
/// record without an identity it is the whole text. `readStatus` does not count: a mark changes it.
///
/// These are two hashes (foldhash) under two keys that each process draws at random. Neither the
/// keys nor the hashes leave the process, so nobody can choose records that share a fingerprint.
///
/// Bytes, because a table of these takes less memory than one of numbers, which are aligned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of a record with these
    /// [`distinctive_texts`](super::parse::Record::distinctive_texts).
    pub(super) fn of(texts: [Option<&[u8]>; 3]) -> Fingerprint {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
        let [high, low] = KEYS.each_ref().map(|key| {
            let mut hasher = key.build_hasher();
            for text in texts {
                hasher.write_usize(text.map_or(usize::MAX, <[u8]>::len));
                hasher.write(text.unwrap_or_default());
            }
            hasher.finish()
        });
        Fingerprint((u128::from(high) << 64 | u128::from(low)).to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_where_id_and_time_stamp_end() {
        let of = |texts: [Option<&str>; 3]| Fingerprint::of(texts.map(|text| text.map(str::as_bytes)));
        assert_eq!(of([Some("a"), Some("1"), Some("7")]), of([Some("a"), Some("1"), Some("7")]));
        let all = [
            [Some("a"), Some("11"), Some("7")],
            [Some("a1"), Some("1"), Some("7")],
            [Some("a11"), Some(""), Some("7")],
            [Some(""), Some("a11"), Some("7")],
            [Some("a"), Some("1"), Some("17")],
            [Some("a"), Some("1"), Some("7")],
            [Some("a"), Some("1"), Some("8")],
            [Some("a"), Some("1"), None],
            [None, Some("a1"), Some("7")],
        ];
        let different: HashSet<_> = all.into_iter().map(of).collect();
        assert_eq!(different.len(), all.len());
    }
}
