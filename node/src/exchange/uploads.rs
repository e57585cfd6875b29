//! Upload slots: who sends when, as [`Slots`] decides.
//!
//! Invariant: a ticket belongs to one [`Upload`] and is given back with it, whenever that is dropped. Slots whose time
//! is over are taken back by [`Uploads::take_back_overdue`], which has to run: who sends to a slow reader is not asked.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use layermesh_proto::NodeId;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until, timeout},
};

use super::slots::{Asker, Limits, Slots, Ticket};

/// Bodies that send at once. 16: a small device's card, core and radio are busy with two or three, the others keep
/// them so while readers pause; more would only make each slower, and its reader give up.
const UPLOADS_MAX: usize = 16;
/// Bodies that wait for a slot, beyond which a request is refused at once. 64: with a quantum each they all have their
/// turn within a second, and most of a server's connections may be in use.
const WAITING_MAX: usize = 64;
/// The same of one peer. 8: as many as a client has connections to one peer, so only others are refused.
const WAITING_PER_PEER_MAX: usize = 8;
/// Bytes sent with a slot while others wait. 4 MiB: four of the largest pieces, so changing places costs nothing.
const QUANTUM_BYTES: u64 = 4 << 20;
/// Time for which a slot is kept while others wait. 250 ms: 4 MiB at 16 MB/s. A reader that takes bytes slowly keeps
/// the others waiting no longer, and the last of eighty peers has its turn after 1.3 s.
const QUANTUM: Duration = Duration::from_millis(250);

/// A node's own; tests have smaller ones.
pub(super) const LIMITS: Limits = Limits {
    slots: UPLOADS_MAX,
    waiting: WAITING_MAX,
    waiting_per_peer: WAITING_PER_PEER_MAX,
    quantum_bytes: QUANTUM_BYTES,
    quantum: QUANTUM,
};

/// The upload slots of a server.
#[derive(Debug)]
pub(super) struct Uploads {
    began: Instant,
    state: Mutex<State>,
    /// A slot can be taken back sooner than was known.
    sooner: Notify,
}

#[derive(Debug)]
struct State {
    slots: Slots<NodeId>,
    /// How those that wait are told.
    told: BTreeMap<Ticket, oneshot::Sender<()>>,
    /// When [`Uploads::take_back_overdue`] looks next.
    looks_at: Option<Duration>,
}

impl Uploads {
    pub(super) fn new(limits: Limits) -> Self {
        let state = State { slots: Slots::new(limits), told: BTreeMap::new(), looks_at: None };
        Self { began: Instant::now(), state: Mutex::new(state), sooner: Notify::new() }
    }

    /// A slot for this peer, waited for no longer than this; `None` if none came free, or too many wait.
    pub(super) async fn admit(self: &Arc<Self>, peer: NodeId, wait_max: Duration) -> Option<Upload> {
        let mut upload = Upload { uploads: Arc::clone(self), peer, ticket: None };
        let told = upload.ask(Asker::Newcomer)?;
        timeout(wait_max, upload.wait(told)).await.ok()?;
        Some(upload)
    }

    /// Gives slots whose time is over to those who wait. For as long as the server runs.
    pub(super) async fn take_back_overdue(&self) -> Infallible {
        loop {
            self.change(|_, _| ());
            let looks_at = {
                let mut state = self.state();
                state.looks_at = state.slots.next_expiry();
                state.looks_at
            };
            match looks_at {
                Some(at) => tokio::select! {
                    () = sleep_until(self.began + at) => {}
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }

    /// Slots that are held, and tickets that wait.
    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        let state = self.state();
        (state.slots.held(), state.slots.waiting())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and tells those whose turn it is then.
    fn change<R>(&self, change: impl FnOnce(&mut State, Duration) -> R) -> R {
        let mut state = self.state();
        let now = self.began.elapsed();
        let changed = change(&mut state, now);
        while let Some(ticket) = state.slots.grant(now) {
            if let Some(told) = state.told.remove(&ticket) {
                // Whoever does not listen any more is about to give its ticket back.
                let _ = told.send(());
            }
        }
        if let Some(at) = state.slots.next_expiry()
            && state.looks_at.is_none_or(|looks_at| at < looks_at)
        {
            self.sooner.notify_one();
        }
        changed
    }
}

/// One body's right to send. It has a slot while it sends, and none while it has nothing to send.
#[derive(Debug)]
pub(super) struct Upload {
    uploads: Arc<Uploads>,
    peer: NodeId,
    ticket: Option<Ticket>,
}

impl Upload {
    /// Waits until it may send: at once if it holds a slot and its quantum is not over, or nobody else waits.
    pub(super) async fn turn(&mut self) {
        let ticket = self.ticket;
        if ticket.is_some_and(|ticket| self.uploads.change(|state, now| state.slots.may_send(ticket, now))) {
            return;
        }
        if let Some(told) = self.ask(Asker::Begun) {
            self.wait(told).await;
        }
    }

    /// Gives the slot back: there is nothing to send.
    pub(super) fn rest(&mut self) {
        let (Some(ticket), peer) = (self.ticket.take(), self.peer) else { return };
        self.uploads.change(|state, _| state.forget(ticket, peer));
    }

    /// Waits for what keeps it from sending though its reader would take bytes. The slot stays its own meanwhile: the
    /// others would wait for the same.
    pub(super) async fn held_up(&self, wait: impl Future<Output = ()>) {
        let Some(ticket) = self.ticket else { return wait.await };
        self.uploads.state().slots.pin(ticket);
        wait.await;
        self.uploads.change(|state, _| state.slots.unpin(ticket));
    }

    /// Counts bytes against the quantum.
    pub(super) fn sent(&self, bytes: u64) {
        if let Some(ticket) = self.ticket {
            self.uploads.state().slots.sent(ticket, bytes);
        }
    }

    fn ask(&mut self, asker: Asker) -> Option<oneshot::Receiver<()>> {
        self.rest();
        let (told, receiver) = oneshot::channel();
        let peer = self.peer;
        self.ticket = self.uploads.change(|state, now| {
            let ticket = state.slots.ask(peer, asker, now)?;
            state.told.insert(ticket, told);
            Some(ticket)
        });
        self.ticket.map(|_| receiver)
    }

    async fn wait(&self, told: oneshot::Receiver<()>) {
        // Its sender is dropped only with the ticket, which this body has.
        let _ = told.await;
        if let Some(ticket) = self.ticket {
            self.uploads.change(|state, now| state.slots.start(ticket, now));
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.rest();
    }
}

impl State {
    fn forget(&mut self, ticket: Ticket, peer: NodeId) {
        self.slots.give_back(ticket, peer);
        self.told.remove(&ticket);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LIMITS: Limits = Limits { slots: 1, waiting: 2, ..super::LIMITS };
    const WAIT_MAX: Duration = Duration::from_secs(3);

    fn peer(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    fn uploads() -> Arc<Uploads> {
        let uploads = Arc::new(Uploads::new(LIMITS));
        tokio::spawn({
            let uploads = Arc::clone(&uploads);
            async move { uploads.take_back_overdue().await }
        });
        uploads
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_slot_in_time_or_no_room_to_wait_is_refused() {
        let uploads = uploads();
        let held = uploads.admit(peer(1), WAIT_MAX).await.unwrap();
        let start = Instant::now();
        let forever = held.held_up(std::future::pending());
        let admitted = futures::future::join3(
            uploads.admit(peer(2), WAIT_MAX),
            uploads.admit(peer(3), WAIT_MAX * 2),
            uploads.admit(peer(4), WAIT_MAX).map(|admitted| {
                assert_eq!(start.elapsed(), Duration::ZERO, "there is no room to wait");
                admitted
            }),
        );
        tokio::select! {
            () = forever => {}
            (second, third, fourth) = admitted => assert!(second.is_none() && third.is_none() && fourth.is_none()),
        }
        assert_eq!(start.elapsed(), WAIT_MAX * 2);
        assert_eq!(uploads.count(), (1, 0));
        drop(held);
        assert_eq!(uploads.count(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn of_ten_times_the_uploads_the_limit_waits_and_the_rest_is_refused_at_once() {
        let limits = Limits { quantum: Duration::from_secs(600), ..super::LIMITS };
        let uploads = Arc::new(Uploads::new(limits));
        let peers = (0..10 * (limits.slots + limits.waiting)).map(|n| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            NodeId::from_public_key(key)
        });
        let mut held = Vec::new();
        let mut waiting = Vec::new();
        let mut refused = 0;
        for peer in peers {
            let mut asking = Box::pin(uploads.admit(peer, WAIT_MAX));
            match asking.as_mut().now_or_never() {
                Some(Some(upload)) => held.push(upload),
                Some(None) => refused += 1,
                None => waiting.push(asking),
            }
        }
        assert_eq!((held.len(), waiting.len()), (limits.slots, limits.waiting));
        assert_eq!(refused, 9 * (limits.slots + limits.waiting));
        assert_eq!(uploads.count(), (limits.slots, limits.waiting));
        // Whoever waits has its turn as if nobody had been refused.
        held.clear();
        for asking in waiting {
            assert!(asking.await.is_some());
        }
        assert_eq!(uploads.count(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn ten_times_what_a_peer_may_wait_for_leaves_room_for_others() {
        let limits = Limits { quantum: Duration::from_secs(600), ..super::LIMITS };
        let uploads = Arc::new(Uploads::new(limits));
        let mut asked = Vec::new();
        for _ in 0..limits.slots + 10 * limits.waiting_per_peer {
            let mut asking = Box::pin(uploads.admit(peer(1), WAIT_MAX));
            asked.push((asking.as_mut().now_or_never(), asking));
        }
        assert_eq!(uploads.count(), (limits.slots, limits.waiting_per_peer));
        let mut other = Box::pin(uploads.admit(peer(2), WAIT_MAX));
        assert!(other.as_mut().now_or_never().is_none());
        // The first slot that comes free is the other one's, who holds none.
        drop(asked.remove(0));
        assert!(other.now_or_never().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_loses_its_slot_after_a_quantum_and_queues_again() {
        let uploads = uploads();
        let mut slow = uploads.admit(peer(1), WAIT_MAX).await.unwrap();
        // Nothing is sent, and nobody polls its body.
        let start = Instant::now();
        let other = uploads.admit(peer(2), WAIT_MAX).await.unwrap();
        assert_eq!(start.elapsed().as_millis(), QUANTUM.as_millis());
        slow.turn().await;
        assert_eq!(start.elapsed().as_millis(), 2 * QUANTUM.as_millis());
        drop(other);
        assert_eq!(uploads.count(), (1, 0));
        slow.turn().await;
        assert_eq!(start.elapsed().as_millis(), 2 * QUANTUM.as_millis(), "nobody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_not_taken_from_who_is_held_up_until_it_no_longer_is() {
        let uploads = uploads();
        let held = uploads.admit(peer(1), WAIT_MAX).await.unwrap();
        let start = Instant::now();
        let (other, ()) = tokio::join!(uploads.admit(peer(2), WAIT_MAX), held.held_up(tokio::time::sleep(QUANTUM * 4)));
        assert!(other.is_some());
        assert_eq!(start.elapsed().as_millis(), 4 * QUANTUM.as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_end_a_quantum_too() {
        let uploads = uploads();
        let mut fast = uploads.admit(peer(1), WAIT_MAX).await.unwrap();
        let mut other = Box::pin(uploads.admit(peer(2), WAIT_MAX));
        assert!(other.as_mut().now_or_never().is_none());
        fast.sent(QUANTUM_BYTES - 1);
        fast.turn().now_or_never().unwrap();
        fast.sent(1);
        assert!(fast.turn().now_or_never().is_none());
        let other = other.now_or_never().unwrap().unwrap();
        assert_eq!(uploads.count(), (1, 1));
        drop(other);
        fast.turn().now_or_never().unwrap();
        assert_eq!(uploads.count(), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn no_slot_is_lost_wherever_a_body_is_dropped() {
        let uploads = uploads();
        let at = |count| assert_eq!(uploads.count(), count);
        let admit = || Box::pin(uploads.admit(peer(1), WAIT_MAX));
        drop(admit());
        at((0, 0));

        let held = admit().await.unwrap();
        let mut waiting = admit();
        assert!(waiting.as_mut().now_or_never().is_none());
        at((1, 1));
        drop(waiting);
        at((1, 0));

        let mut granted = admit();
        assert!(granted.as_mut().now_or_never().is_none());
        drop(held);
        at((1, 0));
        drop(granted);
        at((0, 0));

        let (mut first, mut second) = (admit().await.unwrap(), admit());
        assert!(second.as_mut().now_or_never().is_none());
        first.sent(QUANTUM_BYTES);
        let mut turn = Box::pin(first.turn());
        assert!(turn.as_mut().now_or_never().is_none());
        at((1, 1));
        drop(turn);
        assert!(first.turn().now_or_never().is_none(), "and asks again");
        at((1, 1));
        drop(first);
        at((1, 0));
        let second = second.await.unwrap();
        assert!(second.held_up(std::future::pending()).now_or_never().is_none());
        at((1, 0));
        drop(second);
        at((0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_rests_has_no_slot() {
        let uploads = uploads();
        let mut first = uploads.admit(peer(1), WAIT_MAX).await.unwrap();
        first.rest();
        assert_eq!(uploads.count(), (0, 0));
        let _second = uploads.admit(peer(2), WAIT_MAX).now_or_never().unwrap().unwrap();
        assert!(first.turn().now_or_never().is_none());
        assert_eq!(uploads.count(), (1, 1));
    }
}
