//! Hash chains over a window of twice 32 KiB, with lazy matching from level 4 on.
//!
//! Invariant: all before `at` is in tokens, but for one literal if that is `pending`. What the buffer holds beyond
//! `filled` is what these tools have there, too: GNU gzip looks at it.
//!
//! When the window slides is part of what comes out: the first byte of the buffer is never matched. Here the window
//! slides when it is full, as it does in the tools with any reads or writes that end at multiples of 512 bytes.

use super::{
    super::{
        bits::BitSink,
        symbols::{MATCH_MAX, MATCH_MIN, Token, WINDOW, common_prefix, distance_extra},
    },
    Tool, block,
};

/// The shortest match.
const SHORTEST: usize = MATCH_MIN as usize;
/// So much is looked ahead before a position is decided, except at the end.
const LOOKAHEAD: usize = MATCH_MAX + SHORTEST + 1;
/// Bytes of the window's buffer.
const BUFFER: usize = 2 * WINDOW;
/// How far a match reaches back.
const REACH: usize = WINDOW - LOOKAHEAD;
/// From here on the window slides when little is left to look at.
const SLIDES_AT: usize = WINDOW + REACH;
/// Bits of a hash.
const HASH_BITS: u32 = 15;
/// Each byte of a hash moves the others up so many bits.
const HASH_SHIFT: u32 = HASH_BITS.div_ceil(MATCH_MIN);
/// Lazy levels use a match of the shortest length from no further away.
const SHORTEST_REACH: usize = 4096;
/// After so many tokens, each time, GNU gzip looks whether to end the block.
const GNU_LOOKS_EVERY: usize = 4096;
/// The first level on which it does.
const GNU_LOOKS_FROM: u8 = 3;

/// What a level is.
#[derive(Debug, Clone, Copy)]
struct Level {
    number: u8,
    /// With a match of this length, a quarter of the links is followed for the next position.
    good: usize,
    /// After a match of this length the next position is not looked at (lazy levels), or longer matches do not enter
    /// the chains but for their first byte (the others).
    enough: usize,
    /// A match of this length ends the search.
    nice: usize,
    /// Links of a chain that are followed.
    chain: usize,
    /// Whether a match has to wait for the next position's.
    lazy: bool,
}

impl Level {
    const fn of(number: u8) -> Self {
        let (good, enough, nice, chain) = match number {
            ..=1 => (4, 4, 8, 4),
            2 => (4, 5, 16, 8),
            3 => (4, 6, 32, 32),
            4 => (4, 4, 16, 16),
            5 => (8, 16, 32, 32),
            6 => (8, 16, 128, 128),
            7 => (8, 32, 128, 256),
            8 => (32, 128, 258, 1024),
            9.. => (32, 258, 258, 4096),
        };
        Self { number, good, enough, nice, chain, lazy: number >= 4 }
    }
}

/// A match that was found. Shorter than [`SHORTEST`]: none.
#[derive(Debug, Clone, Copy)]
struct Found {
    length: usize,
    distance: usize,
}

impl Found {
    const NONE: Self = Self { length: SHORTEST - 1, distance: 0 };
}

/// The compressor.
#[derive(Debug)]
pub(super) struct Chains {
    tool: Tool,
    level: Level,
    sink: BitSink,
    buffer: Box<[u8]>,
    filled: usize,
    /// What is decided next.
    at: usize,
    /// By hash, the newest position; zero is none.
    heads: Box<[u16]>,
    /// By position modulo the window, the position before it with the same hash.
    before: Box<[u16]>,
    /// The window begins with bytes of a part before this one, which are not in the chains yet.
    primed: bool,
    tokens: Vec<Token>,
    /// Where the block of `tokens` begins; negative when that has left the buffer.
    block_start: isize,
    /// What was found one position ago, for the lazy levels.
    previous: Found,
    /// The byte before `at` is in no token yet.
    pending: bool,
}

impl Chains {
    pub(super) fn new(level: u8, tool: Tool) -> Self {
        Self {
            tool,
            level: Level::of(level),
            sink: BitSink::default(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            filled: 0,
            at: 0,
            heads: vec![0; 1 << HASH_BITS].into_boxed_slice(),
            before: vec![0; WINDOW].into_boxed_slice(),
            primed: false,
            tokens: Vec::with_capacity(tool.block_tokens()),
            block_start: 0,
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
                self.advance();
            }
        }
        self.sink.drain_into(out);
    }

    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        self.decide_all();
        self.end_block(true);
        self.sink.drain_into(out);
    }

    /// Ends a part of the stream at a byte's border. What follows begins as if it were new, but may refer to the last
    /// window of this part, which has to be at least that long.
    pub(super) fn part(&mut self, out: &mut Vec<u8>) {
        self.decide_all();
        if !self.tokens.is_empty() {
            self.end_block(false);
        }
        self.sink.pad_with_blocks();
        self.sink.drain_into(out);
        self.buffer.copy_within(self.filled - WINDOW..self.filled, 0);
        self.heads.fill(0);
        (self.filled, self.at, self.block_start) = (WINDOW, WINDOW, WINDOW as isize);
        (self.previous, self.primed) = (Found::NONE, true);
    }

    /// Enters what the window began with into the chains, as soon as what follows it is there.
    fn enter_primed(&mut self) {
        if std::mem::take(&mut self.primed) {
            for position in 0..WINDOW {
                self.insert(position);
            }
        }
    }

    /// Decides what has enough bytes to look at.
    fn advance(&mut self) {
        self.enter_primed();
        while self.filled - self.at >= LOOKAHEAD {
            self.step();
        }
    }

    /// Decides all that is there, as the tools do at an end.
    fn decide_all(&mut self) {
        self.advance();
        if self.tool == Tool::Gnu {
            // It notes the end once, and does not slide after it.
            if self.at >= SLIDES_AT {
                self.slide();
            }
            let end = BUFFER.min(self.filled + SHORTEST - 1);
            self.buffer[self.filled..end].fill(0);
        }
        while self.at < self.filled {
            if self.tool == Tool::Zlib && self.at >= SLIDES_AT {
                self.slide();
            }
            self.step();
        }
        if std::mem::take(&mut self.pending) {
            self.tokens.push(Token::literal(self.buffer[self.at - 1]));
        }
    }

    /// Makes room for another window of input. What stays behind in the upper half is part of the tools' behaviour.
    fn slide(&mut self) {
        self.buffer.copy_within(WINDOW.., 0);
        self.filled -= WINDOW;
        self.at -= WINDOW;
        self.block_start -= WINDOW as isize;
        for positions in [&mut self.heads, &mut self.before] {
            for position in positions.iter_mut() {
                *position = position.saturating_sub(WINDOW as u16);
            }
        }
    }

    #[inline]
    fn step(&mut self) {
        if self.level.lazy {
            self.step_lazy();
        } else {
            self.step_greedy();
        }
    }

    fn step_greedy(&mut self) {
        let candidate = self.insert(self.at);
        let found = self.find(candidate, SHORTEST - 1);
        let (full, next) = if found.length >= SHORTEST {
            let next = self.at + found.length;
            let full = self.push(Token::copy(found.length, found.distance));
            if found.length <= self.level.enough {
                for position in self.at + 1..next {
                    self.insert(position);
                }
            }
            (full, next)
        } else {
            (self.push(Token::literal(self.buffer[self.at])), self.at + 1)
        };
        self.at = next;
        if full {
            self.end_block(false);
        }
    }

    fn step_lazy(&mut self) {
        let candidate = self.insert(self.at);
        let previous = std::mem::replace(&mut self.previous, Found::NONE);
        let mut found = Found::NONE;
        if previous.length < self.level.enough {
            found = self.find(candidate, previous.length);
            if found.length == SHORTEST && found.distance > SHORTEST_REACH {
                found = Found::NONE;
            }
        }
        if previous.length >= SHORTEST && found.length <= previous.length {
            let full = self.push(Token::copy(previous.length, previous.distance));
            let next = self.at + previous.length - 1;
            for position in self.at + 1..next {
                self.insert(position);
            }
            (self.at, self.pending) = (next, false);
            if full {
                self.end_block(false);
            }
            return;
        }
        if self.pending && self.push(Token::literal(self.buffer[self.at - 1])) {
            self.end_block(false);
        }
        (self.previous, self.pending) = (found, true);
        self.at += 1;
    }

    /// Enters a position into the chains, unless too few bytes follow. Returns the one before with the same hash, or
    /// zero.
    #[inline]
    fn insert(&mut self, position: usize) -> usize {
        if position + SHORTEST > self.filled {
            return 0;
        }
        let [a, b, c] = [0, 1, 2].map(|index| u32::from(self.buffer[position + index]));
        let hash = (a << (2 * HASH_SHIFT) ^ b << HASH_SHIFT ^ c) & ((1 << HASH_BITS) - 1);
        let newest = std::mem::replace(&mut self.heads[hash as usize], position as u16);
        self.before[position % WINDOW] = newest;
        newest.into()
    }

    /// The longest match at `at` that is longer than `best`, of those that the chain from `candidate` on leads to.
    fn find(&self, mut candidate: usize, best: usize) -> Found {
        let lookahead = self.filled - self.at;
        // GNU gzip compares with what is behind the end as well, which may make it prefer another match.
        let length_max = if self.tool == Tool::Gnu { MATCH_MAX } else { MATCH_MAX.min(lookahead) };
        if candidate == 0 || self.at - candidate > REACH || best >= length_max {
            return Found::NONE;
        }
        if self.tool == Tool::Gnu && self.at > BUFFER - LOOKAHEAD {
            return Found::NONE;
        }
        let here = &self.buffer[self.at..self.at + length_max];
        let (nice, oldest) = (self.level.nice.min(length_max), self.at.saturating_sub(REACH));
        let mut found = Found { length: best, distance: 0 };
        let chain = if best >= self.level.good { self.level.chain / 4 } else { self.level.chain };
        for _ in 0..chain {
            let last = candidate + found.length;
            if self.buffer[last] == here[found.length] && self.buffer[last - 1] == here[found.length - 1] {
                let length = common_prefix(here, &self.buffer[candidate..]);
                if length > found.length {
                    found = Found { length, distance: self.at - candidate };
                    if length >= nice {
                        break;
                    }
                }
            }
            candidate = self.before[candidate % WINDOW].into();
            if candidate <= oldest {
                break;
            }
        }
        if found.length == best {
            return Found::NONE;
        }
        Found { length: found.length.min(lookahead), ..found }
    }

    /// Takes a token, and tells whether the block is to end behind it.
    #[inline]
    fn push(&mut self, token: Token) -> bool {
        self.tokens.push(token);
        self.tokens.len() == self.tool.block_tokens()
            || self.tool == Tool::Gnu && self.tokens.len().is_multiple_of(GNU_LOOKS_EVERY) && self.gnu_ends_here()
    }

    /// GNU gzip's guess whether another block is worth it: this one is mostly literals, and still becomes half as long.
    fn gnu_ends_here(&self) -> bool {
        if self.level.number < GNU_LOOKS_FROM {
            return false;
        }
        let (mut matches, mut bits) = (0, 8 * self.tokens.len() as u32);
        for token in self.tokens.iter().filter(|token| token.as_literal().is_none()) {
            matches += 1;
            bits += 5 + distance_extra(token.distance().symbol);
        }
        let input = (self.at as isize - self.block_start) as u32;
        matches < self.tokens.len() / 2 && bits / 8 < input / 2
    }

    fn end_block(&mut self, last: bool) {
        let input = usize::try_from(self.block_start).ok().map(|start| &self.buffer[start..self.at]);
        block::put(&self.tokens, input, last, &mut self.sink);
        self.tokens.clear();
        self.block_start = self.at as isize;
    }
}
