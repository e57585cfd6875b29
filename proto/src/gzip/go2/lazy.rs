//! Levels 7 to 9: hash chains over a window of twice 32 KiB, lazy matching, and a second look at a match's end.
//!
//! Invariant: all before `at` is in tokens, but for one literal if that is `pending`.

use super::{
    super::{
        symbols::{LENGTH_EXTRA, MATCH_MAX, Token, WINDOW, common_prefix},
        tally::code_of,
    },
    Variant,
    blocks::Blocks,
    fast::hash4,
};

/// The shortest match that this compressor uses.
const USED_MIN: usize = 4;
/// So much is looked ahead before a position is decided, except at the end.
const LOOKAHEAD: usize = USED_MIN + MATCH_MAX;
/// Bytes of the window's buffer.
const BUFFER: usize = 2 * WINDOW;
/// Tokens of a block.
const BLOCK_TOKENS: usize = 1 << 15;
/// Bits of a hash.
const HASH_BITS: u32 = 17;
/// Stamps are kept below twice this. In tests they come to it.
const STAMP_REBASE: u32 = if cfg!(test) { 1 << 17 } else { 1 << 30 };
/// A better match may begin so much later than the one that is there.
const SKIPPED: usize = 2;
/// Where literals have costs, a match has to gain more than this, in bits,
const GAIN_MIN: i32 = 4;
/// and costs this, in bits, beside what follows its symbols.
const MATCH_COST: i32 = 3;

/// What a level is.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// After a match of this length no better one is looked for.
    enough: usize,
    /// A match of this length is taken without looking for a longer one.
    nice: usize,
    /// Links of a chain that are followed.
    chain: usize,
    /// Matches are compared by what they save, not by length.
    by_gain: bool,
}

impl Level {
    const fn of(level: u8) -> Self {
        match level {
            ..=7 => Self { enough: 12, nice: 16, chain: 24, by_gain: false },
            8 => Self { enough: 30, nice: 40, chain: 64, by_gain: false },
            9.. => Self { enough: 258, nice: 258, chain: 1024, by_gain: true },
        }
    }
}

/// A match that was found. Shorter than [`USED_MIN`]: none.
#[derive(Debug, Clone, Copy)]
struct Found {
    length: usize,
    distance: usize,
}

impl Found {
    const NONE: Self = Self { length: USED_MIN - 1, distance: 0 };
}

/// The compressor of levels 7 to 9.
#[derive(Debug)]
pub(super) struct Lazy {
    level: Level,
    variant: Variant,
    buffer: Box<[u8]>,
    filled: usize,
    at: usize,
    /// What a position in the buffer is more in the tables.
    stamp: u32,
    /// By hash, the newest position; zero is none.
    heads: Box<[u32]>,
    /// By position modulo the window, the position before it with the same hash.
    before: Box<[u32]>,
    tokens: Vec<Token>,
    /// Where the block of `tokens` begins, while that is still in the buffer.
    block_start: Option<usize>,
    previous: Found,
    /// The byte before `at` is in no token yet.
    pending: bool,
    /// Literals since the last match. Begins again after 65535.
    literals: u16,
    /// What a literal costs, in bits.
    costs: [u8; 256],
}

impl Lazy {
    pub(super) fn new(level: u8, variant: Variant) -> Self {
        Self {
            level: Level::of(level),
            variant,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            filled: 0,
            at: 0,
            stamp: 1,
            heads: vec![0; 1 << HASH_BITS].into_boxed_slice(),
            before: vec![0; WINDOW].into_boxed_slice(),
            tokens: Vec::with_capacity(BLOCK_TOKENS),
            block_start: Some(0),
            previous: Found::NONE,
            pending: false,
            literals: 0,
            costs: [0; 256],
        }
    }

    pub(super) fn write(&mut self, mut input: &[u8], blocks: &mut Blocks) {
        while !input.is_empty() {
            // Only when more comes: what is decided at the end of the window depends on it.
            if self.filled == BUFFER {
                self.advance(LOOKAHEAD, blocks, false);
                self.slide();
            }
            let taken = input.len().min(BUFFER - self.filled);
            self.buffer[self.filled..self.filled + taken].copy_from_slice(&input[..taken]);
            self.filled += taken;
            input = &input[taken..];
        }
    }

    /// Decides all that there is.
    pub(super) fn flush(&mut self, blocks: &mut Blocks) {
        self.advance(1, blocks, true);
        if self.pending {
            self.pending = false;
            self.tokens.push(Token::literal(self.buffer[self.at - 1]));
        }
        if !self.tokens.is_empty() {
            self.end_block(blocks, true);
        }
    }

    /// Forgets everything but `dictionary`.
    pub(super) fn restart(&mut self, dictionary: &[u8]) {
        self.heads.fill(0);
        self.before.fill(0);
        (self.stamp, self.at, self.filled) = (1, 0, 0);
        (self.previous, self.pending, self.literals) = (Found::NONE, false, 0);
        // The dictionary counts as part of the first block where that is compared with its being stored.
        self.block_start = Some(0);
        let dictionary = &dictionary[dictionary.len().saturating_sub(WINDOW)..];
        self.buffer[..dictionary.len()].copy_from_slice(dictionary);
        self.filled = dictionary.len();
        for position in 0..dictionary.len() {
            self.insert(position);
        }
        self.at = dictionary.len();
    }

    /// Makes room for another window of input.
    fn slide(&mut self) {
        self.buffer.copy_within(WINDOW.., 0);
        self.filled -= WINDOW;
        self.at -= WINDOW;
        self.block_start = self.block_start.and_then(|start| start.checked_sub(WINDOW));
        self.stamp += WINDOW as u32;
        if self.stamp > STAMP_REBASE {
            let less = self.stamp - 1;
            for stamped in self.heads.iter_mut().chain(&mut self.before) {
                *stamped = stamped.saturating_sub(less);
            }
            self.stamp = 1;
        }
    }

    /// Decides what has at least `lookahead` bytes to look at.
    fn advance(&mut self, lookahead: usize, blocks: &mut Blocks, sync: bool) {
        if self.filled - self.at < lookahead {
            return;
        }
        if self.level.by_gain {
            self.sample();
        }
        while self.filled - self.at >= lookahead {
            let candidate = self.insert(self.at);
            let previous = self.previous;
            let looks = previous.length < self.level.enough && self.filled - self.at > previous.length;
            let found = if looks { self.find(candidate) } else { Found::NONE };
            if previous.length >= USED_MIN && found.length <= previous.length {
                let previous = self.better_at_end(previous, blocks, sync);
                let next = self.at + previous.length - 1;
                for position in self.at + 1..next {
                    self.insert(position);
                }
                self.at = next;
                (self.previous, self.pending, self.literals) = (Found::NONE, false, 0);
                self.push(Token::copy(previous.length, previous.distance), blocks, sync);
                continue;
            }
            if found.length >= USED_MIN {
                self.literals = 0;
            }
            self.previous = found;
            if self.pending {
                self.literals = self.literals.wrapping_add(1);
                self.push(Token::literal(self.buffer[self.at - 1]), blocks, sync);
                self.at += 1;
                self.skip(blocks, sync);
            } else {
                self.at += 1;
                self.pending = true;
            }
        }
    }

    /// What literals cost, by how often they occur in what comes.
    fn sample(&mut self) {
        let rest = &self.buffer[self.at..self.filled];
        let sample = if self.variant.whole_sample { rest } else { &rest[..rest.len().min(BLOCK_TOKENS)] };
        let mut counts = [0_u16; 256];
        for byte in sample {
            let count = &mut counts[usize::from(*byte)];
            *count = count.wrapping_add(1);
        }
        let codes = code_of(&counts.map(u32::from), self.variant.by_tree);
        self.costs = std::array::from_fn(|byte| codes.len_of(byte).max(self.variant.literal_bit_min));
    }

    /// The match before, or a better one to which its end's hash leads. What lies between becomes literals.
    fn better_at_end(&mut self, found: Found, blocks: &mut Blocks, sync: bool) -> Found {
        let begin = self.at - 1;
        if found.length >= MATCH_MAX - SKIPPED || begin + found.length + USED_MIN > self.filled {
            return found;
        }
        let oldest = self.at.saturating_sub(WINDOW);
        let head = self.heads[self.hash(begin + found.length)];
        let Some(from) = head.checked_sub(self.stamp).and_then(|head| (head as usize).checked_sub(found.length)) else {
            return found;
        };
        if begin - from == found.distance || from <= oldest + SKIPPED {
            return found;
        }
        let end = begin + (self.filled - self.at).min(MATCH_MAX + SKIPPED);
        let mut length = common_prefix(&self.buffer[begin + SKIPPED..end], &self.buffer[from + SKIPPED..]);
        if length <= found.length {
            return found;
        }
        let distance = begin - from;
        // Back over what was skipped, as far as it is the same.
        for skipped in (0..SKIPPED).rev() {
            if length < MATCH_MAX && self.buffer[begin + skipped] == self.buffer[from + skipped] {
                length += 1;
                continue;
            }
            for position in begin..=begin + skipped {
                self.push(Token::literal(self.buffer[position]), blocks, sync);
                self.at += 1;
                self.insert(self.at);
            }
            break;
        }
        Found { length, distance }
    }

    /// Where matches have not been found for long, some positions are not looked at.
    fn skip(&mut self, blocks: &mut Blocks, sync: bool) {
        let beyond = usize::from(self.literals).saturating_sub(self.level.chain);
        if beyond == 0 {
            return;
        }
        for _ in 0..1 + (beyond >> 6) {
            if self.at + 1 >= self.filled {
                break;
            }
            self.push(Token::literal(self.buffer[self.at - 1]), blocks, sync);
            self.insert(self.at);
            self.at += 1;
        }
        self.pending = false;
        let last = self.at;
        self.push(Token::literal(self.buffer[last - 1]), blocks, sync);
    }

    #[inline]
    fn hash(&self, position: usize) -> usize {
        let bytes = self.buffer[position..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        hash4(u64::from(bytes), HASH_BITS)
    }

    /// Enters a position into the chains, unless too few bytes follow. Returns the one before with the same hash.
    #[inline]
    fn insert(&mut self, position: usize) -> Option<usize> {
        if position + USED_MIN > self.filled {
            return None;
        }
        let hash = self.hash(position);
        let newest = std::mem::replace(&mut self.heads[hash], position as u32 + self.stamp);
        self.before[position % WINDOW] = newest;
        newest.checked_sub(self.stamp).map(|candidate| candidate as usize)
    }

    /// The best match at `at`, of those that the chain from `candidate` on leads to.
    fn find(&self, candidate: Option<usize>) -> Found {
        let mut found = Found::NONE;
        let length_max = MATCH_MAX.min(self.filled - self.at);
        let oldest = self.at.saturating_sub(WINDOW);
        let Some(mut candidate) = candidate.filter(|candidate| *candidate >= oldest) else { return found };
        if length_max < USED_MIN {
            return found;
        }
        let nice = self.level.nice.min(length_max);
        let here = &self.buffer[self.at..self.at + length_max];
        let mut best_gain = GAIN_MIN;
        for _ in 0..self.level.chain {
            if self.buffer[candidate + found.length] == here[found.length] {
                let length = common_prefix(here, &self.buffer[candidate..]);
                let distance = self.at - candidate;
                if length > found.length && self.gains(&here[..length], distance, &mut best_gain) {
                    found = Found { length, distance };
                    if length >= nice {
                        break;
                    }
                }
            }
            if candidate <= oldest {
                // Its place in `before` may be that of `at` now.
                break;
            }
            match self.before[candidate % WINDOW].checked_sub(self.stamp) {
                Some(next) if next as usize >= oldest => candidate = next as usize,
                _ => break,
            }
        }
        found
    }

    /// Whether a longer match also saves more, where that is asked for.
    #[inline]
    fn gains(&self, matched: &[u8], distance: usize, best: &mut i32) -> bool {
        if !self.level.by_gain {
            return true;
        }
        let literals: i32 = matched.iter().map(|byte| i32::from(self.costs[usize::from(*byte)])).sum();
        let token = Token::copy(matched.len(), distance);
        let gain = literals - distance_bits(distance) - MATCH_COST - i32::from(LENGTH_EXTRA[token.length().symbol]);
        let gains = gain > *best;
        if gains {
            *best = gain;
        }
        gains
    }

    /// Takes a token, after which all before `at` is in tokens.
    #[inline]
    fn push(&mut self, token: Token, blocks: &mut Blocks, sync: bool) {
        self.tokens.push(token);
        if self.tokens.len() == BLOCK_TOKENS {
            self.end_block(blocks, sync);
        }
    }

    fn end_block(&mut self, blocks: &mut Blocks, sync: bool) {
        let input = self.block_start.filter(|start| *start <= self.at).map(|start| &self.buffer[start..self.at]);
        blocks.matches(&self.tokens, input, sync);
        self.tokens.clear();
        self.block_start = Some(self.at);
    }
}

/// Bits that are reckoned to follow the symbol of a distance. It is taken as if it were counted from zero, and so is one
/// off where symbols change, and far off for the longest.
fn distance_bits(distance: usize) -> i32 {
    match distance {
        ..4 => 0,
        WINDOW => 6,
        _ => distance.ilog2() as i32 - 1,
    }
}
