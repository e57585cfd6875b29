//! The wire format from outside: what goes in comes out, nothing else comes in, and the bytes stay the same.

use std::fmt::Debug;

use proptest::prelude::*;

use super::release::{FOLLOWED_CHANNELS_MAX, Following, PROGRESS_MAX, Progress, Rollout};
use super::{
    Announcement, Binding, Change, Claim, ControlRequest, ControlResponse, DecodeError, EncodeError, Entry,
    HASHES_PER_ANNOUNCEMENT_MAX, HASHES_PER_PAGE_MAX, Having, Hello, InventoryPage, InventoryPosition, LimitError,
    Part, ScanError, Stripe, Summary, TagWord, VouchedRun, Vouches,
    announcement::{ANNOUNCEMENT_BYTES_MAX, CHANGES_PER_ANNOUNCEMENT_MAX},
    codec::*,
    control::{CHANGES_PER_PAGE_MAX, CONTROL_REQUEST_BYTES_MAX, CONTROL_RESPONSE_BYTES_MAX, LABEL_BYTES_MAX},
    strategies,
};
use crate::{
    Algorithm, ContentId, NodeId, PieceHash, PieceHashes, PieceSet, Repository, TagRef,
    piece::{BLOB_SIZE_MAX, PIECES_MAX},
};

type Encode<M> = fn(&M) -> Result<Vec<u8>, EncodeError>;
type Decode<M> = fn(&[u8]) -> Result<M, DecodeError>;

/// Bytes are one message or none: they decode to an error, or to a value that encodes to exactly these bytes.
fn one_encoding<M: Debug>(encode: Encode<M>, decode: Decode<M>, bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(value) = decode(bytes) else { return Ok(false) };
    let again = encode(&value);
    prop_assert_eq!(again.as_deref(), Ok(bytes), "{:?}", value);
    Ok(true)
}

/// What has to hold for every message: it comes back, no prefix of it is a message, and a changed byte makes it
/// invalid or another message.
fn survives<M: Debug + PartialEq>(
    encode: Encode<M>,
    decode: Decode<M>,
    message: &M,
    (at, xor): (prop::sample::Index, u8),
) -> Result<(), TestCaseError> {
    let mut bytes = encode(message).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let back = decode(&bytes);
    prop_assert_eq!(back.as_ref(), Ok(message));
    // All prefixes of a short message; of a long one every so many, and the last.
    for len in (0..bytes.len()).step_by(1 + bytes.len() / 256).chain([bytes.len() - 1]) {
        prop_assert!(matches!(decode(&bytes[..len]), Err(DecodeError::Scan(ScanError::Truncated { .. }))), "{}", len);
    }
    let at = at.index(bytes.len());
    bytes[at] ^= xor;
    if one_encoding(encode, decode, &bytes)? {
        prop_assert_ne!(&decode(&bytes).unwrap(), message);
    }
    bytes[at] ^= xor;
    bytes.push(0);
    prop_assert!(decode(&bytes).is_err());
    Ok(())
}

fn mutation() -> impl Strategy<Value = (prop::sample::Index, u8)> {
    (any::<prop::sample::Index>(), 1..=u8::MAX)
}

proptest! {
    #[test]
    fn announcements_survive(message in strategies::announcement(), mutation in mutation()) {
        survives(encode_announcement, decode_announcement, &message, mutation)?;
    }

    #[test]
    fn control_requests_survive(message in strategies::control_request(), mutation in mutation()) {
        survives(encode_control_request, decode_control_request, &message, mutation)?;
    }

    #[test]
    fn control_responses_survive(message in strategies::control_response(), mutation in mutation()) {
        survives(encode_control_response, decode_control_response, &message, mutation)?;
    }

    #[test]
    fn statements_of_a_fleet_survive(
        membership in strategies::membership(),
        enrolment in strategies::enrolment(),
        revocation in strategies::revocation(),
        mutation in mutation(),
    ) {
        survives(encode_membership, decode_membership, &membership, mutation)?;
        survives(encode_enrolment, decode_enrolment, &enrolment, mutation)?;
        survives(encode_revocation, decode_revocation, &revocation, mutation)?;
    }

    #[test]
    fn messages_about_a_fleet_survive(
        credential in strategies::credential(),
        request in strategies::fleet_request(),
        response in strategies::fleet_response(),
        mutation in mutation(),
    ) {
        survives(encode_credential, decode_credential, &credential, mutation)?;
        survives(encode_fleet_request, decode_fleet_request, &request, mutation)?;
        survives(encode_fleet_response, decode_fleet_response, &response, mutation)?;
    }

    #[test]
    fn piece_sets_survive(
        pieces in prop_oneof![0..200_u32, 0..=PIECES_MAX],
        indices in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
        mutation in mutation(),
    ) {
        let mut set = PieceSet::empty(pieces);
        for index in indices.iter().filter(|_| pieces > 0) {
            set.insert(index.index(pieces as usize) as u32);
        }
        survives(encode_piece_set, decode_piece_set, &set, mutation)?;
    }

    #[test]
    fn arbitrary_bytes_are_one_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        one_encoding(encode_announcement, decode_announcement, &bytes)?;
        one_encoding(encode_control_request, decode_control_request, &bytes)?;
        one_encoding(encode_control_response, decode_control_response, &bytes)?;
        one_encoding(encode_piece_set, decode_piece_set, &bytes)?;
        one_encoding(encode_membership, decode_membership, &bytes)?;
        one_encoding(encode_enrolment, decode_enrolment, &bytes)?;
        one_encoding(encode_revocation, decode_revocation, &bytes)?;
        one_encoding(encode_credential, decode_credential, &bytes)?;
        one_encoding(encode_fleet_request, decode_fleet_request, &bytes)?;
        one_encoding(encode_fleet_response, decode_fleet_response, &bytes)?;
    }
}

/// Every byte of one message of each kind, changed to every other value.
#[test]
fn every_single_byte_change_is_refused_or_another_message() {
    for bytes in samples() {
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut changed = bytes.clone();
                changed[at] = value;
                one_encoding(encode_announcement, decode_announcement, &changed).unwrap();
                one_encoding(encode_control_request, decode_control_request, &changed).unwrap();
                one_encoding(encode_control_response, decode_control_response, &changed).unwrap();
            }
        }
    }
}

fn sample_position() -> InventoryPosition {
    InventoryPosition { epoch: 0x0102_0304_0506_0708, seq: 300 }
}

fn sample_node() -> NodeId {
    NodeId::from_public_key([7; 32])
}

fn sample_hello() -> Hello {
    Hello { bulk_port: 7119, version: "0.1.0".to_owned(), summary: sample_summary() }
}

fn sample_summary() -> Summary {
    Summary { position: sample_position(), origin_reachable: Some(true), platform: "linux/arm64/v8".to_owned() }
}

fn sample_changes() -> Vec<Change> {
    let content = ContentId::of(Algorithm::Sha256, b"abc");
    let repository = Repository::new("docker.io", "library/debian").unwrap();
    let reference = TagRef::new(repository, "12").unwrap();
    let binding =
        Binding { reference, content, observed_unix_s: 1_700_000_000, age_ms: Some(61_000), by: Some(sample_node()) };
    vec![
        Change { seq: 301, entry: Entry::Held { content, size: 70_000 } },
        Change { seq: 302, entry: Entry::Gone { content: ContentId::of(Algorithm::Sha512, b"abc") } },
        Change { seq: 304, entry: Entry::Bound(binding) },
    ]
}

fn sample_following() -> Following {
    Following {
        repository: "ab".repeat(16),
        version: 7,
        content: Some(ContentId::of(Algorithm::Sha256, b"abc")),
        channels: vec!["stable".to_owned()],
        platforms: vec!["linux/arm64".to_owned()],
    }
}

fn sample_page() -> InventoryPage {
    let position = InventoryPosition { seq: 305, ..sample_position() };
    InventoryPage { from_start: false, changes: sample_changes(), position, more: true }
}

/// One message of each kind, encoded.
fn samples() -> [Vec<u8>; 12] {
    let changed = Announcement::Changed { since: sample_position(), changes: sample_changes() };
    let unasked = Announcement::Summary(Summary { origin_reachable: None, ..sample_summary() });
    let inventory = ControlRequest::Inventory { since: sample_position() };
    let reference = TagRef::new(Repository::new("a", "b").unwrap(), "c").unwrap();
    let said = ControlRequest::TagSaid { reference: reference.clone(), word: TagWord::Away };
    let content = ContentId::of(Algorithm::Sha256, b"abc");
    let stripe = Stripe { first: 3, end: 40, turn: 1, tree: 2 };
    let mut pieces = PieceSet::empty(11);
    assert!(pieces.insert(0) && pieces.insert(9));
    [
        encode_announcement(&changed),
        encode_announcement(&unasked),
        encode_control_request(&ControlRequest::Hello(sample_hello())),
        encode_control_request(&inventory),
        encode_control_response(&ControlResponse::Hello(sample_hello())),
        encode_control_response(&ControlResponse::Inventory(sample_page())),
        encode_control_request(&ControlRequest::Claim { content, stripe }),
        encode_control_response(&ControlResponse::Claim { free: true }),
        encode_control_request(&ControlRequest::Tag { reference }),
        encode_control_request(&said),
        encode_control_response(&ControlResponse::Tag(TagWord::Wait)),
        encode_piece_set(&pieces),
    ]
    .map(Result::unwrap)
}

/// The list of changes in [`sample_changes`].
const CHANGES_HEX: &str = concat!(
    "83",                          // three changes
    "a2 6173 19012d 6165 a1 6168", // number 301, held:
    "a2 6163 5824 01551220",       // a CID of 36 bytes: version 1, raw, sha2-256, 32 bytes
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "6173 1a00011170",             // 70,000 bytes
    "a2 6173 19012e 6165 a1 6167", // number 302, gone:
    "a1 6163 5844 01551340",       // a CID of 68 bytes: sha2-512, 64 bytes
    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a",
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    "a2 6173 190130 6165 a1 6162",             // number 304, bound:
    "a5 6172 82 82 69 646f636b65722e696f",     // docker.io
    "6e 6c6962726172792f64656269616e 62 3132", // library/debian, 12
    "6163 5824 01551220",
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "6174 1a6553f100",       // at 1,700,000,000
    "6161 19ee48 6162 5820", // 61 seconds ago, to another node
    "0707070707070707070707070707070707070707070707070707070707070707",
);
const HELLO_HEX: &str = concat!(
    "a1 6168 a3 6162 191bcf 6176 65 302e312e30", // port 7119, version 0.1.0
    "6173 a3 6170 a2 6165 1b0102030405060708 6173 19012c",
    "616f f5 6161 6e 6c696e75782f61726d36342f7638",
);

/// If this has to change, PROTOCOL_VERSION has to change with it.
#[test]
fn the_bytes_of_each_message_stay_the_same() {
    let position = "a2 6165 1b0102030405060708 6173 19012c";
    let golden = [
        format!("a1 6163 a2 6173 {position} 6163 {CHANGES_HEX}"),
        format!("a1 6173 a3 6170 {position} 616f f6 6161 6e 6c696e75782f61726d36342f7638"),
        HELLO_HEX.to_owned(),
        format!("a1 6169 a1 6173 {position}"),
        HELLO_HEX.to_owned(),
        format!("a1 6169 a4 6166 f4 6163 {CHANGES_HEX} 6170 a2 6165 1b0102030405060708 6173 190131 616d f5"),
        concat!(
            "a1 6163 a2 6163 5824 01551220 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "6173 a4 6166 03 6165 1828 6174 01 6167 02",
        )
        .to_owned(),
        "a1 6163 a1 6166 f5".to_owned(),
        "a1 6174 a1 6172 82 82 6161 6162 6163".to_owned(),
        "a1 616f a2 6172 82 82 6161 6162 6163 6177 616f".to_owned(),
        "a1 6174 6177".to_owned(),
        "82 0b 42 0102".to_owned(),
    ];
    for (bytes, golden) in samples().iter().zip(golden) {
        assert_eq!(hex::encode(bytes), golden.replace(' ', ""));
    }
}

/// What follows releases was added with version 5.
#[test]
fn the_bytes_of_what_followers_say_stay_the_same() {
    let changes = vec![Change { seq: 1, entry: Entry::Following(sample_following()) }];
    let bytes = encode_announcement(&Announcement::Changed { since: sample_position(), changes });
    assert!(bytes.is_err(), "its number is before the position");
    let since = InventoryPosition { epoch: 1, seq: 0 };
    let changes = vec![Change { seq: 1, entry: Entry::Following(sample_following()) }];
    let bytes = encode_announcement(&Announcement::Changed { since, changes }).unwrap();
    let golden = concat!(
        "a1 6163 a2 6173 a2 6165 01 6173 00 6163 81 a2 6173 01 6165 a1 6166 a5 6172 7820",
        "6162616261626162616261626162616261626162616261626162616261626162 6176 07 6163 5824 01551220",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 616e 81 66 737461626c65",
        "6170 81 6b 6c696e75782f61726d3634",
    );
    assert_eq!(hex::encode(bytes), golden.replace(' ', ""));
    let progress = Progress {
        channel: "stable".to_owned(),
        version: "1".to_owned(),
        total: 10,
        held: 5,
        bytes_per_s: 1,
        from_origin: 2,
        waits_for: String::new(),
    };
    let rollout = Rollout { platform: "a/b".to_owned(), refused: String::new(), releases: vec![progress] };
    let bytes = encode_announcement(&Announcement::Rollout(rollout)).unwrap();
    let golden = concat!(
        "a1 6172 a3 6170 63 612f62 6172 60 6173 81 a7 616e 66 737461626c65 6176 61 31 6174 0a 6168 05 6173 01",
        "616f 02 6177 60",
    );
    assert_eq!(hex::encode(bytes), golden.replace(' ', ""));
}

#[test]
fn what_followers_say_is_bounded() {
    let channels = vec!["c".to_owned(); FOLLOWED_CHANNELS_MAX + 1];
    let entry = Entry::Following(Following { channels, ..sample_following() });
    let since = InventoryPosition { epoch: 1, seq: 0 };
    let changed = Announcement::Changed { since, changes: vec![Change { seq: 1, entry }] };
    assert!(matches!(encode_announcement(&changed), Err(EncodeError::Limit(LimitError::TooMany { .. }))));
    let label = strategies::longest_label();
    let progress = Progress {
        channel: label.clone(),
        version: label.clone(),
        total: u64::MAX,
        held: u64::MAX,
        bytes_per_s: u64::MAX,
        from_origin: u64::MAX,
        waits_for: label.clone(),
    };
    let most = Rollout { platform: label.clone(), refused: label, releases: vec![progress; PROGRESS_MAX] };
    assert!(encode_announcement(&Announcement::Rollout(most)).unwrap().len() < ANNOUNCEMENT_BYTES_MAX / 4);
}

#[test]
fn the_longest_messages_fit_their_limits() {
    let since = InventoryPosition { epoch: u64::MAX, seq: 0 };
    let changes = strategies::longest_changes(CHANGES_PER_ANNOUNCEMENT_MAX);
    let bytes = encode_announcement(&Announcement::Changed { since, changes }).unwrap();
    assert!(bytes.len() <= ANNOUNCEMENT_BYTES_MAX);
    decode_announcement(&bytes).unwrap();

    let position = InventoryPosition { epoch: u64::MAX, seq: u64::MAX };
    let changes = strategies::longest_changes(CHANGES_PER_PAGE_MAX);
    let page = InventoryPage { from_start: false, changes, position, more: false };
    let bytes = encode_control_response(&ControlResponse::Inventory(page)).unwrap();
    assert!(bytes.len() <= CONTROL_RESPONSE_BYTES_MAX);
    decode_control_response(&bytes).unwrap();

    let label = strategies::longest_label();
    let summary = Summary { position, origin_reachable: None, platform: label.clone() };
    let hello = Hello { bulk_port: u16::MAX, version: label, summary };
    let bytes = encode_control_request(&ControlRequest::Hello(hello)).unwrap();
    assert!(bytes.len() <= CONTROL_REQUEST_BYTES_MAX);
    decode_control_request(&bytes).unwrap();

    let word = TagWord::Bound(strategies::longest_binding());
    let said = ControlRequest::TagSaid { reference: strategies::longest_binding().reference, word };
    decode_control_request(&encode_control_request(&said).unwrap()).unwrap();

    let bytes = encode_piece_set(&PieceSet::full(PIECES_MAX)).unwrap();
    assert!(decode_piece_set(&bytes).unwrap().is_full());
}

fn wanted(size: u64, pieces: PieceSet) -> Announcement {
    let stripe = Stripe { first: u32::MAX, end: u32::MAX, turn: u8::MAX, tree: u8::MAX };
    let claim = Some(Claim { stripe, lease_ms: u32::MAX });
    let content = ContentId::of(Algorithm::Sha512, b"");
    Announcement::Taking(Part::Wanted { content, origin: true, having: Some(Having { size, pieces }), claim })
}

fn hashes(count: usize) -> PieceHashes {
    PieceHashes(vec![PieceHash([0xff; 32]); count])
}

fn vouched(first: u32, count: usize) -> Announcement {
    let content = ContentId::of(Algorithm::Sha512, b"");
    Announcement::Taking(Part::Vouched { content, size: BLOB_SIZE_MAX, first, hashes: hashes(count) })
}

fn vouches(counts: &[usize]) -> ControlResponse {
    let run = |count: &usize| VouchedRun { first: 0, hashes: hashes(*count), own: true };
    ControlResponse::Vouches(Vouches { size: BLOB_SIZE_MAX, runs: counts.iter().map(run).collect() })
}

#[test]
fn the_longest_words_on_pieces_fit_their_limits_and_longer_ones_are_refused() {
    for longest in [wanted(BLOB_SIZE_MAX, PieceSet::full(PIECES_MAX)), vouched(0, HASHES_PER_ANNOUNCEMENT_MAX)] {
        let bytes = encode_announcement(&longest).unwrap();
        assert!(bytes.len() <= ANNOUNCEMENT_BYTES_MAX);
        assert_eq!(decode_announcement(&bytes), Ok(longest));
    }
    let bytes = encode_control_response(&vouches(&[HASHES_PER_PAGE_MAX - 1, 1])).unwrap();
    assert!(bytes.len() <= CONTROL_RESPONSE_BYTES_MAX);
    decode_control_response(&bytes).unwrap();

    let announcement = |message, limit| refused(encode_announcement, decode_announcement, &message, limit);
    announcement(wanted(1, PieceSet::full(2)), LimitError::OtherPieces { size: 1, found: 2 });
    announcement(wanted(BLOB_SIZE_MAX + 1, PieceSet::full(2)), LimitError::BlobTooLarge(BLOB_SIZE_MAX + 1));
    let too_many = |first, found, max| LimitError::Hashes { first, found, max };
    let max = HASHES_PER_ANNOUNCEMENT_MAX;
    announcement(vouched(0, max + 1), too_many(0, max + 1, max));
    announcement(vouched(0, 0), too_many(0, 0, max));
    announcement(vouched(PIECES_MAX - 1, 2), too_many(PIECES_MAX - 1, 2, max));
    let over = vouches(&[HASHES_PER_PAGE_MAX, 1]);
    refused(encode_control_response, decode_control_response, &over, too_many(0, 1, 0));
}

/// Encodes without the checks, as a peer that keeps to no limits would.
fn unchecked(message: &impl serde::Serialize) -> Vec<u8> {
    encode_unchecked(message).unwrap()
}

/// A value outside its limits is neither sent nor taken.
fn refused<M: Debug + PartialEq + serde::Serialize>(
    encode: Encode<M>,
    decode: Decode<M>,
    message: &M,
    limit: LimitError,
) {
    assert_eq!(encode(message), Err(EncodeError::Limit(limit.clone())));
    assert_eq!(decode(&unchecked(message)), Err(DecodeError::Limit(limit)));
}

#[test]
fn values_outside_their_limits_are_neither_sent_nor_taken() {
    let since = InventoryPosition { epoch: 1, seq: 5 };
    let gone = |seq| Change { seq, entry: Entry::Gone { content: ContentId::of(Algorithm::Sha256, b"") } };
    let changed = |changes| Announcement::Changed { since, changes };
    let not_ascending = |seq, after| LimitError::NotAscending { seq, after };
    let announcement = |changes, limit| refused(encode_announcement, decode_announcement, &changed(changes), limit);
    announcement(vec![gone(5)], not_ascending(5, 5));
    announcement(vec![gone(7), gone(7)], not_ascending(7, 7));
    announcement(vec![gone(8), gone(7)], not_ascending(7, 8));
    let content = ContentId::of(Algorithm::Sha256, b"");
    let large = Change { seq: 6, entry: Entry::Held { content, size: BLOB_SIZE_MAX + 1 } };
    announcement(vec![large], LimitError::BlobTooLarge(BLOB_SIZE_MAX + 1));

    let page =
        |changes, more| ControlResponse::Inventory(InventoryPage { from_start: true, changes, position: since, more });
    let response = |changes, more, limit| {
        refused(encode_control_response, decode_control_response, &page(changes, more), limit);
    };
    response(vec![gone(0)], false, not_ascending(0, 0));
    response(vec![gone(6)], false, LimitError::BeyondPosition { seq: 6, position: 5 });
    response(vec![], true, LimitError::EmptyPage);

    let request = |hello, limit| {
        refused(encode_control_request, decode_control_request, &ControlRequest::Hello(hello), limit);
    };
    let long = "v".repeat(LABEL_BYTES_MAX + 1);
    let too_long = |field| LimitError::LabelTooLong { field, found: LABEL_BYTES_MAX + 1 };
    request(Hello { version: long.clone(), ..sample_hello() }, too_long("version"));
    let platform = |platform: &str| Summary { platform: platform.to_owned(), ..sample_summary() };
    request(Hello { summary: platform(&long), ..sample_hello() }, too_long("platform"));
    for forged in ["linux\n", "\u{1b}[2J", "linüx", "\u{7f}"] {
        let limit = LimitError::LabelNotPrintable { field: "platform" };
        request(Hello { summary: platform(forged), ..sample_hello() }, limit.clone());
        refused(encode_announcement, decode_announcement, &Announcement::Summary(platform(forged)), limit);
    }
    let forged = Hello { version: "\t".to_owned(), ..sample_hello() };
    request(forged, LimitError::LabelNotPrintable { field: "version" });

    let pieces = PIECES_MAX + 1;
    assert_eq!(encode_piece_set(&PieceSet::empty(pieces)), Err(LimitError::TooManyPieces(pieces).into()));
}

#[test]
fn one_change_too_many_is_neither_sent_nor_taken() {
    let gone = |seq| Change { seq, entry: Entry::Gone { content: ContentId::of(Algorithm::Sha256, b"") } };
    let since = InventoryPosition { epoch: 1, seq: 0 };
    let changes = |count: usize| (1..=count as u64).map(gone).collect::<Vec<_>>();

    let max = CHANGES_PER_ANNOUNCEMENT_MAX;
    let message = Announcement::Changed { since, changes: changes(max + 1) };
    assert_eq!(encode_announcement(&message), Err(LimitError::TooManyChanges { found: max + 1, max }.into()));
    let refusal = decode_announcement(&unchecked(&message));
    assert!(matches!(refusal, Err(DecodeError::Scan(ScanError::TooWide { found: 21, max: 20, .. }))), "{refusal:?}");

    let max = CHANGES_PER_PAGE_MAX;
    let position = InventoryPosition { epoch: 1, seq: 1000 };
    let page = InventoryPage { from_start: true, changes: changes(max + 1), position, more: false };
    let message = ControlResponse::Inventory(page);
    assert_eq!(encode_control_response(&message), Err(LimitError::TooManyChanges { found: max + 1, max }.into()));
    let refusal = decode_control_response(&unchecked(&message));
    assert!(matches!(refusal, Err(DecodeError::Scan(ScanError::TooWide { found: 257, .. }))), "{refusal:?}");
}

/// Well-formed CBOR that a lenient decoder would take for the same request, or for some request.
#[test]
fn other_spellings_of_a_message_are_refused() {
    let request = |text: &str| decode_control_request(&hex::decode(text.replace(' ', "")).unwrap());
    let since = InventoryPosition { epoch: 1, seq: 5 };
    assert_eq!(request("a1 6169 a1 6173 a2 6165 01 6173 05"), Ok(ControlRequest::Inventory { since }));
    for (why, spelling) in [
        ("a number longer than needed", "a1 6169 a1 6173 a2 6165 01 6173 1805"),
        ("a key's length longer than needed", "a1 780169 a1 6173 a2 6165 01 6173 05"),
        ("a map's length longer than needed", "a1 6169 a1 6173 b802 6165 01 6173 05"),
        ("keys out of order", "a1 6169 a1 6173 a2 6173 05 6165 01"),
        ("a struct as an array", "a1 6169 a1 6173 82 01 05"),
        ("an unknown field", "a1 6169 a1 6173 a3 6165 01 6173 05 617a 00"),
        ("keys as bytes", "a1 6169 a1 6173 a2 4165 01 4173 05"),
    ] {
        assert_eq!(request(spelling), Err(DecodeError::NotCanonical), "{why}");
    }
    for (why, other) in [
        ("an unknown variant", "a1 617a a1 6173 a2 6165 01 6173 05"),
        ("a field twice", "a1 6169 a1 6173 a2 6165 01 6165 01"),
        ("a field missing", "a1 6169 a1 6173 a1 6165 01"),
        ("fields by number", "a1 01 a1 00 a2 00 01 01 05"),
        ("an enum as an array", "82 6169 a1 6173 a2 6165 01 6173 05"),
        ("two variants", "a2 6169 a1 6173 a2 6165 01 6173 05 6168 00"),
        ("null", "f6"),
    ] {
        let refusal = request(other);
        assert!(matches!(refusal, Err(DecodeError::Mismatch(_))), "{why}: {refusal:?}");
    }
}

#[test]
fn bombs_are_refused_before_decoding() {
    let deep = vec![0x81; ANNOUNCEMENT_BYTES_MAX];
    let at = 8;
    assert_eq!(decode_announcement(&deep), Err(ScanError::TooDeep { at }.into()));
    let found = u64::MAX >> 1;
    let length = [&[0x9b][..], &found.to_be_bytes()].concat();
    assert_eq!(decode_announcement(&length), Err(ScanError::TooWide { at: 0, found, max: 20 }.into()));
    let long = vec![0; CONTROL_RESPONSE_BYTES_MAX + 1];
    let too_long = ScanError::TooLong { found: long.len(), max: CONTROL_RESPONSE_BYTES_MAX };
    assert_eq!(decode_control_response(&long), Err(too_long.into()));
}

/// What a peer sends can end up in a log: no control characters, and not much of it.
#[test]
fn complaints_do_not_carry_what_a_peer_wrote_into_a_terminal() {
    let mut bad_name = samples()[0].clone();
    let name = bad_name.windows(9).position(|window| window == b"docker.io").unwrap();
    bad_name[name..name + 5].copy_from_slice(b"\x1b[2J\n");
    let variant = "\u{1b}[2J\n".repeat(100);
    let bad_variant = [&[0xa1, 0x79, 0x01, 0xf4][..], variant.as_bytes(), &[0xa0]].concat();
    for (bytes, why) in [(bad_name, "is not a registry"), (bad_variant, "unknown variant")] {
        let Err(DecodeError::Mismatch(complaint)) = decode_announcement(&bytes) else { panic!("not a mismatch") };
        assert!(complaint.contains(why), "{complaint}");
        assert!(complaint.chars().all(|char| !char.is_control()), "{complaint:?}");
        assert!(complaint.len() <= 200, "{complaint}");
    }
}
