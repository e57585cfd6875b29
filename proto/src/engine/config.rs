//! Every number of the engine: unit, default and why.
//!
//! Invariant: the engine has no number with a meaning outside this file, and every collection that something
//! outside can make grow has a limit in [`Limits`].

use std::time::Duration;

use thiserror::Error;

use super::{
    budget::Uplink,
    origin::Probing,
    tags::{Keeping, TagRules},
};
use crate::wire::control::LABEL_BYTES_MAX;

/// How a node is and how it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// TCP port of this node's bulk exchange, told to peers. No default: port 0 says that it serves nothing.
    pub bulk_port: u16,
    /// Program version, told to peers, for people. Printable ASCII of at most [`LABEL_BYTES_MAX`]
    /// bytes.
    pub version: String,
    /// OCI platform such as `linux/arm64/v8`, told to peers. Printable ASCII of at most [`LABEL_BYTES_MAX`]
    /// bytes.
    pub platform: String,

    /// From the first change of the own inventory to its announcement. 20 ms: a burst of small blobs becomes one
    /// message, and nobody who waits for a blob notices.
    pub announce_delay: Duration,
    /// Announcements sent at once for a burst; what does not fit is left to the peers' questions. 4: eighty
    /// changes, more than an image has blobs; beyond that asking is cheaper than telling everybody.
    pub announcements_per_burst_max: usize,
    /// Bytes of changes in one announcement, as estimated. 12 KiB: a quarter below what the wire allows, since
    /// the estimate does not know the encoding.
    pub announcement_bytes_max: usize,
    /// Between two summaries, give or take a quarter. 10 min: gossip loses little, and among twenty nodes this
    /// costs each about 300 bytes a minute.
    pub summary_interval: Duration,
    /// From a new connection to a summary, give or take a quarter. 15 s: what was gossiped before the gossip
    /// mesh included the new peer is then noticed, and nodes that start together say it once for all.
    pub summary_after_connect: Duration,

    /// For a control request to be answered. 10 s: a peer that takes longer over a few kilobytes is not there.
    pub request_timeout: Duration,
    /// Before a peer that did not answer is asked again; doubles with every failure in a row, up to 32 times.
    /// 5 s: 5 s to 160 s.
    pub request_retry: Duration,

    /// For a connection that was asked for to come about. 3 s: a dial and its handshakes take a tenth of that on a busy LAN.
    pub reach_patience: Duration,
    /// Nodes that may turn out not to be in reach before no other one is hoped for until `reach_retry` is over. 4: twelve
    /// seconds in a minute, where a wall is between two parts of a site.
    pub reach_tries: usize,
    /// After a connection with a node was asked for, before it is again. 60 s: whatever was in the way may be gone.
    pub reach_retry: Duration,

    /// Without progress of a fetch from a peer. 10 s: a peer is on the same LAN, and another source may wait.
    pub fetch_stall_peer: Duration,
    /// The same from a peer that has not the whole blob yet and waits for bytes itself. 60 s: a piece of 1 MiB over 140
    /// kbit/s; that the owner has given up is known from its claim long before.
    pub fetch_stall_growing: Duration,
    /// The same for a section of a blob that spreads from a holder. 20 s: a piece of 1 MiB, to four children at each of three
    /// hops, over 10 Mbit/s.
    pub fetch_stall_section: Duration,
    /// Without progress of a fetch from an origin, first byte included. 30 s: registries redirect, wake up
    /// caches and are far away.
    pub fetch_stall_origin: Duration,
    /// Before sources that failed are tried again; doubles with every round. 500 ms.
    pub retry_first: Duration,
    /// Longest time between two rounds. 10 s.
    pub retry_max: Duration,
    /// Longest wait that a source may ask for with `Retry-After`. 60 s: a longer one is no different from being
    /// away.
    pub retry_after_max: Duration,
    /// Without progress, after which a transfer that has pieces is given up once no source works. 60 s: a reader
    /// has been served a part and loses it; runtimes wait five minutes.
    pub give_up: Duration,
    /// The same for a transfer that has got nothing. 5 s: the reader can still go elsewhere at once.
    pub give_up_unstarted: Duration,
    /// Rounds of sources without a piece, after which a transfer is given up even though bytes still come. 20: a
    /// source that breaks off within every piece would otherwise be tried for ever.
    pub rounds_max: u32,
    /// For the store to check a whole blob. 15 min: 64 GiB at 75 MB/s, which a slow card can read.
    pub complete_timeout: Duration,
    /// During which a peer that sent wrong bytes is not asked for bytes. 10 min: long enough to cost nothing,
    /// short enough to heal by itself when the peer's disk was at fault and was replaced.
    pub penalty: Duration,
    /// During which a peer is not asked for bytes that may have sent wrong ones: it, or another supplier of the same
    /// blob. 60 s: a reader comes back and gets the blob from the one supplier that is left; most are innocent.
    pub suspicion: Duration,
    /// How often a transfer goes on when pieces that counted as durable turn out not to be there once all should
    /// be. 3: a disk that loses them more often is broken.
    pub losses_max: u32,

    /// How often a transfer goes on when all its pieces together turn out not to be the blob. 16: as many liars, one after
    /// the other, have been found by then.
    pub rejections_max: u32,

    /// For getting metadata of releases and looking at it. 5 min: 4 MiB at 128 kbit/s.
    pub release_examine_timeout: Duration,
    /// During which offers of releases do not count of who offered something that was refused. 10 min: a look costs up to
    /// 4 MiB and some milliseconds.
    pub release_refusal: Duration,
    /// The same where it could not be had. 30 s: the peer may have left for a moment.
    pub release_retry: Duration,
    /// Copies of each blob of a release that a site keeps, for platforms that fewer of its devices have. 2: one device may be
    /// off or away when another comes home; each more costs a device's disk.
    pub release_replicas: usize,
    /// Least time between two words on how far this node is with releases. 5 s: people watch it.
    pub rollout_interval: Duration,
    /// Time for each word of all nodes of a site together. 50 ms: 20 words a second, as for wants.
    pub rollout_word: Duration,
    /// After which it is said again without news, for those who came later. 60 s.
    pub rollout_repeat: Duration,
    /// After which a word of somebody who says no more is forgotten. 15 min: as a device that restarts takes.
    pub rollout_expiry: Duration,

    /// From a want for a blob that nobody holds to choosing who fetches it, so that the others' wants are heard. 30 ms:
    /// ten times what gossip takes on a LAN, give or take a quarter. With 10 ms a whole image was no faster, and busy
    /// nodes claimed the same blobs.
    pub settle: Duration,
    /// The same while somebody fetches something of the blob already. 120 ms: the uplink is busy, so that nothing is lost, and
    /// words of busy nodes have taken 50 ms.
    pub settle_while_fetched: Duration,
    /// From its start during which a node without a peer asks no origin for what others may want too. 500 ms: mDNS finds peers
    /// in a few hundred milliseconds, and a site that is switched on together shall not ask once a device.
    pub settle_after_start: Duration,
    /// From a new connection during which a node waits in the same way. 300 ms: gossip reaches a new peer once both have
    /// told each other what they listen to.
    pub settle_after_connect: Duration,
    /// How long a claim is good for without being repeated; it is, three times in that time, while bytes come. 4 s: an
    /// owner that lost its power or its uplink costs that much.
    pub claim_lease: Duration,
    /// The same where a piece takes its owner long: half of that, and so much at most. 12 s: what is lost with an owner is
    /// little of such a blob.
    pub claim_lease_max: Duration,
    /// For the node whose turn it is to claim a blob. 500 ms: far longer than gossip takes; then the next one is due.
    pub claim_grace: Duration,
    /// For a blob's keeper to say whether anybody fetches what this node would claim. 4 s: words of forty nodes on two processors
    /// have taken one, a question goes both ways, and a keeper that lost its power costs that much once; 0: none is asked.
    pub clearance: Duration,
    /// In which one of a node's words may overtake another on its way, so that the older one is dropped. 2 s: far longer than
    /// gossip takes, and short for a device whose clock was set back.
    pub overtaken_within: Duration,
    /// Between two repetitions of a want, give or take a quarter. 5 s: for those who joined the site or missed it.
    pub want_interval: Duration,
    /// The same for a blob that takes long: this part of the time that it has taken so far. 12: from a minute on.
    pub want_share: u32,
    /// That at most. 10 s: what a lost word costs of two minutes or more.
    pub want_interval_max: Duration,
    /// The same for each node that wants the same blob, if that is longer: so a site says at most so many words a second
    /// of one blob however many it has. 100 ms: ten words a second, which is 10 s among a hundred nodes.
    pub want_spacing: Duration,
    /// Between the words of those who all have the same reason to say their part now, since a node came or left. 10 ms.
    pub reply_spacing: Duration,
    /// After which a peer's word that it wants a blob is forgotten. 20 s: three repetitions lost in a row; in the same
    /// measure longer where nodes repeat theirs less often.
    pub want_expiry: Duration,
    /// From a node's word that it joins to the answer of those who fetch or fetched from the origin. 15 ms: below `settle`, so
    /// that the newcomer hears it before it would ask the origin itself, and many who come together get one answer.
    pub answer_newcomers: Duration,
    /// Between two words with hashes of one blob. 50 ms: at most twenty small messages a second.
    pub vouch_interval: Duration,
    /// For a claim to bring its first or next piece. 15 s: half of what a registry that is far away gets for its first byte.
    /// What a piece takes at its share of `uplink_rate_min` comes on top.
    pub claim_patience: Duration,
    /// Nodes that fetch at the same time, at most, as far as that patience goes: who claims and brings nothing must not make
    /// everybody patient. 8: two stripes of each of the window.
    pub patience_owners_max: usize,
    /// Slowest uplink, in bytes a second, over which a claim is still believed. 16 KiB/s: a telephone line's.
    pub uplink_rate_min: u64,
    /// Stripes that the site fetches from the origin at the same time. 4: the uplink stays busy while one of
    /// them waits for an answer, and with more of them the first bytes come too late for those who read in order. Blobs that
    /// are fetched at the same time share them, and each has one at least.
    pub window: usize,
    /// What a stripe takes at the rate that its owner's last one had. 4 s: a registry that answers sixty requests a minute is asked
    /// for a hundred megabytes over 20 Mbit/s without reaching that, where 2 s were too many; its owner's lease is as long.
    pub stripe_time: Duration,
    /// How many times shorter than that stripes become towards the end of a blob, so that no owner is left alone with the last.
    /// 4: a second.
    pub stripe_shortened: u32,
    /// How many times as long stripes become at most, twice with each time that an origin says that it is asked too often.
    /// 4: sixteen seconds, so that four stripes under way are fifteen requests a minute.
    pub stripe_stretch_max: u32,
    /// Largest stripe, and the one that a node takes that nobody shares with. 64 MiB: over 50 Mbit/s ten seconds, so that
    /// the pause between two does not count.
    pub stripe_bytes_max: u64,
    /// How many times sooner a node would have the rest of a stripe than its owner before it takes it over, once nothing
    /// else is left. 8: a shared uplink that is one node's alone in the end must not look like a slow owner.
    pub takeover_factor: u64,

    /// Bytes of tars a second that this device is taken to get through when it makes a blob of another one, as long as it was not
    /// measured. 10 MB/s: a small ARM board; a server does several times that.
    pub rebuild_rate_assumed: u64,
    /// Least work, in bytes, whose time is taken for the device's rate. 1 MiB.
    pub rebuild_measured_min: u64,
    /// How many times as long it may take to make a blob of another one as to fetch it, over an uplink that is not metered.
    /// 2: bytes count for more than time, up to that.
    pub rebuild_slower_max: u32,
    /// Without progress, after which making a blob is given up. 60 s: as a fetch from an origin that trickles.
    pub rebuild_stall: Duration,
    /// In which a node that says that it makes a blob must have it. 10 min: 6 GB of tars at the rate that is assumed; who says so and
    /// does not holds up a site for so long.
    pub rebuild_time_max: Duration,

    /// Fetches of one blob at the same time. 8: two for each stripe of the window.
    pub fetches_per_transfer: usize,
    /// Without bytes, after which a stream makes way for an earlier one where all fetches are taken. 1 s: many times what a
    /// piece takes from hop to hop on a LAN.
    pub make_way: Duration,
    /// Smallest blob that spreads from its holders along trees if more nodes want it than hold it. 1 MiB: a smaller one is
    /// there before the others' words are.
    pub spread_bytes_min: u64,
    /// Into how many parts a blob is cut that each spread along one tree. 16, and the same at every node: so four are under
    /// way in the smallest blob, too, and those behind begin early.
    pub sections: u64,
    /// Largest such part. 8 MiB: a node that goes has little under way that others wait for.
    pub section_bytes_max: u64,
    /// For the hashes of what spreads to be said. 1.5 s: longer than a busy holder takes, and `offer_interval`.
    pub spread_patience: Duration,
    /// How much later than this node another one may have come to be waited for while something spreads. 2 s: as far behind
    /// it then is, and all come to that in the end.
    pub spread_slack: Duration,
    /// Between two words with the hashes of a blob that is held. 1 s: for those who came meanwhile.
    pub offer_interval: Duration,
    /// What a run from a peer that has the whole blob takes at the peer's measured rate. 1 s: a slow peer holds up little,
    /// a fast one is not asked too often.
    pub chunk_time: Duration,
    /// Smallest such run that several peers share, and the one asked of a peer whose rate is not known. 4 MiB.
    pub chunk_bytes_min: u64,
    /// Largest such run. 64 MiB.
    pub chunk_bytes_max: u64,
    /// Rate of a peer that was never measured, in bytes a second. 8 MiB/s: between Wi-Fi and a cable.
    pub peer_rate_assumed: u64,
    /// How many times sooner an idle peer would have the rest of a run before it gets it instead of the one that has it,
    /// once nothing else is left to be asked for. 4.
    pub hedge_factor: u64,
    /// How much earlier, at the least. 1 s.
    pub hedge_gain: Duration,
    /// Between two looks at a transfer of which nothing is heard that matters: this part of the time that it has taken so far, so
    /// that what nobody says costs as little of a short transfer as of a long one. 32: three percent.
    pub look_share: u32,
    /// At least. 100 ms: a few words' ways.
    pub look_min: Duration,
    /// At most. 4 s: the lease of a claim.
    pub look_max: Duration,
    /// Without bytes, after which a stream of pieces that somebody else has is left for whoever has them: two nodes that
    /// heard different words may wait for each other. 4 s, since on a LAN as slow as the uplink all wait for long, and must not
    /// ask whoever has them all at once; four times as long if the source is known to have them too.
    pub stream_patience: Duration,
    /// Pieces from the first missing one on among which the rarest is asked for first. 256: a blob of 64 MiB.
    pub rarity_window: u32,
    /// Bytes that a source must bring within its stall time. 16 KiB: one that brings less trickles.
    pub stall_bytes_min: u64,
    /// Trees along which the stripes of a blob spread, each with other inner nodes, and nodes that take a stripe from the same
    /// node. 4: as many as stripes are under way, so that nobody sends more than comes over the uplink, which may then be as
    /// fast as the LAN, and two hundred nodes are four hops deep.
    pub trees: u8,
    /// Nodes among which one chooses whom to take a stripe from, the one that sends it least already. 8: as many as the fetches
    /// of a blob, so that no two need come from the same node.
    pub parents: usize,
    /// Nodes that take a blob from the same node of which an origin gives the whole only. 2: an uplink half as fast as the LAN
    /// still goes through undiminished, and forty nodes are five hops deep.
    pub fan_out_whole: u8,

    /// What the uplink may be used for.
    pub uplink: Uplink,
    /// After a runtime's transfer asked an origin, during which background work still leaves the uplink alone. 2 s: a
    /// runtime asks for the next blob within that, and each start anew costs a request and the pieces on their way.
    pub runtime_pause: Duration,
    /// Between two repetitions of a want that waits for the uplink's budget, give or take a quarter. 60 s: nobody counts
    /// on it, and it may wait for a night.
    pub withheld_interval: Duration,

    /// After an origin did not give bytes, during which it counts as down. 10 s: a blip does not divert anything for long.
    pub origin_down_for: Duration,
    /// After an origin let a fetch wait in vain, during which others get `origin_patience_away` only. 60 s: a layer's stripes
    /// do not wait one after the other, and a registry that wakes up is soon given all its time again.
    pub origin_silent_for: Duration,
    /// For the first word of an origin that was silent lately or is away. 3 s: a distant registry answers, and somebody who
    /// waits can still go elsewhere.
    pub origin_patience_away: Duration,
    /// From an origin's going away to the first probe whether it is back; doubles with each. 1 s.
    pub probe_first: Duration,
    /// At most between two such probes. 30 s: half a minute after the uplink is back everything is as before, for a handshake
    /// in vain now and then.
    pub probe_max: Duration,
    /// After which an origin that nobody asks for any more is probed no more. 1 h: longer than between two polls of a fleet.
    pub probe_idle_max: Duration,

    /// How tags are answered.
    pub tags: TagRules,
    /// How nodes of a site see to it that one of them asks.
    pub keeping: Keeping,
    /// For an origin to say what a tag stands for when the site knows an answer. 1.4 s: longer than a distant
    /// registry takes, and an answer within 1.5 s all told, shorter than people and runtimes notice.
    pub resolve_timeout_known: Duration,
    /// The same when nobody on the site knows. 10 s.
    pub resolve_timeout_unknown: Duration,
    /// An unchanged binding that was confirmed by the origin is told to peers again after this time. 1 h: fleets
    /// poll tags every minute, and peers need to know the age of a binding only roughly.
    pub binding_announce_interval: Duration,
    /// How far ahead of this node's own knowledge of the wall clock a peer's time stamp is believed. 1 day: more
    /// is a wrong clock, and such a binding ranks behind all others.
    pub clock_error_max: Duration,

    /// Limits on what is kept.
    pub limits: Limits,
}

/// Most of everything. Over a limit the newcomer is refused, with a [`super::event::Note::LimitReached`] that
/// names the field, or [`super::event::WantError::Busy`] where somebody waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Blobs being had at once. 256: a few large images; a running fetch costs the node about a piece of memory.
    pub transfers: usize,
    /// Wants open at once. 4096: every reader of every transfer, sixteen each.
    pub wants: usize,
    /// Repositories in which origins are asked for one blob. 8: layers are shared among a few images at a time.
    pub origins_per_transfer: usize,
    /// Questions of peers about tags that are held at once. 1024: those of a large site; the next may ask themselves.
    pub tag_calls: usize,
    /// Resolves waiting at once. 1024.
    pub resolves: usize,
    /// Tags asked about at once, by this device or its peers, probes included. 256.
    pub lookups: usize,
    /// Connected peers. 512: nodes of large sites connect to far fewer.
    pub peers: usize,
    /// Peers that left whose inventory is kept in case they come back. 64.
    pub peers_remembered: usize,
    /// Nodes that a connection was asked for with. 64: on a site of a thousand one in sixty stripes needs one.
    pub reaching: usize,
    /// Peers that are not asked for a while. 1024: more than can be connected.
    pub penalties: usize,
    /// Blobs known of one peer. 16,384: a hundred images of a hundred and sixty layers.
    pub blobs_per_peer: usize,
    /// Blobs known of all peers together, counted once for each holder. 131,072: about 20 MiB.
    pub blobs_of_peers: usize,
    /// Blobs and bindings in the own inventory. 65,536.
    pub inventory: usize,
    /// Removals that the own inventory remembers. 1024: peers that missed more learn everything anew.
    pub tombstones: usize,
    /// Own bindings. 8192.
    pub bindings: usize,
    /// Bindings of signed releases. 8192: a hundred channels of eighty images.
    pub bindings_signed: usize,
    /// Bindings told by peers. 16,384.
    pub bindings_of_peers: usize,
    /// Peers' bindings kept of one tag, the newest. 8.
    pub bindings_per_tag: usize,
    /// Blobs of which pieces are kept from earlier transfers. 1024: at most 2 KiB of bitmap each.
    pub partials: usize,
    /// Blobs of which it is known that this device can make them of others. 1024: those of ten images.
    pub rebuilds: usize,
    /// Blobs of which it is known which peers take part in fetching them. 1024: four times what one node has under way.
    pub parts: usize,
    /// Blobs whose hashes were said lately. 256: as many as can be had at once.
    pub offers: usize,
    /// Nodes of which it is known how far they are with releases. 256: a site of 200, and those that left.
    pub rollouts: usize,
    /// Nodes known to take part in fetching these blobs, counted once for each blob. 16,384: sixteen blobs of a site of a
    /// thousand, about 4 MiB.
    pub parties: usize,
    /// Bytes of bitmaps of what those peers have of these blobs. 4 MiB: a thousand nodes' words on a blob of 32 GiB, or as
    /// many on a hundred usual ones.
    pub having_bytes: usize,
    /// Registries whose reachability is remembered. 128: whoever talks to the mirror may name any.
    pub origins: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bulk_port: 0,
            version: String::new(),
            platform: String::new(),
            announce_delay: Duration::from_millis(20),
            announcements_per_burst_max: 4,
            announcement_bytes_max: 12 << 10,
            summary_interval: Duration::from_secs(600),
            summary_after_connect: Duration::from_secs(15),
            request_timeout: Duration::from_secs(10),
            request_retry: Duration::from_secs(5),
            reach_patience: Duration::from_secs(3),
            reach_tries: 4,
            reach_retry: Duration::from_secs(60),
            fetch_stall_peer: Duration::from_secs(10),
            fetch_stall_growing: Duration::from_secs(60),
            fetch_stall_section: Duration::from_secs(20),
            fetch_stall_origin: Duration::from_secs(30),
            retry_first: Duration::from_millis(500),
            retry_max: Duration::from_secs(10),
            retry_after_max: Duration::from_secs(60),
            give_up: Duration::from_secs(60),
            give_up_unstarted: Duration::from_secs(5),
            rounds_max: 20,
            complete_timeout: Duration::from_secs(900),
            penalty: Duration::from_secs(600),
            suspicion: Duration::from_secs(60),
            losses_max: 3,
            rejections_max: 16,
            release_examine_timeout: Duration::from_secs(5 * 60),
            release_refusal: Duration::from_secs(10 * 60),
            release_retry: Duration::from_secs(30),
            release_replicas: 2,
            rollout_interval: Duration::from_secs(5),
            rollout_word: Duration::from_millis(50),
            rollout_repeat: Duration::from_secs(60),
            rollout_expiry: Duration::from_secs(15 * 60),
            settle: Duration::from_millis(30),
            settle_while_fetched: Duration::from_millis(120),
            settle_after_start: Duration::from_millis(500),
            settle_after_connect: Duration::from_millis(300),
            answer_newcomers: Duration::from_millis(15),
            vouch_interval: Duration::from_millis(50),
            claim_patience: Duration::from_secs(15),
            patience_owners_max: 8,
            uplink_rate_min: 16 << 10,
            window: 4,
            stripe_time: Duration::from_secs(4),
            stripe_shortened: 4,
            stripe_stretch_max: 4,
            stripe_bytes_max: 64 << 20,
            takeover_factor: 8,
            rebuild_rate_assumed: 10_000_000,
            rebuild_measured_min: 1 << 20,
            rebuild_slower_max: 2,
            rebuild_stall: Duration::from_secs(60),
            rebuild_time_max: Duration::from_secs(600),
            fetches_per_transfer: 8,
            make_way: Duration::from_secs(1),
            spread_bytes_min: 1 << 20,
            sections: 16,
            section_bytes_max: 8 << 20,
            spread_patience: Duration::from_millis(1500),
            spread_slack: Duration::from_secs(2),
            offer_interval: Duration::from_secs(1),
            chunk_time: Duration::from_secs(1),
            chunk_bytes_min: 4 << 20,
            chunk_bytes_max: 64 << 20,
            peer_rate_assumed: 8 << 20,
            hedge_factor: 4,
            hedge_gain: Duration::from_secs(1),
            look_share: 32,
            look_min: Duration::from_millis(100),
            look_max: Duration::from_secs(4),
            stream_patience: Duration::from_secs(4),
            rarity_window: 256,
            stall_bytes_min: 16 << 10,
            claim_lease_max: Duration::from_secs(12),
            claim_lease: Duration::from_secs(4),
            claim_grace: Duration::from_millis(500),
            clearance: Duration::from_secs(4),
            overtaken_within: Duration::from_secs(2),
            want_interval: Duration::from_secs(5),
            want_spacing: Duration::from_millis(100),
            want_share: 12,
            want_interval_max: Duration::from_secs(10),
            reply_spacing: Duration::from_millis(10),
            want_expiry: Duration::from_secs(20),
            trees: 4,
            parents: 8,
            fan_out_whole: 2,
            uplink: Uplink::default(),
            runtime_pause: Duration::from_secs(2),
            withheld_interval: Duration::from_secs(60),
            origin_down_for: Duration::from_secs(10),
            origin_silent_for: Duration::from_secs(60),
            origin_patience_away: Duration::from_secs(3),
            probe_first: Duration::from_secs(1),
            probe_max: Duration::from_secs(30),
            probe_idle_max: Duration::from_secs(3600),
            tags: TagRules::default(),
            keeping: Keeping::default(),
            resolve_timeout_known: Duration::from_millis(1400),
            resolve_timeout_unknown: Duration::from_secs(10),
            binding_announce_interval: Duration::from_secs(3600),
            clock_error_max: Duration::from_secs(86_400),
            limits: Limits::default(),
        }
    }
}

/// [`Config::window`] of a site whose devices have uplinks of their own. 32: as many devices bring a layer together; a
/// reader in order waits somewhat longer for its first bytes.
pub const WINDOW_OF_OWN_UPLINKS: usize = 32;

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfers: 256,
            wants: 4096,
            origins_per_transfer: 8,
            tag_calls: 1024,
            resolves: 1024,
            lookups: 256,
            peers: 512,
            peers_remembered: 64,
            reaching: 64,
            penalties: 1024,
            blobs_per_peer: 16_384,
            blobs_of_peers: 131_072,
            inventory: 65_536,
            tombstones: 1024,
            bindings: 8192,
            bindings_signed: 8192,
            bindings_of_peers: 16_384,
            bindings_per_tag: 8,
            partials: 1024,
            rebuilds: 1024,
            parts: 1024,
            offers: 256,
            rollouts: 256,
            parties: 16_384,
            having_bytes: 4 << 20,
            origins: 128,
        }
    }
}

/// Why a configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A text that peers would refuse.
    #[error("{field} is not printable ASCII of at most {LABEL_BYTES_MAX} bytes")]
    Label {
        /// The field.
        field: &'static str,
    },
    /// A time of zero, with which the engine would spin.
    #[error("{field} is zero")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A rate of zero, at which nothing ever ends.
    #[error("{field} is no rate at all")]
    NoRate {
        /// The field.
        field: &'static str,
    },
}

impl Config {
    pub(super) fn probing(&self) -> Probing {
        Probing { first: self.probe_first, max: self.probe_max, idle_max: self.probe_idle_max }
    }

    /// Checks what the types do not say, and reports everything that is wrong.
    ///
    /// # Errors
    /// With every fault found; the list is not empty.
    pub fn validate(&self) -> Result<(), Vec<ConfigError>> {
        let texts = [("version", &self.version), ("platform", &self.platform)];
        let times = [
            ("summary_interval", self.summary_interval),
            ("request_timeout", self.request_timeout),
            ("request_retry", self.request_retry),
            ("fetch_stall_peer", self.fetch_stall_peer),
            ("fetch_stall_growing", self.fetch_stall_growing),
            ("fetch_stall_section", self.fetch_stall_section),
            ("fetch_stall_origin", self.fetch_stall_origin),
            ("retry_first", self.retry_first),
            ("retry_max", self.retry_max),
            ("claim_lease", self.claim_lease),
            ("rebuild_stall", self.rebuild_stall),
            ("claim_grace", self.claim_grace),
            ("want_interval", self.want_interval),
            ("withheld_interval", self.withheld_interval),
            ("release_examine_timeout", self.release_examine_timeout),
            ("rollout_interval", self.rollout_interval),
            ("rollout_repeat", self.rollout_repeat),
            ("complete_timeout", self.complete_timeout),
            ("probe_first", self.probe_first),
            ("keeping.patience", self.keeping.patience),
            ("keeping.hold", self.keeping.hold),
            ("keeping.lease", self.keeping.lease),
            ("origin_patience_away", self.origin_patience_away),
            ("resolve_timeout_known", self.resolve_timeout_known),
            ("resolve_timeout_unknown", self.resolve_timeout_unknown),
        ];
        let printable = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let refused = texts
            .into_iter()
            .filter(|(_, text)| text.len() > LABEL_BYTES_MAX || !printable(text))
            .map(|(field, _)| ConfigError::Label { field });
        let zero = times.into_iter().filter(|(_, time)| time.is_zero()).map(|(field, _)| ConfigError::Zero { field });
        let no_rate = (self.uplink.site_bytes_per_s == Some(0))
            .then_some(ConfigError::NoRate { field: "uplink.site_bytes_per_s" });
        let errors: Vec<_> = refused.chain(zero).chain(no_rate).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_reported() {
        assert_eq!(Config::default().validate(), Ok(()));
        let (version, platform) = ("x".repeat(LABEL_BYTES_MAX + 1), "linux\n".to_owned());
        let uplink = Uplink { site_bytes_per_s: Some(0), ..Uplink::default() };
        let faulty = Config { version, platform, retry_first: Duration::ZERO, uplink, ..Config::default() };
        let label = |field| ConfigError::Label { field };
        let zero = ConfigError::Zero { field: "retry_first" };
        let no_rate = ConfigError::NoRate { field: "uplink.site_bytes_per_s" };
        let faults = vec![label("version"), label("platform"), zero, no_rate];
        assert_eq!(faulty.validate(), Err(faults));
    }
}
