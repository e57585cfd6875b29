//! `layermesh release publish`.

use anyhow::anyhow;
use clap::Args;

use super::{
    super::delta::publish::{Making, told},
    Exit, Failure, Global, Place, Signing, failure, hand, node, now, output,
};
use crate::{
    admin::{
        client::AdminClient,
        types::{InspectRequest, InspectedImage},
    },
    cli::progress::Progress,
    config::units::show_bytes,
    image::ImageReference,
    release::{
        Channel, Release, ReleaseVersion, ReleasedImage,
        content::{IMAGES_MAX, PATCHES_MAX},
    },
};

/// Arguments of `layermesh release publish`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    #[command(flatten)]
    place: Place,
    /// The channel, such as stable
    #[arg(long)]
    channel: Channel,
    /// The version, such as 1.4.0
    #[arg(long = "version", value_name = "VERSION")]
    release_version: ReleaseVersion,
    /// The images, such as ghcr.io/owner/name:tag; devices will know them by these tags
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Make patches from this version of the channel to the new one, put them beside the images in their registries, and
    /// sign which they are; may be given again
    #[arg(long, value_name = "VERSION")]
    delta_from: Vec<ReleaseVersion>,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten, next_help_heading = "Options of --delta-from")]
    making: Making,
}

pub(super) async fn run(args: PublishArgs, global: &Global) -> Result<Exit, Failure> {
    if args.images.len() > IMAGES_MAX {
        return Err(Failure::usage(anyhow!("a release has at most {IMAGES_MAX} images")));
    }
    let mut images: Vec<ImageReference> = Vec::new();
    for image in &args.images {
        let image = ImageReference::named(image).map_err(Failure::usage)?;
        if images.contains(&image) {
            return Err(Failure::usage(anyhow!("{image} is given twice")));
        }
        images.push(image);
    }
    if args.delta_from.len() > PATCHES_MAX {
        return Err(Failure::usage(anyhow!("patches lead from at most {PATCHES_MAX} versions to a new one")));
    }
    let publisher = args.place.open().await?;
    let bases = args.delta_from.iter().map(|version| publisher.release(&args.channel, version).cloned());
    let bases = bases.collect::<Result<Vec<Release>, _>>().map_err(failure)?;
    let ring = args.signing.ring(&args.place)?;
    let client = node::client(global)?;
    let mut inspected = Vec::new();
    for (index, image) in images.iter().enumerate() {
        let progress = Progress::new(global.json);
        let row =
            progress.step(&format!("asking the site and the registry for {image} ({} of {})", index + 1, images.len()));
        let found = inspect(&client, image).await;
        drop((row, progress));
        let found = found?;
        if !global.json {
            output::print(&described(image, &found))?;
        }
        inspected.push(found);
    }
    let mut release = Release {
        channel: args.channel,
        version: args.release_version,
        number: publisher.next_number(),
        published_unix_s: now(),
        images: inspected.into_iter().map(|inspected| inspected.image).collect(),
    };
    for base in &bases {
        patch(&args.making, base, &mut release, global).await?;
    }
    let (name, bytes) = (release.name(), release.bytes());
    let publisher = publisher.publish(release, &ring, args.signing.days.into(), now()).await.map_err(failure)?;
    if global.json {
        let release = publisher.verified().releases.last();
        output::print_json_document(&release)?;
    } else {
        output::print(&format!(
            "signed {name}: {}, {} for all platforms\n",
            output::counted(images.len() as u64, "image", "images"),
            show_bytes(bytes)
        ))?;
    }
    hand(&publisher, global).await?;
    Ok(Exit::Done)
}

/// Makes and pushes patches from the images of an older release, and names them in the new one.
async fn patch(making: &Making, base: &Release, release: &mut Release, global: &Global) -> Result<(), Failure> {
    for image in release.images.clone() {
        let Some(old) = base.predecessor(&image) else { continue };
        let by_digest =
            |image: &ReleasedImage| format!("{}@{}", image.name, image.digest).parse().map_err(Failure::usage);
        if !global.json {
            output::print(&format!("patches from {old} of {} to {image}\n", base.name()))?;
        }
        let published = making.publish((&by_digest(old)?, &by_digest(&image)?), false, global).await?;
        if !global.json {
            output::print(&told(&published, false))?;
        }
        release.add_patches(&published.artifacts);
    }
    Ok(())
}

/// Asks the node what an image is; fails if a part of it is missing.
async fn inspect(client: &AdminClient, image: &ImageReference) -> Result<InspectedImage, Failure> {
    let inspected = client.inspect(&InspectRequest { image: image.to_string() }).await?;
    if !inspected.missing.is_empty() {
        return Err(anyhow!(
            "{image} is not whole, so it is not released; neither this site nor its registry has\n  {}",
            inspected.missing.join("\n  ")
        )
        .into());
    }
    Ok(inspected)
}

/// What an image is, for people.
fn described(image: &ImageReference, inspected: &InspectedImage) -> String {
    let platforms: Vec<&str> =
        inspected.image.platforms.iter().filter_map(|platform| platform.platform.as_deref()).collect();
    let platforms = if platforms.is_empty() { "one platform".to_owned() } else { platforms.join(", ") };
    format!(
        "{image} is {}, says {}\n  {platforms}; {}, {}\n",
        inspected.image.digest,
        inspected.said_by,
        output::counted(inspected.blobs as u64, "blob", "blobs"),
        show_bytes(inspected.bytes),
    )
}
