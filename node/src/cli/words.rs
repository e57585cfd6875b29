//! Names, figures and bars as people see them live: in `top`, and of how far a command is.

use std::{collections::HashMap, time::Duration};

use crate::{
    admin::types::SiteStatus,
    config::units::{show_bytes, show_duration},
};

/// Longest text taken of what others named, in characters: no terminal shows more in a line.
const PLAIN_CHARS_MAX: usize = 300;
/// Characters at the end of a peer id that tell it from others: all of them begin alike.
const ID_CHARS: usize = 6;
/// Characters at the beginning of a digest, without its algorithm.
const DIGEST_CHARS: usize = 8;
/// Sources named of one transfer; of the others only how many they are is said.
const SOURCES_MAX: usize = 3;
/// Longer than that nobody waits, and no guess holds: 30 days.
const LEFT_MAX: Duration = Duration::from_secs(30 * 86_400);
/// What stands for a figure that is not known.
pub(super) const UNKNOWN: &str = "-";

/// What others wrote, as text that a terminal shows and does not obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().take(PLAIN_CHARS_MAX).map(|char| if is_obeyed(char) { '\u{fffd}' } else { char }).collect()
}

/// Whether a character does something to a terminal or to the text beside it: controls, and what turns, joins or hides text.
fn is_obeyed(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// The end of a peer id.
pub(super) fn short_id(peer_id: &str) -> String {
    let skipped = peer_id.chars().count().saturating_sub(ID_CHARS);
    plain(&format!("…{}", peer_id.chars().skip(skipped).collect::<String>()))
}

/// A layer, by the image that it belongs to if one is known.
pub(super) fn layer_name(image: Option<&str>, digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    let image = image.map_or("layer", |image| image.rsplit('/').next().unwrap_or(image));
    plain(&format!("{image} {}", hex.chars().take(DIGEST_CHARS).collect::<String>()))
}

/// Each device's name by its peer id: its address, and where several have the same one, the end of its id too.
pub(super) fn device_names(site: &SiteStatus) -> HashMap<&str, String> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for address in site.devices.iter().filter_map(|device| device.address.as_deref()) {
        *uses.entry(address).or_default() += 1;
    }
    let named = site.devices.iter().map(|device| {
        let name = match device.address.as_deref() {
            None => short_id(&device.peer_id),
            Some(address) if uses.get(address).is_some_and(|uses| *uses > 1) => {
                format!("{} {}", plain(address), short_id(&device.peer_id))
            }
            Some(address) => plain(address),
        };
        (device.peer_id.as_str(), name)
    });
    named.chain([(site.node.peer_id.as_str(), "this device".to_owned())]).collect()
}

/// Where bytes come from: peers by their names, registries, patches.
pub(super) fn sources(sources: &[String], names: &HashMap<&str, String>) -> String {
    let word = |source: &String| match source.split_once(' ') {
        Some(("peer", id)) => names.get(id).cloned().unwrap_or_else(|| short_id(id)),
        Some(("origin", registry)) => format!("registry {}", plain(registry)),
        _ => plain(source),
    };
    listed(sources.iter().map(word).collect())
}

/// Names one after the other, in order, and how many more there are.
pub(super) fn listed(mut names: Vec<String>) -> String {
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(SOURCES_MAX);
    names.truncate(SOURCES_MAX);
    let named = names.join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

/// Bytes a second; nothing where nothing moves.
pub(super) fn rate(bytes_per_s: u64) -> String {
    if bytes_per_s == 0 { UNKNOWN.to_owned() } else { format!("{}/s", show_bytes(bytes_per_s)) }
}

/// A share in percent; all and nothing are said only of all and nothing.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let whole = whole.max(1);
    let shown = match u128::from(part.min(whole)) * 100 / u128::from(whole) {
        0 if part > 0 => 1,
        shown => shown,
    };
    format!("{shown} %")
}

/// How long it takes until all of it is there, at this rate; nothing if nobody can say.
pub(super) fn left(missing: u64, bytes_per_s: u64) -> Option<Duration> {
    let seconds = missing.checked_div(bytes_per_s)?;
    Some(Duration::from_secs(seconds)).filter(|left| *left <= LEFT_MAX)
}

/// A time, in whole seconds where it is short.
pub(super) fn show_time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => show_duration(Duration::from_secs(seconds)),
    }
}

/// A time that is left; what ends in this second takes it.
pub(super) fn show_left(left: Option<Duration>) -> String {
    left.map_or_else(|| UNKNOWN.to_owned(), |left| show_time(left.max(Duration::from_secs(1))))
}

/// A bar of so many characters, brackets included, filled to a share between 0 and 1.
pub(super) fn bar(share: f64, width: usize) -> String {
    let inner = width.saturating_sub(2);
    let filled = ((share.clamp(0.0, 1.0) * inner as f64) as usize).min(inner);
    let head = usize::from(filled < inner && share > 0.0);
    format!("[{}{}{}]", "=".repeat(filled), ">".repeat(head), " ".repeat(inner - filled - head))
}

/// A bar with a line where one copy of everything is: what crossed up to it, and beyond it what is more than one copy.
pub(super) fn line_bar(crossed: u64, copy: u64, width: usize) -> String {
    let inner = width.saturating_sub(2);
    // The line stands a little before the end, or where what crossed leaves it.
    let whole = (copy as f64 * 1.12).max(crossed as f64 * 1.02).max(1.0);
    let place = |bytes: u64| ((bytes as f64 / whole * inner as f64) as usize).min(inner);
    let (line, end) = (place(copy).min(inner.saturating_sub(1)), place(crossed));
    let mark = |at: usize| match at {
        at if at == line => '|',
        at if at < line.min(end) => '=',
        at if at < end => '#',
        _ => ' ',
    };
    format!("[{}]", (0..inner).map(mark).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_shown_and_not_obeyed() {
        let evil = "a\x1b]0;owned\x07b\u{9b}31mc\r\nd\u{202e}e\u{200b}f\u{e0041}";
        assert_eq!(plain(evil), "a\u{fffd}]0;owned\u{fffd}b\u{fffd}31mc\u{fffd}\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}");
        assert_eq!(plain("registry.example/ein-bild:größe…"), "registry.example/ein-bild:größe…");
        assert_eq!(plain(&"x".repeat(10_000)).len(), PLAIN_CHARS_MAX);
        assert_eq!(short_id("12D3\x1b[2J"), "…D3\u{fffd}[2J");
        assert_eq!(short_id("abc"), "…abc");
        assert_eq!(layer_name(Some("docker.io/library/app:\x1b1"), "sha256:0123456789"), "app:\u{fffd}1 01234567");
        assert_eq!(layer_name(None, "odd"), "layer odd");
    }

    #[test]
    fn sources_are_peers_by_name_registries_and_patches() {
        let names = HashMap::from([("12D3KooWaaaaaa", "10.0.0.2".to_owned())]);
        let told = |all: &[&str]| sources(&all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>(), &names);
        assert_eq!(told(&["peer 12D3KooWaaaaaa", "origin ghcr.io"]), "10.0.0.2, registry ghcr.io");
        assert_eq!(told(&["peer 12D3KooWbbbbbb"]), "…bbbbbb");
        assert_eq!(told(&["a patch and a layer held here, 3 %"]), "a patch and a layer held here, 3 %");
        assert_eq!(told(&["peer a1", "peer a2", "peer a3", "peer a4", "peer a5"]), "…a1, …a2, …a3 and 2 more");
    }

    #[test]
    fn figures_are_short_and_never_wrong_at_their_ends() {
        assert_eq!((percent(0, 0), percent(1, 1000), percent(999, 1000)), ("0 %".into(), "1 %".into(), "99 %".into()));
        assert_eq!((percent(7, 7), percent(u64::MAX, 1)), ("100 %".to_owned(), "100 %".to_owned()));
        assert_eq!((rate(0), rate(1536)), ("-".to_owned(), "1.50 KiB/s".to_owned()));
        assert_eq!((left(100, 0), left(u64::MAX, 1)), (None, None));
        assert_eq!(show_left(left(100, 10)), "10 s");
        assert_eq!((show_left(left(5, 10)), show_left(left(1850, 10))), ("1 s".to_owned(), "3 min 05 s".to_owned()));
    }

    #[test]
    fn bars_keep_their_width_and_a_line_stands_where_one_copy_is() {
        assert_eq!(bar(0.0, 12), "[          ]");
        assert_eq!(bar(0.5, 12), "[=====>    ]");
        assert_eq!(bar(1.0, 12), "[==========]");
        for width in 0..40 {
            for share in [f64::NAN, -1.0, 0.0, 0.001, 0.999, 2.0] {
                assert_eq!(bar(share, width).len(), width.max(2), "{share} {width}");
            }
            for (crossed, copy) in [(0, 0), (0, 9), (5, 9), (9, 9), (90, 9), (u64::MAX, 1), (1, u64::MAX)] {
                assert_eq!(line_bar(crossed, copy, width).len(), width.max(2), "{crossed} {copy} {width}");
            }
        }
        assert_eq!(line_bar(50, 100, 27), "[===========           |  ]");
        assert_eq!(line_bar(200, 100, 27), "[============|########### ]");
    }
}
