//! Messages for property tests: all that the limits allow, with the edges more often than chance would have them.

use proptest::{collection::vec, prelude::*};

use serde_bytes::ByteBuf;

use super::fleet::{
    Credential, Enrolment, FleetRequest, FleetResponse, Membership, RECORD_BYTES_MAX, REVOCATIONS_PER_MESSAGE_MAX,
    Revocation,
};
use super::release::{FOLLOWED_CHANNELS_MAX, Following, PROGRESS_MAX, Progress, Rollout};
use super::{
    Announcement, Binding, Change, Claim, ControlRequest, ControlResponse, Entry, Having, Hello, InventoryPage,
    InventoryPosition, Part, Stripe, Summary, TagWord, VouchedRun, Vouches,
    announcement::CHANGES_PER_ANNOUNCEMENT_MAX,
    control::{CHANGES_PER_PAGE_MAX, LABEL_BYTES_MAX},
};
use crate::{
    Algorithm, ContentId, NodeId, PieceHash, PieceHashes, PieceLayout, PieceSet, Repository, TagRef,
    name::{REGISTRY_LEN_MAX, REPOSITORY_LEN_MAX, TAG_LEN_MAX},
    piece::BLOB_SIZE_MAX,
};

pub(super) fn content() -> impl Strategy<Value = ContentId> {
    let of = |algorithm: Algorithm| {
        vec(any::<u8>(), algorithm.digest_len())
            .prop_map(move |digest| ContentId::from_digest(algorithm, &digest).unwrap())
    };
    prop_oneof![of(Algorithm::Sha256), of(Algorithm::Sha512)]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..30_u64, any::<u64>(), Just(u64::MAX), any::<u16>().prop_map(u64::from)]
}

pub(super) fn position() -> impl Strategy<Value = InventoryPosition> {
    (number(), number()).prop_map(|(epoch, seq)| InventoryPosition { epoch, seq })
}

fn label() -> impl Strategy<Value = String> {
    vec(b' '..=b'~', 0..=LABEL_BYTES_MAX).prop_map(|bytes| String::from_utf8(bytes).unwrap())
}

fn reference() -> impl Strategy<Value = TagRef> {
    (
        "[a-z0-9]{1,12}(\\.[a-z]{1,8}){0,3}(:[1-9][0-9]{0,3})?",
        "[a-z0-9]{1,20}(/[a-z0-9]{1,20}){0,3}",
        "[A-Za-z0-9_.-]{0,20}",
    )
        .prop_map(|(registry, name, tag)| {
            TagRef::new(Repository::new(&registry, &name).unwrap(), &format!("v{tag}")).unwrap()
        })
}

pub(super) fn binding() -> impl Strategy<Value = Binding> {
    let by = any::<[u8; 32]>().prop_map(NodeId::from_public_key);
    let age = proptest::option::of(number());
    (reference(), content(), number(), age, proptest::option::of(by)).prop_map(
        |(reference, content, observed_unix_s, age_ms, by)| Binding { reference, content, observed_unix_s, age_ms, by },
    )
}

fn tag_word() -> impl Strategy<Value = TagWord> {
    prop_oneof![binding().prop_map(TagWord::Bound), Just(TagWord::Ask), Just(TagWord::Wait), Just(TagWord::Away),]
}

fn entry() -> impl Strategy<Value = Entry> {
    let size = prop_oneof![0..=BLOB_SIZE_MAX, Just(BLOB_SIZE_MAX), 0..300_u64];
    prop_oneof![
        (content(), size).prop_map(|(content, size)| Entry::Held { content, size }),
        content().prop_map(|content| Entry::Gone { content }),
        binding().prop_map(Entry::Bound),
        following().prop_map(Entry::Following),
    ]
}

fn following() -> impl Strategy<Value = Following> {
    let labels = || vec(label(), 0..=FOLLOWED_CHANNELS_MAX);
    (label(), number(), proptest::option::of(content()), labels(), labels()).prop_map(
        |(repository, version, content, channels, platforms)| Following {
            repository,
            version,
            content,
            channels,
            platforms,
        },
    )
}

fn progress() -> impl Strategy<Value = Progress> {
    (label(), label(), number(), number(), number(), label()).prop_map(
        |(channel, version, total, held, bytes_per_s, waits_for)| Progress {
            channel,
            version,
            total,
            held,
            bytes_per_s,
            from_origin: held,
            waits_for,
        },
    )
}

fn rollout() -> impl Strategy<Value = Rollout> {
    (label(), label(), vec(progress(), 0..=PROGRESS_MAX)).prop_map(|(platform, refused, releases)| Rollout {
        platform,
        refused,
        releases,
    })
}

/// Changes numbered upwards from after `after`, with gaps.
fn changes(after: u64, max: usize) -> impl Strategy<Value = Vec<Change>> {
    vec((1..1_000_u64, entry()), 0..=max).prop_map(move |entries| {
        let mut seq = after;
        let number = |(gap, entry)| {
            seq += gap;
            Change { seq, entry }
        };
        entries.into_iter().map(number).collect()
    })
}

fn hashes(max: usize) -> impl Strategy<Value = PieceHashes> {
    vec(any::<[u8; 32]>().prop_map(PieceHash), 1..=max).prop_map(PieceHashes)
}

fn having() -> impl Strategy<Value = Having> {
    (0..BLOB_SIZE_MAX / 64, vec(any::<u32>(), 0..9)).prop_map(|(size, pieces)| {
        let mut set = PieceSet::empty(PieceLayout::for_size(size).unwrap().count());
        for piece in pieces {
            set.insert(piece % set.pieces().max(1));
        }
        Having { size, pieces: set }
    })
}

fn stripe() -> impl Strategy<Value = Stripe> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u8>());
    numbers.prop_map(|(first, end, turn, tree)| Stripe { first, end, turn, tree })
}

fn part() -> impl Strategy<Value = Part> {
    let claim = (stripe(), any::<u32>()).prop_map(|(stripe, lease_ms)| Claim { stripe, lease_ms });
    prop_oneof![
        (content(), any::<bool>(), proptest::option::of(having()), proptest::option::of(claim))
            .prop_map(|(content, origin, having, claim)| Part::Wanted { content, origin, having, claim }),
        (content(), 0..9_u32, hashes(5))
            .prop_map(|(content, first, hashes)| { Part::Vouched { content, size: 1 << 30, first, hashes } }),
        content().prop_map(|content| Part::Left { content }),
    ]
}

fn summary() -> impl Strategy<Value = Summary> {
    (position(), any::<Option<bool>>(), label()).prop_map(|(position, origin_reachable, platform)| Summary {
        position,
        origin_reachable,
        platform,
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    (any::<u16>(), label(), summary()).prop_map(|(bulk_port, version, summary)| Hello { bulk_port, version, summary })
}

pub(super) fn announcement() -> impl Strategy<Value = Announcement> {
    let since = (number(), 0..u64::from(u32::MAX)).prop_map(|(epoch, seq)| InventoryPosition { epoch, seq });
    let changed = since.prop_flat_map(|since| {
        changes(since.seq, CHANGES_PER_ANNOUNCEMENT_MAX)
            .prop_map(move |changes| Announcement::Changed { since, changes })
    });
    prop_oneof![
        changed,
        summary().prop_map(Announcement::Summary),
        part().prop_map(Announcement::Taking),
        rollout().prop_map(Announcement::Rollout),
    ]
}

pub(super) fn control_request() -> impl Strategy<Value = ControlRequest> {
    prop_oneof![
        hello().prop_map(ControlRequest::Hello),
        position().prop_map(|since| ControlRequest::Inventory { since }),
        (content(), any::<u32>()).prop_map(|(content, first)| ControlRequest::Vouches { content, first }),
        (content(), stripe()).prop_map(|(content, stripe)| ControlRequest::Claim { content, stripe }),
        reference().prop_map(|reference| ControlRequest::Tag { reference }),
        (reference(), tag_word()).prop_map(|(reference, word)| ControlRequest::TagSaid { reference, word }),
    ]
}

fn page() -> impl Strategy<Value = InventoryPage> {
    // Most pages short, so that the tests that try every byte stay quick.
    let changes = prop_oneof![4 => changes(0, 6), 1 => changes(0, CHANGES_PER_PAGE_MAX)];
    (any::<bool>(), changes, number(), number(), any::<bool>()).prop_map(|(from_start, changes, epoch, ahead, more)| {
        let seq = changes.last().map_or(0, |change| change.seq).saturating_add(ahead);
        let more = more && !changes.is_empty();
        InventoryPage { from_start, changes, position: InventoryPosition { epoch, seq }, more }
    })
}

pub(super) fn control_response() -> impl Strategy<Value = ControlResponse> {
    let run = (0..9_u32, hashes(3), any::<bool>()).prop_map(|(first, hashes, own)| VouchedRun { first, hashes, own });
    let vouches = vec(run, 0..4).prop_map(|runs| Vouches { size: 1 << 30, runs });
    prop_oneof![
        hello().prop_map(ControlResponse::Hello),
        page().prop_map(ControlResponse::Inventory),
        vouches.prop_map(ControlResponse::Vouches),
        any::<bool>().prop_map(|free| ControlResponse::Claim { free }),
        tag_word().prop_map(ControlResponse::Tag),
        Just(ControlResponse::Noted),
    ]
}

fn key() -> impl Strategy<Value = NodeId> {
    any::<[u8; 32]>().prop_map(NodeId::from_public_key)
}

pub(super) fn membership() -> impl Strategy<Value = Membership> {
    (key(), key(), number(), proptest::option::of(number())).prop_map(
        |(authority, peer, issued_unix_s, expires_unix_s)| Membership {
            authority,
            peer,
            issued_unix_s,
            expires_unix_s,
        },
    )
}

pub(super) fn enrolment() -> impl Strategy<Value = Enrolment> {
    (key(), key(), number(), number()).prop_map(|(authority, key, issued_unix_s, expires_unix_s)| Enrolment {
        authority,
        key,
        issued_unix_s,
        expires_unix_s,
    })
}

pub(super) fn revocation() -> impl Strategy<Value = Revocation> {
    (key(), key(), number()).prop_map(|(authority, subject, when_unix_s)| Revocation {
        authority,
        subject,
        when_unix_s,
    })
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), RECORD_BYTES_MAX)]
}

pub(super) fn credential() -> impl Strategy<Value = Credential> {
    (record(), proptest::option::of(record().prop_map(ByteBuf::from)))
        .prop_map(|(membership, enrolment)| Credential { membership, enrolment })
}

fn records() -> impl Strategy<Value = Vec<ByteBuf>> {
    prop_oneof![4 => vec(record().prop_map(ByteBuf::from), 0..4),
        1 => Just(vec![ByteBuf::from(vec![0; RECORD_BYTES_MAX]); REVOCATIONS_PER_MESSAGE_MAX])]
}

pub(super) fn fleet_request() -> impl Strategy<Value = FleetRequest> {
    prop_oneof![
        (any::<[u8; 32]>(), proptest::option::of((key(), key())))
            .prop_map(|(known, after)| FleetRequest::Sync { known, after }),
        records().prop_map(|records| FleetRequest::News { records }),
    ]
}

pub(super) fn fleet_response() -> impl Strategy<Value = FleetResponse> {
    (records(), any::<bool>()).prop_map(|(records, more)| FleetResponse { records, more })
}

/// The longest label.
pub(super) fn longest_label() -> String {
    "~".repeat(LABEL_BYTES_MAX)
}

/// The longest binding that the grammar of names allows.
pub(super) fn longest_binding() -> Binding {
    let host = [&"a".repeat(63), &"b".repeat(63), &"c".repeat(63), &*"d".repeat(61)].join(".");
    let registry = format!("{host}:65535");
    assert_eq!(registry.len(), REGISTRY_LEN_MAX);
    let repository = Repository::new(&registry, &"r".repeat(REPOSITORY_LEN_MAX)).unwrap();
    Binding {
        reference: TagRef::new(repository, &"t".repeat(TAG_LEN_MAX)).unwrap(),
        content: ContentId::of(Algorithm::Sha512, b""),
        observed_unix_s: u64::MAX,
        age_ms: Some(u64::MAX),
        by: Some(NodeId::from_public_key([0xff; 32])),
    }
}

/// As many of the longest changes as asked for, up to the highest number.
pub(super) fn longest_changes(count: usize) -> Vec<Change> {
    let first = u64::MAX - count as u64;
    (1..=count as u64).map(|at| Change { seq: first + at, entry: Entry::Bound(longest_binding()) }).collect()
}
