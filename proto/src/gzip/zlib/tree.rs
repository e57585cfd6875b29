//! Prefix codes as zlib and GNU gzip make them: by a heap, whose ties say which of the best codes comes out.
//!
//! Of two nodes of the same weight that goes first which has the lower tree below it; otherwise the heap's order
//! decides. Where the tree is too deep, leaves are moved up and down until all fit, which is not always the best code.
//!
//! Invariant: every symbol that occurs has a code, and a code has at least two symbols.

use super::super::{huffman::Codes, symbols::LITERALS};

/// The longest code of the format.
const BITS_MAX: usize = super::super::huffman::CODE_BITS_MAX;
/// Nodes of the largest tree.
const NODES: usize = 2 * LITERALS;
/// A node's weight is above so many bits of its key; its height is below. Trees are not that high: weights of blocks
/// have 17 bits, so heights have less than 30.
const HEIGHT_BITS: u32 = 8;

/// The code for these frequencies with at most `bits_max` bits a symbol, and how many symbols its table lists.
pub(in super::super) fn code<const N: usize>(frequencies: &[u32; N], bits_max: usize) -> (Codes<N>, usize) {
    let mut frequencies = *frequencies;
    let listed = at_least_two(&mut frequencies);
    let tree = Tree::of(&frequencies);
    (Codes::with_lengths(&tree.lengths(bits_max)), listed)
}

/// Gives frequencies to symbols that do not occur until two do. Returns how many symbols there are up to the last.
fn at_least_two<const N: usize>(frequencies: &mut [u32; N]) -> usize {
    let mut listed = frequencies.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
    let occurring = frequencies.iter().filter(|n| **n > 0).count();
    for _ in occurring..2 {
        if listed < 3 {
            frequencies[listed] = 1;
            listed += 1;
        } else {
            frequencies[0] = 1;
        }
    }
    listed
}

/// Huffman's tree over `N` symbols. Nodes below `N` are leaves.
struct Tree<const N: usize> {
    parents: [u16; NODES],
    /// Nodes as they left the heap, the root last.
    removed: [u16; NODES],
    count: usize,
}

impl<const N: usize> Tree<N> {
    /// The tree of at least two symbols.
    fn of(frequencies: &[u32; N]) -> Self {
        let mut heap = Heap { keys: [0; NODES], nodes: [0; LITERALS + 1], len: 0 };
        for (symbol, frequency) in frequencies.iter().enumerate().filter(|(_, frequency)| **frequency > 0) {
            heap.len += 1;
            heap.nodes[heap.len] = symbol as u16;
            heap.keys[symbol] = frequency << HEIGHT_BITS;
        }
        for place in (1..=heap.len / 2).rev() {
            heap.sink(place);
        }
        let mut tree = Self { parents: [0; NODES], removed: [0; NODES], count: 0 };
        let mut node = N;
        while heap.len >= 2 {
            let first = heap.nodes[1];
            heap.nodes[1] = heap.nodes[heap.len];
            heap.len -= 1;
            heap.sink(1);
            let second = heap.nodes[1];
            let (a, b) = (heap.keys[usize::from(first)], heap.keys[usize::from(second)]);
            let height = (a & ((1 << HEIGHT_BITS) - 1)).max(b & ((1 << HEIGHT_BITS) - 1)) + 1;
            heap.keys[node] = ((a >> HEIGHT_BITS) + (b >> HEIGHT_BITS)) << HEIGHT_BITS | height;
            for child in [first, second] {
                tree.parents[usize::from(child)] = node as u16;
                tree.remove(child);
            }
            heap.nodes[1] = node as u16;
            heap.sink(1);
            node += 1;
        }
        tree.remove(heap.nodes[1]);
        tree
    }

    const fn remove(&mut self, node: u16) {
        self.removed[self.count] = node;
        self.count += 1;
    }

    /// How many bits each symbol takes.
    fn lengths(&self, bits_max: usize) -> [u8; N] {
        let removed = &self.removed[..self.count];
        let (mut depths, mut of_length, mut excess) = ([0_usize; NODES], [0_usize; BITS_MAX + 1], 0_usize);
        for node in removed.iter().rev().skip(1).map(|node| usize::from(*node)) {
            let mut depth = depths[usize::from(self.parents[node])] + 1;
            if depth > bits_max {
                (depth, excess) = (bits_max, excess + 1);
            }
            depths[node] = depth;
            if node < N {
                of_length[depth] += 1;
            }
        }
        // Ties can leave a lighter leaf above a heavier one.
        if excess == 0 {
            return std::array::from_fn(|symbol| depths[symbol] as u8);
        }
        // Each step puts a leaf that is not too deep, and one that was, one below where the former stood.
        while excess > 0 {
            let Some(bits) = (1..bits_max).rev().find(|bits| of_length[*bits] > 0) else { break };
            of_length[bits] -= 1;
            of_length[bits + 1] += 2;
            of_length[bits_max] -= 1;
            excess = excess.saturating_sub(2);
        }
        // The leaves that left the heap first are the deepest.
        let (mut lengths, mut leaves) =
            ([0; N], removed.iter().map(|node| usize::from(*node)).filter(|node| *node < N));
        for bits in (1..=bits_max).rev() {
            for leaf in leaves.by_ref().take(of_length[bits]) {
                lengths[leaf] = bits as u8;
            }
        }
        lengths
    }
}

/// The node with the lowest key is at place 1.
struct Heap {
    keys: [u32; NODES],
    nodes: [u16; LITERALS + 1],
    len: usize,
}

impl Heap {
    /// Moves the node at `place` down to where it belongs.
    fn sink(&mut self, mut place: usize) {
        let node = self.nodes[place];
        let key = self.keys[usize::from(node)];
        loop {
            let mut child = 2 * place;
            if child > self.len {
                break;
            }
            if child < self.len && self.key(child + 1) <= self.key(child) {
                child += 1;
            }
            if key <= self.key(child) {
                break;
            }
            self.nodes[place] = self.nodes[child];
            place = child;
        }
        self.nodes[place] = node;
    }

    const fn key(&self, place: usize) -> u32 {
        self.keys[self.nodes[place] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths<const N: usize>(frequencies: [u32; N], bits_max: usize) -> (Vec<u8>, usize) {
        let (codes, listed) = code(&frequencies, bits_max);
        ((0..N).map(|symbol| codes.len_of(symbol)).collect(), listed)
    }

    #[test]
    fn lower_trees_go_first() {
        assert_eq!(lengths([1, 1, 2, 2], 15), (vec![2, 2, 2, 2], 4));
        assert_eq!(lengths([5, 1, 0, 1, 2], 15), (vec![1, 3, 0, 3, 2], 5));
    }

    #[test]
    fn a_code_has_two_symbols() {
        assert_eq!(lengths([0, 0, 0, 0], 15), (vec![1, 1, 0, 0], 2));
        assert_eq!(lengths([9, 0, 0, 0], 15), (vec![1, 1, 0, 0], 2));
        assert_eq!(lengths([0, 9, 0, 0], 15), (vec![0, 1, 1, 0], 3));
        assert_eq!(lengths([0, 0, 9, 0], 15), (vec![1, 0, 1, 0], 3));
        assert_eq!(lengths([0, 0, 0, 9], 15), (vec![1, 0, 0, 1], 4));
    }

    #[test]
    fn codes_that_are_too_deep_are_cut_and_stay_complete() {
        let powers: [u32; 16] = std::array::from_fn(|power| 1 << power);
        for bits_max in [5, 7, 15] {
            let (lengths, _) = lengths(powers, bits_max);
            assert_eq!(lengths.iter().map(|len| 1 << (15 - len)).sum::<u32>(), 1 << 15, "{lengths:?}");
            assert_eq!(usize::from(lengths[0]), bits_max);
            assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
        }
    }
}
