//! `layermesh blobs`: what is held?

use super::{Exit, Failure, Global, node, output};
use crate::{admin::types::Blob, config::units::show_bytes};

pub(super) async fn run(global: &Global) -> Result<Exit, Failure> {
    let blobs = node::client(global)?.blobs().await?;
    if global.json {
        output::print_json_document(&blobs)?;
    } else if blobs.is_empty() {
        output::print("no blobs yet: pull an image through the mirror, or with `layermesh pull`\n")?;
    } else {
        output::print(&shown(blobs))?;
    }
    Ok(Exit::Done)
}

fn shown(blobs: Vec<Blob>) -> String {
    let total = blobs.iter().map(|blob| blob.size).sum();
    let last = format!("{} ({})\n", output::counted(blobs.len() as u64, "blob", "blobs"), show_bytes(total));
    let row = |blob: Blob| {
        let place = if blob.attached { "attached" } else { "" };
        vec![blob.digest, show_bytes(blob.size), place.to_owned(), blob.pinned_by.join(", ")]
    };
    output::table(&["DIGEST", "SIZE", "PLACE", "PINNED BY"], &[1], blobs.into_iter().map(row).collect()) + &last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{StoreView as _, testing::World};

    #[tokio::test]
    async fn a_row_a_blob_largest_first_and_a_sum() {
        let view = World::new().node();
        view.store.put(vec![0; 1024]);
        view.store.put(vec![0; 2048]);
        view.store.replace_pins("seed/a".parse().unwrap(), vec![view.store.put(vec![0; 1024])]).await.unwrap();
        let text = shown(view.blobs());
        let rows: Vec<_> = text.lines().collect();
        assert!(rows[1].contains("2.00 KiB") && rows[2].contains("1.00 KiB"), "{text}");
        assert!(!rows[1].contains("seed") && rows[2].ends_with("  seed/a"), "{text}");
        assert_eq!(rows[3], "2 blobs (3.00 KiB)");
    }
}
