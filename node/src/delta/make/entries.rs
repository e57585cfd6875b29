//! The entries of a tar, and which of the old ones each new one resembles.

use std::{collections::HashMap, ops::Range};

/// Content of so many bytes is looked at to find what it resembles.
const SEED_LEN: usize = 32;
/// Shares of seeds below which contents do not resemble each other, in percent.
const RESEMBLES: usize = 10;
/// The most places of a seed that are remembered: what is everywhere tells nothing.
const PLACES_MAX: usize = 8;

/// An entry: its headers and its content, with what fills its last block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) at: Range<usize>,
}

/// Cuts a tar into entries that follow one another, from its first byte to its last. What is no tar is one entry.
pub(super) fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    let mut archive = tar::Archive::new(tar);
    let mut begin = 0;
    for entry in archive.entries().into_iter().flatten() {
        let Ok(entry) = entry else { break };
        let end = (entry.raw_file_position() + entry.size().next_multiple_of(512)) as usize;
        if end <= begin || end > tar.len() || is_sparse(&entry) {
            break;
        }
        found.push(Entry { path: entry.path_bytes().into_owned(), at: begin..end });
        begin = end;
    }
    if begin < tar.len() {
        found.push(Entry { path: Vec::new(), at: begin..tar.len() });
    }
    found
}

/// A sparse entry's size is not what it has in the tar.
fn is_sparse<R: std::io::Read>(entry: &tar::Entry<'_, R>) -> bool {
    entry.header().entry_type() == tar::EntryType::GNUSparse
}

/// For each new entry the old one that it is made from, if there is one.
pub(super) fn partners(old: &[u8], olds: &[Entry], new: &[u8], news: &[Entry]) -> Vec<Option<usize>> {
    let by_path: HashMap<_, _> = olds.iter().enumerate().map(|(at, entry)| (&entry.path[..], at)).collect();
    let mut by_likeness = HashMap::new();
    for (at, entry) in olds.iter().enumerate() {
        by_likeness.entry(likeness(&entry.path)).or_insert(at);
    }
    let named: Vec<_> = news.iter().map(|entry| by_path.get(&entry.path[..]).copied()).collect();
    let mut seeds: Option<HashMap<u64, Vec<u32>>> = None;
    named
        .into_iter()
        .zip(news)
        .map(|(named, entry)| {
            if named.is_some() {
                return named;
            }
            let alike = by_likeness.get(&likeness(&entry.path)).copied();
            if entry.at.len() <= 1024 {
                return alike;
            }
            let seeds = seeds.get_or_insert_with(|| all_seeds(old, olds));
            most_alike(&new[entry.at.clone()], seeds).or(alike)
        })
        .collect()
}

/// The path without what changes from version to version: digits.
fn likeness(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for byte in path {
        let byte = if byte.is_ascii_digit() { b'0' } else { *byte };
        if byte != b'0' || out.last() != Some(&b'0') {
            out.push(byte);
        }
    }
    out
}

fn all_seeds(old: &[u8], olds: &[Entry]) -> HashMap<u64, Vec<u32>> {
    let mut seeds: HashMap<u64, Vec<u32>> = HashMap::new();
    for (at, entry) in olds.iter().enumerate() {
        for seed in kept_seeds(&old[entry.at.clone()]) {
            let places = seeds.entry(seed).or_default();
            if places.last() != Some(&(at as u32)) && places.len() < PLACES_MAX {
                places.push(at as u32);
            }
        }
    }
    seeds
}

fn most_alike(content: &[u8], seeds: &HashMap<u64, Vec<u32>>) -> Option<usize> {
    let (mut shares, mut total) = (HashMap::<u32, usize>::new(), 0);
    for seed in kept_seeds(content) {
        total += 1;
        for place in seeds.get(&seed).into_iter().flatten() {
            *shares.entry(*place).or_default() += 1;
        }
    }
    let (place, share) = shares.into_iter().max_by_key(|(place, share)| (*share, std::cmp::Reverse(*place)))?;
    (share * 100 >= total * RESEMBLES).then_some(place as usize)
}

/// Hashes of one in 64 stretches of [`SEED_LEN`] bytes.
fn kept_seeds(content: &[u8]) -> impl Iterator<Item = u64> {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let out = (0..SEED_LEN).fold(1_u64, |power, _| power.wrapping_mul(FACTOR));
    let mut rolling = 0_u64;
    content.iter().enumerate().filter_map(move |(at, byte)| {
        rolling = rolling.wrapping_mul(FACTOR).wrapping_add(u64::from(*byte) + 1);
        if let Some(gone) = at.checked_sub(SEED_LEN) {
            rolling = rolling.wrapping_sub(out.wrapping_mul(u64::from(content[gone]) + 1));
        }
        let mixed = (rolling ^ rolling >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (at + 1 >= SEED_LEN && mixed >> 58 == 0).then_some(mixed)
    })
}
