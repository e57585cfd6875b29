//! Bringing an image of a file or directory to the node, for `layermesh seed` and `layermesh bundle import`.
//!
//! Invariant: nothing is sent that the node has, and of a blob that was sent in part only the rest.

use std::{io, path::PathBuf};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use indicatif::ProgressBar;
use layermesh_proto::ContentId;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::progress::short_digest;
use crate::{
    admin::{
        client::{AdminClient, ClientError},
        types::{SeedBlob, SeedNeed, SeedRequest, SeedSummary},
    },
    archive::{Place, SourceImage},
    contents::{Contents, Part, PlatformChoice, Walk},
    image::ImageReference,
};

/// Bytes read from a file at a time.
const READ_LEN: usize = 256 << 10;
/// Times that a blob is sent. Again after its older pieces were compared, and again if those are gone.
const SENDS_MAX: usize = 3;

/// What was brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Brought {
    pub(super) summary: SeedSummary,
    /// Bytes that the node had before.
    pub(super) bytes_held: u64,
    /// Bytes that were sent.
    pub(super) bytes_sent: u64,
    /// Manifests that the source lacks, and the platforms that they are for.
    pub(super) left_out: Vec<String>,
}

/// A blob to be sent.
struct Item {
    content: ContentId,
    place: Place,
    /// What it is, for people.
    what: String,
}

/// Sends what the node lacks of an image, then has it pinned under `name`, and with `bind` known by it.
pub(super) async fn bring(
    client: &AdminClient,
    image: SourceImage,
    name: &ImageReference,
    platform: Option<&str>,
    bind: bool,
    bar: &ProgressBar,
) -> anyhow::Result<Brought> {
    let root = image.root;
    bar.set_prefix(short_digest(&root.to_string()));
    let choice = platform.map_or(Ok(PlatformChoice::All), str::parse)?;
    let strict = platform.is_some();
    let (items, left_out) = tokio::task::spawn_blocking(move || items_of(&image, choice, strict)).await??;
    let size: u64 = items.iter().map(|item| item.place.size()).sum();
    let bytes_sent = send_all(client, &items, Some(name.to_string()), bar).await?;
    let request =
        SeedRequest { image: name.to_string(), digest: root.to_string(), platform: platform.map(str::to_owned), bind };
    let summary = client.seed_image(&request).await?;
    Ok(Brought { summary, bytes_held: size - bytes_sent, bytes_sent, left_out })
}

/// Sends what the node lacks, in order; returns how many bytes that were.
async fn send_all(
    client: &AdminClient,
    items: &[Item],
    image: Option<String>,
    bar: &ProgressBar,
) -> anyhow::Result<u64> {
    let needs = plan(client, image, items).await?;
    let lacking = |(item, need): (&Item, &SeedNeed)| need.from.map_or(0, |from| item.place.size() - from);
    let bytes_sent: u64 = items.iter().zip(&needs).map(lacking).sum();
    bar.set_length(bytes_sent);
    bar.set_position(0);
    for (item, need) in items.iter().zip(needs) {
        if let Some(from) = need.from {
            send(client, item, from, bar).await.with_context(|| item.what.clone())?;
        }
    }
    Ok(bytes_sent)
}

/// What the image needs, where it is, and what the source lacks. What is named comes before what names it, so that nobody
/// hears of a manifest whose blobs are still to come.
fn items_of(image: &SourceImage, choice: PlatformChoice, strict: bool) -> anyhow::Result<(Vec<Item>, Vec<String>)> {
    let mut walk = Walk::new(image.root, choice);
    while let Some(next) = walk.next() {
        match image.manifest(&next)? {
            Some(bytes) => walk.read(&bytes)?,
            None => walk.missing(),
        }
    }
    let contents = walk.finish();
    contents.matched().map_err(|lacking| anyhow!("the image {lacking}"))?;
    let Contents { parts, unread, .. } = contents;
    let (mut items, mut left_out) = (Vec::new(), Vec::new());
    for part in parts.iter().rev() {
        if unread.contains(&part.content) {
            if strict || part.content == image.root {
                return Err(image.lacks(&part.content).into());
            }
            left_out.push(shown(part));
            continue;
        }
        let place = image.locate(&part.content)?.ok_or_else(|| image.lacks(&part.content))?;
        if let Some(size) = part.size.filter(|&size| size != place.size()) {
            return Err(anyhow!(
                "{} has {} bytes and the image says {size}: copy or save it again",
                shown(part),
                place.size()
            ));
        }
        items.push(Item { content: part.content, place, what: shown(part) });
    }
    if items.iter().all(|item| item.content == image.root) && !left_out.is_empty() {
        return Err(anyhow!("none of the image's manifests is there: copy or save it again"));
    }
    Ok((items, left_out))
}

fn shown(part: &Part) -> String {
    let platforms = part.platforms.iter().map(|platform| format!(" for {platform}")).collect::<Vec<_>>().join(",");
    format!("{} {}{platforms}", part.role, part.content)
}

async fn plan(client: &AdminClient, image: Option<String>, items: &[Item]) -> Result<Vec<SeedNeed>, ClientError> {
    let blobs = items.iter().map(|item| SeedBlob { digest: item.content.to_string(), size: item.place.size() });
    let needs = client.seed_plan(image, blobs.collect()).await?;
    if needs.len() == items.len() { Ok(needs) } else { Err(ClientError::Broken("it lists other blobs".to_owned())) }
}

/// Sends a blob from a byte on.
async fn send(client: &AdminClient, item: &Item, from: u64, bar: &ProgressBar) -> anyhow::Result<()> {
    let mut from = from;
    for again in 1.. {
        let body = body(&item.place, from, bar.clone()).await?;
        match client.send_blob(&item.content, item.place.size(), from, body).await {
            Ok(()) => return Ok(()),
            // What came of it before, by whatever way, may be wrong; only all of it can tell.
            Err(ClientError::Suspect(_)) if again < SENDS_MAX => {
                let all = body_of(&item.place, 0).await?;
                client.compare_blob(&item.content, item.place.size(), all).await?;
            }
            Err(ClientError::Changed(_)) if again < SENDS_MAX => {}
            Err(error) => return Err(error.into()),
        }
        match plan(client, None, std::slice::from_ref(item)).await?.first().and_then(|need| need.from) {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
    Ok(())
}

async fn body(place: &Place, from: u64, bar: ProgressBar) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    let bytes = body_of(place, from).await?;
    Ok(bytes.inspect_ok(move |chunk| bar.inc(chunk.len() as u64)).boxed())
}

async fn body_of(place: &Place, from: u64) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    match place {
        Place::Bytes(bytes) => {
            let rest = bytes.slice(usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len())..);
            Ok(stream::iter([Ok(rest)]).boxed())
        }
        Place::File { path, offset, size } => {
            let mut file = tokio::fs::File::open(path).await.map_err(|error| at(path.clone(), &error))?;
            file.seek(io::SeekFrom::Start(offset + from)).await?;
            Ok(ReaderStream::with_capacity(file.take(size - from), READ_LEN).boxed())
        }
    }
}

fn at(path: PathBuf, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
