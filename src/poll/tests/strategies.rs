//! What may happen.

use super::*;

/// Any kind of record that has an identity.
pub fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::New),
        2 => Just(Kind::SameStamp),
        1 => Just(Kind::Twin),
        1 => Just(Kind::Copy),
        1 => Just(Kind::Version),
    ]
}

/// Any kind of record whose id is its own.
pub fn kind_of_own_id() -> impl Strategy<Value = Kind> {
    prop_oneof![2 => Just(Kind::New), 1 => Just(Kind::SameStamp)]
}

/// Any kind of record of which there is one only. Marked by id, another one that is equal in
/// everything, and read already, hides one that is not.
pub fn kind_of_its_own() -> impl Strategy<Value = Kind> {
    let odd = prop::sample::select(&[Shown::OnlyId, Shown::OnlyStamp, Shown::Neither][..]);
    prop_oneof![
        4 => Just(Kind::New),
        2 => Just(Kind::SameStamp),
        1 => Just(Kind::Twin),
        1 => Just(Kind::Version),
        1 => odd.prop_map(Kind::Odd),
    ]
}

/// Any kind of record.
pub fn any_kind() -> impl Strategy<Value = Kind> {
    let odd = prop::sample::select(&[Shown::OnlyId, Shown::OnlyStamp, Shown::Neither][..]);
    prop_oneof![4 => kind(), 1 => odd.prop_map(Kind::Odd)]
}

/// The records that there are before the first run: mostly single ones, or mostly twins and copies.
pub fn initial(max: usize) -> impl Strategy<Value = Vec<Kind>> {
    let crowd = prop::sample::select(&[Kind::New, Kind::Twin, Kind::Copy][..]);
    prop_oneof![
        prop::collection::vec(any_kind(), 0..max),
        prop::collection::vec(kind(), 0..max),
        prop::collection::vec(crowd, 0..max),
        prop::collection::vec(Just(Kind::New), 0..max),
    ]
}

/// The same, but none is there twice: whether one is cannot be seen if pages are too small for two.
pub fn singles(max: usize) -> impl Strategy<Value = Vec<Kind>> {
    let kind = prop::sample::select(&[Kind::New, Kind::SameStamp, Kind::Twin, Kind::Version][..]);
    prop::collection::vec(kind, 0..max)
}

pub fn event(kind: impl Strategy<Value = Kind> + Clone) -> impl Strategy<Value = Event> {
    let behind = prop::option::weighted(0.8, 0..4usize);
    prop_oneof![
        3 => (0..1_000usize, kind.clone()).prop_map(|(place, kind)| Event::Arrival { place, kind }),
        3 => (behind, kind).prop_map(|(behind, kind)| Event::SlipIn { behind, kind }),
        1 => (1..4usize).prop_map(Event::ForeignMark),
    ]
}

/// What becomes of a request. Of six, one or so goes wrong.
pub fn fate() -> impl Strategy<Value = Fate> {
    let applied = prop_oneof![
        4 => Just(Applied::Once),
        3 => (1..8usize).prop_map(Applied::Late),
        3 => (0..6usize).prop_map(Applied::Twice),
        2 => (0..4usize).prop_map(Applied::InPart),
        2 => Just(Applied::Never),
    ];
    let answer = prop_oneof![
        6 => Just(Answer::Comes),
        3 => Just(Answer::Other),
        8 => Just(Answer::Lost),
        3 => prop::sample::select(&[429, 413, 503, 504][..]).prop_map(Answer::Status),
    ];
    let bad = (applied, answer).prop_map(|(applied, answer)| Fate { applied, answer });
    prop_oneof![5 => Just(Fate::GOOD), 3 => bad]
}

/// The same, or the tap is killed.
pub fn any_fate() -> impl Strategy<Value = Fate> {
    let killed = prop::sample::select(&[Answer::Killed, Answer::KilledBefore][..]);
    prop_oneof![20 => fate(), 1 => killed.prop_map(|answer| Fate { answer, ..Fate::GOOD })]
}

pub fn call(
    fate: impl Strategy<Value = Fate>,
    kind: impl Strategy<Value = Kind> + Clone,
) -> impl Strategy<Value = Call> {
    (prop::collection::vec(event(kind), 0..3), fate, any::<bool>()).prop_map(|(before, fate, overtaken)| Call {
        before,
        fate,
        overtaken,
    })
}

/// A service may cap pages silently, but not below the size that is known to work.
pub fn cap() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(usize::MAX), 1 => FIRST_PAGE..8]
}

pub fn payloads() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..MAX_PAYLOAD, 1..6)
}

pub fn capacity() -> impl Strategy<Value = Capacity> {
    let limited = (
        prop_oneof![Just(usize::MAX), 1..10usize],
        prop_oneof![Just(usize::MAX), MAX_PAYLOAD + 200..3 * MAX_PAYLOAD],
        prop::sample::select(&[400, 413, 422, 500, 503][..]),
        prop_oneof![Just(0), 1..60u64],
    );
    let limited = limited.prop_map(|(records, bytes, refusal, millis)| Capacity {
        records,
        bytes,
        refusal,
        pace: Duration::from_millis(millis),
    });
    prop_oneof![1 => Just(Capacity::UNLIMITED), 2 => limited]
}

/// Marks that come late, twice or in part, records that slip in, and a stop, in a service without
/// limits.
pub fn fence_script(kind: impl Strategy<Value = Kind> + Clone) -> impl Strategy<Value = Script> {
    let calls = prop::collection::vec(call(fate(), kind), 0..16);
    (calls, any::<bool>(), prop::option::weighted(0.3, 1..20usize)).prop_map(|(calls, follows, stops_at)| Script {
        calls,
        follows,
        stops_at,
        ..Script::of(Capacity::UNLIMITED)
    })
}

/// Whatever can happen, with records of this kind that arrive.
pub fn script_with(kind: impl Strategy<Value = Kind> + Clone) -> impl Strategy<Value = Script> {
    (
        prop::collection::vec(call(any_fate(), kind), 0..10),
        (capacity(), cap()),
        prop::option::weighted(0.3, 0..10usize),
        prop::collection::vec(any::<bool>(), 0..4),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.2, 1..20usize),
    )
        .prop_map(|(calls, (capacity, cap), stdout_breaks, commits, follows, stops_at)| Script {
            calls,
            capacity,
            cap,
            stdout_breaks,
            commits,
            follows,
            stops_at,
        })
}

/// The same with any records, but none is there twice.
pub fn script_by_id() -> impl Strategy<Value = Script> {
    let kind = || kind_of_its_own().boxed();
    prop_oneof![script_with(kind()), fence_script(kind())]
}

/// The same with any records, or a service without limits, in which more is found.
pub fn script() -> impl Strategy<Value = Script> {
    let kind = || any_kind().boxed();
    let new = || Just(Kind::New).boxed();
    prop_oneof![script_with(kind()), fence_script(kind()), fence_script(new())]
}

/// Whatever happens but failures: late records, other consumers, capped pages.
pub fn calm_script() -> impl Strategy<Value = Script> {
    let calls = prop::collection::vec(call(Just(Fate::GOOD), any_kind().boxed()), 0..12);
    (calls, cap()).prop_map(|(calls, cap)| Script { calls, cap, ..Script::of(Capacity::UNLIMITED) })
}
