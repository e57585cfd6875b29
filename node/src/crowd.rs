//! Who may stand at a listener: how many in all, how many from one address, and who has to go when it is full.
//!
//! Invariant: a listener never has more connections than its places. Where it is full, the one that has not moved for longest
//! makes room, if that is long enough to tell that it is not at work: whoever opens connections and leaves them
//! keeps nobody out. What comes from the device itself is counted in all, but not by its address.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Between two lines about connections that were turned away: a flood must not fill the log.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// How crowded a listener may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// Connections at once.
    pub(crate) all: usize,
    /// Of one address that is not the device's own.
    pub(crate) per_address: usize,
    /// A connection on which no byte went either way for so long makes room for another where all places are taken.
    pub(crate) idle_min: Duration,
}

/// Where connections come from, as they are counted: an IPv4 address, or the network of an IPv6 address, of which a
/// device has as many as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(IpAddr);

impl Source {
    /// `None` for the device itself: it came from the very address that it came to.
    pub(crate) fn of(remote: IpAddr, local: IpAddr) -> Option<Self> {
        let (remote, local) = (remote.to_canonical(), local.to_canonical());
        match remote {
            _ if remote == local => None,
            IpAddr::V4(_) => Some(Self(remote)),
            // Of one link all are in one network.
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(Self(remote)),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Some(Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()))
            }
        }
    }

    /// The same for two ends of a connection; whoever has no addresses is on the device.
    pub(crate) fn of_connection(remote: io::Result<SocketAddr>, local: io::Result<SocketAddr>) -> Option<Self> {
        match (remote, local) {
            (Ok(remote), Ok(local)) => Self::of(remote.ip(), local.ip()),
            _ => None,
        }
    }
}

/// The connections of a listener.
#[derive(Debug, Clone)]
pub(crate) struct Crowd(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    places: Places,
    begun: Instant,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    connections: BTreeMap<u64, Connection>,
    /// Turned away since that was last said.
    refused: u64,
    said: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    from: Option<Source>,
    moved_ms: Arc<AtomicU64>,
    leave: CancellationToken,
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(places: Places) -> Self {
        Self(Arc::new(Shared { places, begun: Instant::now(), taken: Mutex::default() }))
    }

    /// A place for a connection, or none. One that has to make room is told so, and counts no more from now on.
    pub(crate) fn enter(&self, from: Option<Source>) -> Option<Place> {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.place(&mut taken, from);
        taken.refused += u64::from(place.is_none());
        place
    }

    /// How many were turned away since this was last asked, if it is time to say so: once a minute.
    pub(crate) fn refused(&self) -> Option<u64> {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if taken.refused == 0 || taken.said.is_some_and(|said| now.duration_since(said) < SAY_AGAIN) {
            return None;
        }
        taken.said = Some(now);
        Some(std::mem::take(&mut taken.refused))
    }

    fn place(&self, taken: &mut Taken, from: Option<Source>) -> Option<Place> {
        let now_ms = self.0.now_ms();
        let places = self.0.places;
        let of_source = taken.connections.values().filter(|other| other.from == from).count();
        if from.is_some() && of_source >= places.per_address {
            return None;
        }
        if taken.connections.len() >= places.all {
            let moved = taken.connections.iter().map(|(id, one)| (one.moved_ms.load(Relaxed), *id));
            let (moved_ms, id) = moved.min()?;
            if u128::from(now_ms.saturating_sub(moved_ms)) < places.idle_min.as_millis() {
                return None;
            }
            if let Some(gone) = taken.connections.remove(&id) {
                gone.leave.cancel();
            }
        }
        let id = taken.next;
        taken.next += 1;
        let (moved_ms, leave) = (Arc::new(AtomicU64::new(now_ms)), CancellationToken::new());
        taken.connections.insert(id, Connection { from, moved_ms: Arc::clone(&moved_ms), leave: leave.clone() });
        Some(Place { id, moved_ms, leave, shared: Arc::clone(&self.0) })
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A connection's place; it is free once this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    moved_ms: Arc<AtomicU64>,
    leave: CancellationToken,
    shared: Arc<Shared>,
}

impl Place {
    /// Ends when another connection takes the place.
    pub(crate) fn taken_away(&self) -> WaitForCancellationFutureOwned {
        self.leave.clone().cancelled_owned()
    }

    /// Takes note of bytes that go over `io`, whose other end may take none of those that are ready for it for
    /// `stall_max` at most.
    pub(crate) fn watch<T>(&self, io: T, stall_max: Duration) -> Watched<T> {
        let mark = Mark { moved_ms: Arc::clone(&self.moved_ms), shared: Arc::clone(&self.shared) };
        Watched { inner: io, stall_max, waiting: None, mark }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner).connections.remove(&self.id);
    }
}

#[derive(Debug)]
struct Mark {
    moved_ms: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

/// A connection whose other end must keep reading, and that tells when it moved.
///
/// HTTP has no deadline for a client that stops reading in the middle of an answer; such a client would keep its
/// connection, its buffers and its place for ever.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    inner: T,
    stall_max: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    mark: Mark,
}

impl<T> Watched<T> {
    /// The connection itself.
    pub(crate) fn into_inner(self) -> T {
        self.inner
    }

    fn moved(&self) {
        self.mark.moved_ms.store(self.mark.shared.now_ms(), Relaxed);
    }

    fn guard<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let stall_max = self.stall_max;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(stall_max)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.moved();
        }
        self.guard(cx, polled)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.moved();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.guard(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.guard(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const STALL_MAX: Duration = Duration::from_secs(20);
    const PLACES: Places = Places { all: 8, per_address: 3, idle_min: Duration::from_secs(5) };

    fn from(last: u8) -> Option<Source> {
        Source::of([10, 0, 0, last].into(), [10, 0, 0, 254].into())
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_its_share_and_the_device_itself_all() {
        let crowd = Crowd::new(PLACES);
        let many: Vec<_> = (0..10 * PLACES.per_address).filter_map(|_| crowd.enter(from(1))).collect();
        assert_eq!(many.len(), PLACES.per_address);
        let other = crowd.enter(from(2));
        assert!(other.is_some(), "another address has its own share");
        let own: Vec<_> = (0..10 * PLACES.all).filter_map(|_| crowd.enter(None)).collect();
        assert_eq!(own.len(), PLACES.all - PLACES.per_address - 1);
        drop(many);
        assert!(crowd.enter(from(1)).is_some(), "a place is free when its connection ends");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_nothing_makes_room_and_who_is_at_work_does_not() {
        let crowd = Crowd::new(PLACES);
        let places: Vec<_> = (0..PLACES.all).map(|_| crowd.enter(None).unwrap()).collect();
        tokio::time::advance(PLACES.idle_min - Duration::from_millis(1)).await;
        assert!(crowd.enter(None).is_none(), "nobody was idle for long enough");
        let (near, mut far) = tokio::io::duplex(64);
        let mut at_work = places[0].watch(near, STALL_MAX);
        at_work.write_all(b"x").await.unwrap();
        far.read_exact(&mut [0]).await.unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        let later: Vec<_> = (0..10 * PLACES.all).filter_map(|_| crowd.enter(None)).collect();
        assert_eq!(later.len(), PLACES.all - 1, "all but the one at work went");
        assert!(!places[0].leave.is_cancelled());
        assert!(places[1..].iter().all(|place| place.leave.is_cancelled()));
        drop(places);
        assert_eq!(crowd.0.taken.lock().unwrap().connections.len(), PLACES.all - 1);
    }

    #[test]
    fn addresses_of_one_network_count_together_and_those_of_one_link_do_not() {
        let of = |remote: &str| Source::of(remote.parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("fe80::1"), of("fe80::2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_eq!(of("2001:db8::1"), None, "the device itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_makes_a_line_a_minute() {
        let crowd = Crowd::new(PLACES);
        let _places: Vec<_> = (0..PLACES.all).map(|_| crowd.enter(None).unwrap()).collect();
        let said: Vec<u64> =
            (0..10_000).filter_map(|_| crowd.enter(None).map_or_else(|| crowd.refused(), |_| None)).collect();
        assert_eq!(said, [1]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(crowd.refused(), Some(9_999));
        assert_eq!(crowd.refused(), None);
    }

    fn alone<T>(io: T) -> (Place, Watched<T>) {
        let place = Crowd::new(PLACES).enter(None).unwrap();
        let watched = place.watch(io, STALL_MAX);
        (place, watched)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_fails_the_write() {
        let (near, _far) = tokio::io::duplex(16);
        let (_place, mut watched) = alone(near);
        let error = watched.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_keeps_reading_is_served() {
        let (near, mut far) = tokio::io::duplex(16);
        let reader = tokio::spawn(async move {
            let mut read = 0;
            while read < 64 {
                tokio::time::sleep(STALL_MAX / 2).await;
                read += far.read(&mut [0; 8]).await.unwrap();
            }
        });
        let (_place, mut watched) = alone(near);
        watched.write_all(&[0; 64]).await.unwrap();
        reader.await.unwrap();
    }
}
