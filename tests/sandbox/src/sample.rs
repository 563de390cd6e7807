//! Sample data: cars for sale, shaped like the vendor's example record. It depends only on the
//! stream and an index, so that every run has the same data.

use jiff::Timestamp;

use crate::stamp::{self, Stamps};

/// The time stamp of the first sample record.
pub(crate) const START: Timestamp = stamp::EXAMPLE;

/// The time from one sample record to the next: 7.0137 s, so that the microseconds differ as well.
pub(crate) const STEP_MICROS: i64 = 7_013_700;

/// What sample records are like.
#[derive(Clone, Copy, Debug)]
pub struct Samples {
    /// The length to which their payloads are padded, in bytes. A payload that is longer stays as
    /// it is.
    pub bytes: usize,
    /// How many records share each time stamp.
    pub ties: usize,
    /// How time stamps are written.
    pub stamps: Stamps,
}

impl Default for Samples {
    fn default() -> Samples {
        Samples { bytes: 0, ties: 1, stamps: Stamps::Example }
    }
}

const MODELS: [(&str, u64); 8] = [
    ("Toyota", 6_250),
    ("Honda", 7_000),
    ("BMW", 22_000),
    ("Nissan", 3_500),
    ("Ford", 5_400),
    ("Volvo", 9_800),
    ("Škoda", 4_700),
    ("Citroën", 3_900),
];

const COLOURS: [&str; 6] = ["White", "Red", "Blue", "Black", "Green", "Silver"];

/// The payload of the sample record number `index`. The first one is the vendor's example.
pub(crate) fn payload(index: u64) -> String {
    let (make, base) = pick(&MODELS, index);
    let colour = pick(&COLOURS, index / 3);
    let price = base + index.wrapping_mul(37) % 2_000;
    let kilometres = 60_000 + index.wrapping_mul(1_009) % 140_000;
    let doors = if index % 5 == 3 { 2 } else { 4 };
    format!(
        r#"{{"carData":{{"Make":"{make}","Price":"${},{:03}.00","Odometer (KM)":"{kilometres}","Colour":"{colour}","Doors":"{doors}"}}}}"#,
        price / 1_000,
        price % 1_000,
    )
}

/// `payload`, an object, with a field `padding` that makes it `bytes` long. Unchanged if it is too
/// long for that.
pub(crate) fn padded(payload: String, bytes: usize) -> String {
    const FIELD: &str = r#","padding":""}"#;
    // The field replaces the closing brace.
    let padding = (bytes + 1).checked_sub(payload.len() + FIELD.len());
    match padding.zip(payload.strip_suffix('}')) {
        Some((padding, fields)) => format!(r#"{fields},"padding":"{}"}}"#, "x".repeat(padding)),
        None => payload,
    }
}

/// The id of a stream's sample record number `index`. Ids rise with the index.
pub(crate) fn record_id(stream_id: &str, index: u64) -> String {
    let seed = stream_id.bytes().fold(index, |seed, byte| split_mix_64(seed ^ u64::from(byte)));
    let first = 0x506d_0a86_u64.wrapping_add(index) & 0xffff_ffff;
    uuid(first << 32 | seed >> 32, split_mix_64(seed))
}

/// The id of the sandbox's stream number `index`.
pub(crate) fn stream_id(index: u64) -> String {
    uuid(split_mix_64(index), split_mix_64(!index))
}

/// A random id.
pub(crate) fn random_id() -> String {
    uuid(fastrand::u64(..), fastrand::u64(..))
}

/// 128 bits as the text of a version 4 UUID.
fn uuid(high: u64, low: u64) -> String {
    let bits = u128::from(high) << 64 | u128::from(low);
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
}

fn pick<T: Copy, const N: usize>(values: &[T; N], index: u64) -> T {
    values[(index % N as u64) as usize]
}

/// SplitMix64, a hash that spreads consecutive numbers.
fn split_mix_64(index: u64) -> u64 {
    let mut z = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
