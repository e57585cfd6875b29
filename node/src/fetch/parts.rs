//! A body from a registry, at the pace that all fetches from registries share.
//!
//! A body that is only read slowly still crosses the uplink as fast as that goes, until all buffers on the way are full: with
//! some connections these hold megabytes, seconds of a slow rate. So while there is a rate, a body is asked for in parts, each
//! of which is asked for when it is its turn. Invariants: what is on its way of all bodies together, beyond what has had its
//! time, is at most one part; the time of the next runs while one comes, so that a lone body has the whole rate however far
//! away the registry is, up to [`PART_TIME_MAX`]. A registry that does not do ranges sends everything at once, and is slowed down as far as buffers allow.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use layermesh_proto::{ContentId, ObjectKind, Repository, engine::event::SourceError};
use tokio::time::{Instant, sleep_until};

use crate::{
    origin::{OriginBody, Origins},
    pace::Pace,
};

type Chunks = BoxStream<'static, Result<Bytes, SourceError>>;

/// How long a part passes, at least. 100 ms: what is over a site's rate in any second is then a tenth of it at most.
const PART_TIME: Duration = Duration::from_millis(100);
/// How often the registry's latency fits into a part's time: the rest is for the bytes.
const LATENCIES_IN_PART: u32 = 4;
/// The longest time of a part. 2 s: four times the latency over a geostationary satellite.
const PART_TIME_MAX: Duration = Duration::from_secs(2);
/// The smallest part in bytes: the head of a question and of its answer is some hundred bytes.
const PART_BYTES_MIN: u64 = 32 << 10;
/// The smallest first part of an object of unknown size. Most are smaller than this, and what others ask for waits as long as
/// all of it takes.
const FIRST_PART_BYTES_MIN: u64 = 4 << 10;

/// What is wanted of an object.
pub(super) struct Wanted {
    pub(super) repository: Repository,
    pub(super) kind: ObjectKind,
    pub(super) content: ContentId,
    pub(super) start: u64,
    /// Excluded; none for all of it, which is not asked for in parts.
    pub(super) end: Option<u64>,
    /// Whether the object's size is known. If not, `end` may be past it, and the registry has to say it.
    pub(super) sized: bool,
}

/// Opens what is wanted.
///
/// # Errors
/// As [`Origins::open_part`].
pub(super) async fn open(origins: &Origins, uplink: &Arc<Pace>, wanted: Wanted) -> Result<OriginBody, SourceError> {
    let Wanted { repository, kind, content, start, end, sized } = wanted;
    let part = part_bytes(uplink, Duration::ZERO, if sized { PART_BYTES_MIN } else { FIRST_PART_BYTES_MIN });
    let asked = end.zip(part).map(|(end, part)| end.min(start.saturating_add(part)));
    if let Some(asked) = asked {
        sleep_until(uplink.turn(asked.saturating_sub(start))).await;
    }
    let began = Instant::now();
    let body = match (asked.or(end), sized) {
        (Some(end), false) => origins.open_first(&repository, kind, &content, start, end).await?,
        (end, _) => origins.open_part(&repository, kind, &content, start, end).await?,
    };
    let (Some(asked), Some(end)) = (asked, end) else { return Ok(paced(body, uplink)) };
    if !body.ranged {
        uplink.refund(asked.saturating_sub(start));
        return Ok(paced(body, uplink));
    }
    let OriginBody { total, start, ranged, stream } = body;
    let end = total.map_or(end, |total| end.min(total));
    uplink.refund(asked.saturating_sub(end));
    let of = Object { repository, kind, content, total };
    let mut parts = Parts {
        origins: origins.clone(),
        uplink: Arc::clone(uplink),
        of,
        at: asked.min(end),
        end,
        next: None,
        part: stream,
    };
    parts.provide(began.elapsed());
    Ok(OriginBody { total, start, ranged, stream: parts.into_stream() })
}

/// Bytes of a part; none if all may come at once.
fn part_bytes(uplink: &Pace, latency: Duration, bytes_min: u64) -> Option<u64> {
    let time = PART_TIME.max(latency * LATENCIES_IN_PART).min(PART_TIME_MAX);
    uplink.bytes_in(time).map(|bytes| bytes.max(bytes_min))
}

/// The body, at the pace of its reader. What has not passed is not read on: the registry is slowed down by its connection.
fn paced(body: OriginBody, uplink: &Arc<Pace>) -> OriginBody {
    let uplink = Arc::clone(uplink);
    let stream = body.stream.then(move |chunk| {
        let uplink = Arc::clone(&uplink);
        async move {
            if let Ok(chunk) = &chunk {
                uplink.pass(chunk.len() as u64).await;
            }
            chunk
        }
    });
    OriginBody { stream: stream.boxed(), ..body }
}

struct Object {
    repository: Repository,
    kind: ObjectKind,
    content: ContentId,
    /// Its size, as far as the registry said.
    total: Option<u64>,
}

struct Parts {
    origins: Origins,
    uplink: Arc<Pace>,
    of: Object,
    /// Where the next part starts.
    at: u64,
    /// Where the last part ends.
    end: u64,
    /// When the next part may be asked for, and where it ends.
    next: Option<(Instant, u64)>,
    part: Chunks,
}

impl Parts {
    fn into_stream(self) -> Chunks {
        let chunks = stream::unfold(Some(self), |parts| async move {
            let mut parts = parts?;
            match parts.chunk().await {
                Some(Ok(chunk)) => Some((Ok(chunk), Some(parts))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        });
        chunks.boxed()
    }

    async fn chunk(&mut self) -> Option<Result<Bytes, SourceError>> {
        loop {
            if let Some(chunk) = self.part.next().await {
                return Some(chunk);
            }
            let (due, end) = self.next.take()?;
            sleep_until(due).await;
            if let Err(error) = self.go_on(end).await {
                return Some(Err(error));
            }
        }
    }

    /// Asks for the next part.
    async fn go_on(&mut self, end: u64) -> Result<(), SourceError> {
        let began = Instant::now();
        let Object { repository, kind, content, total } = &self.of;
        let body = self.origins.open_part(repository, *kind, content, self.at, Some(end)).await?;
        if !body.ranged || body.start != self.at || body.total != *total {
            return Err(SourceError::Failed("it does not go on where it was asked to".to_owned()));
        }
        (self.part, self.at) = (body.stream, end);
        self.provide(began.elapsed());
        Ok(())
    }

    /// Lets the time of the next part run from now on.
    fn provide(&mut self, latency: Duration) {
        let left = self.end - self.at;
        self.next = (left > 0).then(|| {
            let bytes = part_bytes(&self.uplink, latency, PART_BYTES_MIN).map_or(left, |part| part.min(left));
            (self.uplink.turn(bytes), self.at + bytes)
        });
    }
}
