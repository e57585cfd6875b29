//! Levels 2 to 9: hash chains over a window of twice 32 KiB, with lazy matching from level 4 on.
//!
//! Invariant: all before `at` is in tokens, but for one literal if that is `pending`.
//!
//! Go slides its window when a write comes while less than [`LOOKAHEAD`] bytes are undecided beyond the middle of the
//! last 32 KiB, so the size of the writes can decide whether one position sees 32768 or only 32506 bytes of history.
//! Here the window slides when it is full, as it does with any writes that end at multiples of 512 bytes.

use super::{
    super::symbols::{MATCH_MAX, Token, WINDOW, common_prefix},
    blocks::Blocks,
};

/// The shortest match that this compressor uses.
const USED_MIN: usize = 4;
/// So much is looked ahead before a position is decided, except at the end.
const LOOKAHEAD: usize = USED_MIN + MATCH_MAX;
/// Bytes of the window's buffer.
const BUFFER: usize = 2 * WINDOW;
/// Tokens of a block.
const BLOCK_TOKENS: usize = 1 << 14;
/// Bits of a hash.
const HASH_BITS: u32 = 17;
/// The multiplier of the hash.
const HASH_FACTOR: u32 = 0x1e35_a7bd;
/// A match of the shortest length is not used from further away.
const SHORT_MATCH_REACH: usize = 4096;
/// Stamps are kept below twice this. In tests they come to it.
const STAMP_REBASE: u32 = if cfg!(test) { 1 << 18 } else { 1 << 30 };

/// What a level is.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// A match of this length is taken without looking for a better one.
    nice: usize,
    /// Links of a chain that are followed.
    chain: usize,
    strategy: Strategy,
}

#[derive(Debug, Clone, Copy)]
enum Strategy {
    /// Each match is taken at once; those longer than this do not enter the hash chains but for their first byte.
    Greedy { insert_max: usize },
    /// A match is taken if the next position has no longer one; after one of this length that is not looked for.
    Lazy { enough: usize },
}

impl Level {
    const fn of(level: u8) -> Self {
        let (nice, chain, strategy) = match level {
            ..=2 => (16, 8, Strategy::Greedy { insert_max: 5 }),
            3 => (32, 32, Strategy::Greedy { insert_max: 6 }),
            4 => (16, 16, Strategy::Lazy { enough: 4 }),
            5 => (32, 32, Strategy::Lazy { enough: 16 }),
            6 => (128, 128, Strategy::Lazy { enough: 16 }),
            7 => (128, 256, Strategy::Lazy { enough: 32 }),
            8 => (258, 1024, Strategy::Lazy { enough: 128 }),
            9.. => (258, 4096, Strategy::Lazy { enough: 258 }),
        };
        Self { nice, chain, strategy }
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

/// The compressor of levels 2 to 9.
#[derive(Debug)]
pub(super) struct Chains {
    level: Level,
    blocks: Blocks,
    buffer: Box<[u8]>,
    filled: usize,
    /// What is decided next.
    at: usize,
    /// What a position in the buffer is more in the tables, so that these need no change when the window slides.
    stamp: u32,
    /// By hash, the newest position; zero is none.
    heads: Box<[u32]>,
    /// By position modulo the window, the position before it with the same hash.
    before: Box<[u32]>,
    tokens: Vec<Token>,
    /// Where the block of `tokens` begins, while that is still in the buffer.
    block_start: Option<usize>,
    /// What was found one position ago, for the lazy levels.
    previous: Found,
    /// The byte before `at` is in no token yet.
    pending: bool,
}

impl Chains {
    pub(super) fn new(level: u8) -> Self {
        Self {
            level: Level::of(level),
            blocks: Blocks::new(),
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
        }
    }

    pub(super) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            if self.filled == BUFFER {
                self.slide();
            }
            let taken = input.len().min(BUFFER - self.filled);
            self.buffer[self.filled..self.filled + taken].copy_from_slice(&input[..taken]);
            self.filled += taken;
            input = &input[taken..];
            if self.filled == BUFFER {
                self.advance(LOOKAHEAD);
            }
        }
        self.blocks.sink.drain_into(out);
    }

    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        self.advance(1);
        if self.pending {
            self.tokens.push(Token::literal(self.buffer[self.at - 1]));
        }
        if !self.tokens.is_empty() {
            self.end_block(self.at);
        }
        self.blocks.end();
        self.blocks.sink.drain_into(out);
    }

    /// Makes room for another window of input. Everything but the last [`LOOKAHEAD`] bytes is decided.
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
    fn advance(&mut self, lookahead: usize) {
        match self.level.strategy {
            Strategy::Greedy { insert_max } => self.advance_greedy(lookahead, insert_max),
            Strategy::Lazy { enough } => self.advance_lazy(lookahead, enough),
        }
    }

    fn advance_greedy(&mut self, lookahead: usize, insert_max: usize) {
        while self.filled - self.at >= lookahead {
            let candidate = self.insert(self.at);
            let found = self.find(candidate);
            if found.length < USED_MIN {
                self.push(Token::literal(self.buffer[self.at]), self.at + 1);
                self.at += 1;
                continue;
            }
            let next = self.at + found.length;
            if found.length <= insert_max {
                for position in self.at + 1..next {
                    self.insert(position);
                }
            }
            self.at = next;
            self.push(Token::copy(found.length, found.distance), next);
        }
    }

    fn advance_lazy(&mut self, lookahead: usize, enough: usize) {
        while self.filled - self.at >= lookahead {
            let candidate = self.insert(self.at);
            let previous = self.previous;
            let looks = previous.length < enough && self.filled - self.at > previous.length;
            let found = if looks { self.find(candidate) } else { Found::NONE };
            if previous.length >= USED_MIN && found.length <= previous.length {
                let next = self.at + previous.length - 1;
                for position in self.at + 1..next {
                    self.insert(position);
                }
                self.at = next;
                (self.previous, self.pending) = (Found::NONE, false);
                self.push(Token::copy(previous.length, previous.distance), next);
            } else {
                if self.pending {
                    self.push(Token::literal(self.buffer[self.at - 1]), self.at);
                }
                (self.previous, self.pending) = (found, true);
                self.at += 1;
            }
        }
    }

    /// Enters a position into the chains, unless too few bytes follow. Returns the one before with the same hash.
    #[inline]
    fn insert(&mut self, position: usize) -> Option<usize> {
        if position + USED_MIN > self.filled {
            return None;
        }
        let bytes = self.buffer[position..].first_chunk::<4>()?;
        let hash = u32::from_be_bytes(*bytes).wrapping_mul(HASH_FACTOR) >> (u32::BITS - HASH_BITS);
        let head = &mut self.heads[hash as usize];
        let newest = *head;
        self.before[position % WINDOW] = newest;
        *head = position as u32 + self.stamp;
        newest.checked_sub(self.stamp).map(|candidate| candidate as usize)
    }

    /// The longest match at `at`, of those that the chain from `candidate` on leads to.
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
        for _ in 0..self.level.chain {
            if self.buffer[candidate + found.length] == here[found.length] {
                let length = common_prefix(here, &self.buffer[candidate..]);
                let distance = self.at - candidate;
                if length > found.length && (length > USED_MIN || distance <= SHORT_MATCH_REACH) {
                    found = Found { length, distance };
                    if length >= nice {
                        break;
                    }
                }
            }
            if candidate + WINDOW == self.at {
                // Its place in `before` is that of `at` now.
                break;
            }
            match self.before[candidate % WINDOW].checked_sub(self.stamp) {
                Some(next) if next as usize >= oldest => candidate = next as usize,
                _ => break,
            }
        }
        found
    }

    /// Takes a token, after which all before `end` is in tokens.
    #[inline]
    fn push(&mut self, token: Token, end: usize) {
        self.tokens.push(token);
        if self.tokens.len() == BLOCK_TOKENS {
            self.end_block(end);
        }
    }

    fn end_block(&mut self, end: usize) {
        let input = self.block_start.map(|start| &self.buffer[start..end]);
        self.blocks.smallest(&self.tokens, input);
        self.tokens.clear();
        self.block_start = Some(end);
    }
}
