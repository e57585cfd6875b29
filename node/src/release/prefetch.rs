//! Fetching releases ahead of time.
//!
//! Of each channel that is followed, the newest release is *next* until all that this device needs of it is here, and
//! *current* from then on; while it is not, the newest one before it that is here stays current, however many were published
//! since. What belongs to either is pinned, so that neither quota nor anybody else takes it away, and is wanted in the
//! background: peers are asked at any time, registries as the uplink's budget allows, and runtimes go first. Of a next that
//! has no room beside what is pinned, only manifests are fetched: half of it would take others' room and be of no use.
//! Which blobs belong to this device is the engine's decision; copies that it would keep for others it keeps as far as there
//! is room. Tags stand for what the current release says, so that a tag never names what is not here yet if something that
//! is here will do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use layermesh_proto::{
    ContentId, ObjectKind,
    engine::{Urgency, event::SignedBinding},
    wire::{Progress, Rollout},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Channel, Release, Verified,
    follow::Known,
    pins,
    plan::{Planned, plan},
    status::{ReleaseProgress, shown_wait},
};
use crate::{
    config::ReleasesConfig,
    contents::{MANIFEST_BYTES_MAX, Platform},
    counters::Counters,
    mesh::Mesh,
    store::{PinOwner, Store},
};

/// Blobs wanted at once, as in a pull.
const BLOBS_AT_ONCE: usize = 4;
/// How often it is looked how far things are, in memory only.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// After which what failed is tried again.
const RETRY: Duration = Duration::from_secs(20);
/// After which it is looked again who follows, and so what this device is to keep.
const REPLAN: Duration = Duration::from_secs(60);
/// From the start until copies for others are thought of: peers are found by then.
const COPIES_AFTER: Duration = Duration::from_secs(10);

/// The task.
pub struct Prefetcher {
    pub(crate) mesh: Mesh,
    pub(crate) store: Store,
    pub(crate) counters: Arc<Counters>,
    pub(crate) config: Arc<ReleasesConfig>,
    pub(crate) known: watch::Receiver<Known>,
    pub(crate) progress: watch::Sender<Vec<ReleaseProgress>>,
}

/// What this device is to hold of a release.
struct Holding {
    release: Release,
    /// Whether it is the newest of its channel.
    newest: bool,
    parts: Vec<Planned>,
    /// The platforms that this device needs for itself.
    own: Vec<String>,
    /// Whether `parts` is all: every manifest was read.
    known: bool,
    /// Why there is no room for all of it, for people.
    short: Option<String>,
    /// What last failed, for people.
    failed: Option<String>,
    /// Bytes held, and when that was looked at.
    before: Option<(u64, Instant)>,
    bytes_per_s: u64,
}

impl Holding {
    fn is_complete(&self, store: &Store) -> bool {
        self.known && self.parts.iter().all(|part| store.size_of(&part.content).is_some())
    }

    /// All of it but for copies that are kept for others.
    fn needed(&self) -> impl Iterator<Item = &Planned> {
        self.parts.iter().filter(|part| is_needed(part, &self.own))
    }

    /// Whether what is needed is here.
    fn is_usable(&self, store: &Store) -> bool {
        self.known && self.needed().all(|part| store.size_of(&part.content).is_some())
    }
}

impl Prefetcher {
    /// Fetches until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let began = Instant::now();
        loop {
            let verified = self.known.borrow_and_update().verified.clone();
            let Some(verified) = verified else {
                let _ = self.say(&mut []).await;
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = self.known.changed() => continue,
                }
            };
            let mut changes = self.known.clone();
            let copies = began.elapsed() >= COPIES_AFTER;
            let again = if copies { Instant::now() + REPLAN } else { began + COPIES_AFTER };
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = changes.changed() => {}
                () = self.round(relevant(&self.config, &verified, &pins::pinned(&self.store)), copies, again) => {}
            }
        }
    }

    /// Goes after what is wanted now, until everything is here and it is time to look again, or something failed.
    async fn round(&self, releases: Vec<Release>, copies: bool, again: Instant) {
        let mut holdings = Vec::new();
        for release in releases {
            let newest = holdings.iter().all(|other: &Holding| other.release.channel != release.channel);
            holdings.push(self.plan(release, newest, copies).await);
        }
        // What is of no use any more makes room.
        let kept = self.kept(&holdings).into_iter().map(|(_, owner)| owner);
        pins::unpin_all_but(&self.store, &kept.collect::<Vec<_>>()).await;
        let short = self.find_room(&mut holdings).await;
        self.settle(&mut holdings).await;
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wanted = self.missing(&holdings).await;
        let (began, something) = (Instant::now(), !wanted.is_empty());
        let mut work = Box::pin(Self::fetch(self.mesh.clone(), wanted));
        let mut worked = None;
        loop {
            tokio::select! {
                failed = &mut work, if worked.is_none() => {
                    for holding in &mut holdings {
                        let mut failures = holding.parts.iter().filter_map(|part| failed.get(&part.content));
                        holding.failed = failures.next().cloned();
                    }
                    self.settle(&mut holdings).await;
                    worked = Some(Instant::now() + pause(something, short || !failed.is_empty()));
                }
                () = sleep_until(again.min(worked.unwrap_or(again))), if worked.is_some() => {
                    return self.settle(&mut holdings).await;
                }
                _ = ticks.tick() => {
                    // What waits for the uplink keeps others from being asked for that a peer may have got meanwhile.
                    if self.say(&mut holdings).await && began.elapsed() >= RETRY {
                        return;
                    }
                }
            }
        }
    }

    /// What this device is to hold of a release.
    async fn plan(&self, release: Release, newest: bool, copies: bool) -> Holding {
        let channel = release.channel.to_string();
        let own: Vec<String> = self.config.platforms.iter().map(Platform::to_string).collect();
        let mut platforms = self.mesh.follower_platforms(channel.clone()).await;
        platforms.extend(own.iter().filter(|name| !platforms.contains(name)).cloned().collect::<Vec<_>>());
        let mut holding = Holding {
            release,
            newest,
            parts: Vec::new(),
            own,
            known: false,
            short: None,
            failed: None,
            before: None,
            bytes_per_s: 0,
        };
        let plan = match plan(&self.store, &holding.release, &platforms).await {
            Ok(plan) => plan,
            Err(error) => {
                holding.failed = Some(error);
                return holding;
            }
        };
        let asked = plan.parts.iter().map(|part| (part.content, part.platforms.clone())).collect();
        let keeps = if copies { self.mesh.keeps(channel, asked).await } else { Vec::new() };
        let keeps = keeps.into_iter().chain(std::iter::repeat(false));
        holding.known = plan.unread.is_empty();
        let parts = plan.parts.into_iter().zip(keeps);
        // Of what is not the newest no more copies are fetched.
        let keeps = |part: &Planned, keep: bool| keep && (newest || self.store.size_of(&part.content).is_some());
        let wanted = parts.filter(|(part, keep)| keeps(part, *keep) || is_needed(part, &holding.own));
        holding.parts = wanted.map(|(part, _)| part).collect();
        holding
    }

    /// Finds out which of the next releases have room, together and beside all that is pinned, if need be without copies
    /// for others. Says whether any has not.
    async fn find_room(&self, holdings: &mut [Holding]) -> bool {
        let mut together: Vec<(ContentId, u64)> = Vec::new();
        for holding in holdings.iter_mut().filter(|holding| holding.newest) {
            let with = |parts: &[Planned]| {
                let parts = parts.iter().map(|part| (part.content, part.size));
                together.iter().copied().chain(parts).collect::<Vec<_>>()
            };
            if self.store.fits(with(&holding.parts)).await.is_err() {
                let needed: Vec<_> = holding.needed().cloned().collect();
                if let Err(error) = self.store.fits(with(&needed)).await {
                    let error = error.to_string();
                    if self.progress.borrow().iter().all(|known| known.waits_for != error) {
                        tracing::warn!(release = holding.release.name(), error, "a release has no room");
                    }
                    holding.short = Some(error);
                    continue;
                }
                holding.parts = needed;
            }
            together = with(&holding.parts);
        }
        holdings.iter().any(|holding| holding.short.is_some())
    }

    /// What is next and what is current, with who pins it.
    fn kept<'a>(&self, holdings: &'a [Holding]) -> Vec<(&'a Holding, PinOwner)> {
        let mut kept = Vec::new();
        let mut done: Vec<&Channel> = Vec::new();
        for holding in holdings {
            let channel = &holding.release.channel;
            // Newest first: that is next; of those before it, the first that is here is current.
            let usable = holding.is_usable(&self.store);
            if done.contains(&channel) || !(holding.newest && holding.short.is_none() || usable) {
                continue;
            }
            if usable {
                done.push(channel);
            }
            kept.extend(pins::owner_of(&holding.release).map(|owner| (holding, owner)));
        }
        kept
    }

    /// Pins what is current and next, unpins the rest, watches the uplink's bytes, and says what tags stand for.
    async fn settle(&self, holdings: &mut [Holding]) {
        let mut owners = Vec::new();
        for (holding, owner) in self.kept(holdings) {
            let contents = holding.parts.iter().map(|part| part.content).collect();
            if let Err(error) = self.store.replace_pins(owner.clone(), contents).await {
                tracing::warn!(release = holding.release.name(), %error, "cannot pin the release");
            }
            owners.push(owner);
        }
        pins::unpin_all_but(&self.store, &owners).await;
        let parts = holdings.iter().flat_map(|holding| &holding.parts);
        self.counters.watched.watch(parts.map(|part| part.content));
        self.mesh.signed_bindings(bindings(holdings, &self.store)).await;
        let _ = self.say(holdings).await;
    }

    /// What is to be fetched, of the newest release of each channel: manifests first, then what peers have. Manifests only
    /// of one that has no room.
    async fn missing(&self, holdings: &[Holding]) -> Vec<Planned> {
        let mut missing: Vec<Planned> = Vec::new();
        for holding in holdings.iter().filter(|holding| holding.newest) {
            let parts = holding.parts.iter().filter(|part| holding.short.is_none() || is_document(part));
            missing.extend(parts.filter(|part| self.store.size_of(&part.content).is_none()).cloned());
        }
        if missing.iter().any(|part| !is_document(part)) {
            self.prepare(holdings).await;
        }
        let holders = self.mesh.holders(missing.iter().map(|part| part.content).collect()).await;
        let nobody = holders.iter().map(Vec::is_empty).chain(std::iter::repeat(true));
        let mut wanted: Vec<_> =
            missing.into_iter().zip(nobody).map(|(part, nobody)| (!is_document(&part), nobody, part)).collect();
        wanted.sort_by_key(|(blob, nobody, _)| (*blob, *nobody));
        wanted.into_iter().map(|(_, _, part)| part).collect()
    }

    /// Whether layers can be made of those that are held is known before they are wanted.
    async fn prepare(&self, holdings: &[Holding]) {
        for holding in holdings.iter().filter(|holding| holding.newest) {
            for part in holding.parts.iter().filter(|part| is_document(part)) {
                let Ok(bytes) = self.store.read_whole(&part.content, MANIFEST_BYTES_MAX).await else { continue };
                let (document, patches) = ((part.content, bytes), holding.release.patches_to(&part.content));
                self.mesh.prepare(part.repository.clone(), document, patches, Urgency::Background).await;
            }
        }
    }

    /// Fetches these, and returns what failed.
    async fn fetch(mesh: Mesh, wanted: Vec<Planned>) -> BTreeMap<ContentId, String> {
        let results = stream::iter(wanted).map(move |part: Planned| {
            let mesh = mesh.clone();
            async move {
                let (content, repository) = (part.content, Some(part.repository));
                let mut want = mesh.want(content, part.kind, repository, Urgency::Background).await;
                want.ended().await.err().map(|error| (content, error.to_string()))
            }
        });
        let failed: Vec<_> = results.buffer_unordered(BLOBS_AT_ONCE).collect().await;
        failed.into_iter().flatten().collect()
    }

    /// Says how far this device is; returns whether all that is under way waits for the uplink.
    async fn say(&self, holdings: &mut [Holding]) -> bool {
        let transfers = self.mesh.status().await.transfers;
        let partly: BTreeMap<ContentId, &crate::mesh::TransferStatus> =
            transfers.iter().map(|transfer| (transfer.content, transfer)).collect();
        let now = Instant::now();
        let mut progress = Vec::new();
        let (mut waiting, mut running) = (false, false);
        for holding in holdings.iter_mut().filter(|holding| holding.newest || holding.is_complete(&self.store)) {
            let (mut total, mut held, mut from_origin, mut waits) = (0_u64, 0_u64, 0_u64, None);
            for part in &holding.parts {
                total = total.saturating_add(part.size);
                from_origin = from_origin.saturating_add(self.counters.watched.get(&part.content));
                match (self.store.size_of(&part.content), partly.get(&part.content)) {
                    (Some(size), _) => held = held.saturating_add(size),
                    (None, Some(transfer)) => {
                        held = held.saturating_add(transfer.durable_bytes);
                        let waits_now = transfer.waits_for.is_some();
                        (waiting, running) = (waiting || waits_now, running || !waits_now);
                        waits = waits.or_else(|| transfer.waits_for.map(shown_wait));
                    }
                    (None, None) => {}
                }
            }
            if let Some((before, at)) = holding.before {
                let passed = now.duration_since(at).as_secs_f64();
                if passed >= 1.0 {
                    // Half of what was, so that one slow look does not make it look like standing still.
                    let rate = held.saturating_sub(before) as f64 / passed;
                    holding.bytes_per_s = ((holding.bytes_per_s as f64 + rate) / 2.0) as u64;
                    holding.before = Some((held, now));
                }
            } else {
                holding.before = Some((held, now));
            }
            let complete = holding.is_complete(&self.store);
            let waits_for = match (holding.short.as_ref().or(holding.failed.as_ref()), waits) {
                _ if complete => String::new(),
                (Some(failed), _) => failed.clone(),
                (None, waits) => waits.unwrap_or_default(),
            };
            progress.push(ReleaseProgress {
                channel: holding.release.channel.to_string(),
                version: holding.release.version.to_string(),
                complete,
                total,
                held,
                bytes_per_s: if complete { 0 } else { holding.bytes_per_s },
                from_origin,
                waits_for,
            });
        }
        let refused = self.known.borrow().refused.as_ref().map_or("", |(_, refusal)| refusal.kind.label()).to_owned();
        let releases = progress.iter().map(wire_progress).collect();
        let platform = Platform::of_this_device().to_string();
        self.progress.send_if_modified(|known| {
            let changed = *known != progress;
            *known = progress;
            changed
        });
        self.mesh.rollout(Rollout { platform, refused, releases }).await;
        waiting && !running
    }
}

/// Manifests of all platforms are small, and without them it is not known what there is to keep.
fn is_document(part: &Planned) -> bool {
    part.kind == ObjectKind::Manifest
}

/// Whether a device of these platforms needs a part for itself.
fn is_needed(part: &Planned, own: &[String]) -> bool {
    is_document(part) || part.platforms.iter().any(|name| own.contains(name))
}

fn wire_progress(progress: &ReleaseProgress) -> Progress {
    let label = |text: &str| {
        let plain = text.chars().map(|letter| if letter == ' ' || letter.is_ascii_graphic() { letter } else { '?' });
        plain.take(layermesh_proto::wire::control::LABEL_BYTES_MAX).collect()
    };
    // A release that is here says so; one of which nothing is known yet has no bytes at all.
    Progress {
        channel: label(&progress.channel),
        version: label(&progress.version),
        total: progress.total,
        held: if progress.complete { progress.total } else { progress.held.min(progress.total.saturating_sub(1)) },
        bytes_per_s: progress.bytes_per_s,
        from_origin: progress.from_origin,
        waits_for: label(&progress.waits_for),
    }
}

/// How long nothing is done after a round that fetched something, or had nothing to fetch, and in which something failed or
/// not. After manifests came there may be more to do at once.
const fn pause(something: bool, failed: bool) -> Duration {
    match (something, failed) {
        (_, true) => RETRY,
        (true, false) => Duration::ZERO,
        (false, false) => REPLAN,
    }
}

/// The two newest releases of each channel that is followed, and those before them that are pinned: what is current may be
/// older than the last two, where they were published faster than they came. Newest first.
fn relevant(config: &ReleasesConfig, verified: &Verified, pinned: &[PinOwner]) -> Vec<Release> {
    let is_pinned = |release: &Release| pins::owner_of(release).is_some_and(|owner| pinned.contains(&owner));
    let of = |channel: &Channel| {
        let releases = verified.releases.iter().rev().filter(|release| release.channel == *channel).enumerate();
        let these = releases.filter(|(age, release)| *age < 2 || is_pinned(release));
        these.map(|(_, release)| release.clone()).collect::<Vec<_>>()
    };
    config.channels.iter().flat_map(of).collect()
}

/// What tags stand for: what releases say that are here first, then the others, of each the newer ones first.
fn bindings(holdings: &[Holding], store: &Store) -> Vec<SignedBinding> {
    let (here, others): (Vec<&Holding>, Vec<&Holding>) = holdings.iter().partition(|holding| holding.is_usable(store));
    let of = |holding: &Holding| {
        let release = holding.release.name();
        let images = holding.release.images.clone();
        images.into_iter().filter_map(move |image| {
            let (_, reference) = image.reference().ok()?;
            Some(SignedBinding { reference: reference?, content: image.content().ok()?, release: release.clone() })
        })
    };
    here.into_iter().chain(others).flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use layermesh_proto::{Algorithm, Repository};

    use super::*;
    use crate::{release::ReleasedImage, store::StoreOptions};

    /// A release of one image, which is one blob that all platforms need, with a layer for one of them.
    fn holding(version: &str, newest: bool, platform: &str) -> Holding {
        let content = |what: &str| ContentId::of(Algorithm::Sha256, format!("{version} {what}").as_bytes());
        let repository = Repository::new("registry.example", "app").unwrap();
        let part = |what: &str, kind: ObjectKind, platforms: &[&str]| Planned {
            content: content(what),
            size: 1,
            kind,
            repository: repository.clone(),
            platforms: platforms.iter().map(ToString::to_string).collect(),
        };
        let image = ReleasedImage {
            name: "registry.example/app".to_owned(),
            tag: Some("stable".to_owned()),
            digest: content("manifest").to_string(),
            media_type: String::new(),
            size: 1,
            platforms: Vec::new(),
        };
        let release = Release {
            channel: "stable".parse().unwrap(),
            version: version.parse().unwrap(),
            number: 1,
            published_unix_s: 0,
            images: vec![image],
        };
        let parts =
            vec![part("manifest", ObjectKind::Manifest, &["a", "b"]), part("layer", ObjectKind::Blob, &[platform])];
        let own = vec!["a".to_owned()];
        Holding { release, newest, parts, own, known: true, short: None, failed: None, before: None, bytes_per_s: 0 }
    }

    async fn put(store: &Store, version: &str, what: &str) {
        let bytes = format!("{version} {what}");
        store.insert(ContentId::of(Algorithm::Sha256, bytes.as_bytes()), bytes.into()).await.unwrap();
    }

    #[tokio::test]
    async fn tags_do_not_go_back_for_want_of_a_copy_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { free_bytes_min: 0, ..StoreOptions::new(dir.path().to_owned()) };
        let store = Store::open(options).await.unwrap().store;
        put(&store, "1.0", "manifest").await;
        put(&store, "1.0", "layer").await;
        put(&store, "1.1", "manifest").await;
        let first = |next: Holding| bindings(&[next, holding("1.0", false, "a")], &store)[0].release.clone();
        assert_eq!(first(holding("1.1", true, "b")), "stable/1.1", "what is lacking is for others");
        assert_eq!(first(holding("1.1", true, "a")), "stable/1.0");
        put(&store, "1.1", "layer").await;
        assert_eq!(first(holding("1.1", true, "a")), "stable/1.1");
    }

    #[test]
    fn only_a_round_that_brought_something_is_followed_by_the_next_at_once() {
        assert_eq!(pause(true, false), Duration::ZERO);
        assert!([(false, false), (false, true), (true, true)].into_iter().all(|(some, bad)| pause(some, bad) >= RETRY));
    }
}
