//! What a page holds: a pure function of seed, address and fill, block by block. The guest fills
//! and verifies with it; a host may recompute any page. It does not read or write guest memory.

use crate::protocol::{Fill, PAGE_BYTES};

/// Bytes that are made at once: one cache line.
pub const BLOCK_WORDS: usize = 8;
/// Blocks of a page.
pub const BLOCKS: usize = PAGE_BYTES as usize / (BLOCK_WORDS * 8);

/// One cache line.
pub type Block = [u64; BLOCK_WORDS];

/// What one page holds; [`Fill::Mixed`] is resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// Only zeros.
    Zero,
    /// Log-like text.
    Text,
    /// Incompressible.
    Random,
    /// Three of eight words incompressible.
    Semi,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scrambles a number; neighbours get unlike results.
#[must_use]
#[inline]
pub const fn scramble(number: u64) -> u64 {
    let x = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What the page at an address holds.
#[must_use]
#[inline]
pub const fn page_kind(seed: u64, address: u64, fill: Fill) -> PageKind {
    match fill {
        Fill::Random => PageKind::Random,
        Fill::Zero => PageKind::Zero,
        Fill::Text => PageKind::Text,
        Fill::Semi => PageKind::Semi,
        Fill::Mixed => match scramble(seed ^ GOLDEN ^ address) >> 62 {
            0 => PageKind::Zero,
            1 | 2 => PageKind::Text,
            _ => PageKind::Random,
        },
    }
}

/// Makes the blocks of a page in order. Generic over what is done with them, so that filling and
/// verifying both compile to one tight loop per kind.
#[inline]
pub fn for_each_block(
    seed: u64,
    address: u64,
    kind: PageKind,
    mut visit: impl FnMut(usize, Block),
) {
    let key = scramble(seed ^ address.wrapping_mul(GOLDEN));
    match kind {
        PageKind::Zero => {
            for block in 0..BLOCKS {
                visit(block, [0; BLOCK_WORDS]);
            }
        }
        PageKind::Random => {
            let mut lanes = [0; BLOCK_WORDS];
            for (lane, number) in lanes.iter_mut().zip(1u64..) {
                *lane = scramble(key.wrapping_add(number.wrapping_mul(GOLDEN))) | 1;
            }
            for block in 0..BLOCKS {
                // Eight generators side by side: the loop vectorises with plain SSE2.
                for lane in &mut lanes {
                    *lane ^= *lane << 13;
                    *lane ^= *lane >> 7;
                    *lane ^= *lane << 17;
                }
                visit(block, lanes);
            }
        }
        PageKind::Text => {
            let mut state = key | 1;
            for block in 0..BLOCKS {
                state = next(state);
                visit(block, text(state));
            }
        }
        PageKind::Semi => {
            let mut state = key | 1;
            for block in 0..BLOCKS {
                let mut words = SAME_WORDS;
                for word in words.iter_mut().take(SEMI_RANDOM_WORDS) {
                    state = next(state);
                    *word = state;
                }
                visit(block, words);
            }
        }
    }
}

/// The bytes of a page as words; the oracle of tests and of guests without KVM.
#[must_use]
pub fn page(seed: u64, address: u64, fill: Fill) -> [Block; BLOCKS] {
    let mut blocks = [[0; BLOCK_WORDS]; BLOCKS];
    for_each_block(
        seed,
        address,
        page_kind(seed, address, fill),
        |at, block| {
            if let Some(into) = blocks.get_mut(at) {
                *into = block;
            }
        },
    );
    blocks
}

/// Of the words of a block of [`PageKind::Semi`], how many are incompressible.
const SEMI_RANDOM_WORDS: usize = 3;
/// The others.
const SAME_WORDS: Block = {
    let mut words = [u64::from_le_bytes(*b"page of "); BLOCK_WORDS];
    let mut at = 0;
    while at < BLOCK_WORDS {
        words[at] += (at as u64) << 56;
        at += 1;
    }
    words
};

/// Source: Marsaglia, "Xorshift RNGs", 2003.
#[inline]
const fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

/// One line of a log: three phrases, eight digits, an end.
#[inline]
const fn text(random: u64) -> Block {
    let (a, b, c) = (phrase(random), phrase(random >> 5), phrase(random >> 10));
    let mut digits = (random >> 32) & 0xffff_ffff;
    digits = (digits | (digits << 16)) & 0x0000_ffff_0000_ffff;
    digits = (digits | (digits << 8)) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | (digits << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let end = u64::from_le_bytes(*b" us, ok\n");
    [
        a[0],
        a[1],
        b[0],
        b[1],
        c[0],
        c[1],
        digits + 0x4141_4141_4141_4141,
        end,
    ]
}

#[inline]
const fn phrase(random: u64) -> [u64; 2] {
    PHRASES[random as usize % PHRASES.len()]
}

const PHRASES: [[u64; 2]; 32] = {
    let texts: [&[u8; 16]; 32] = [
        b"the godwit rose ",
        b"over the wide se",
        b"from the mudflat",
        b"of the far north",
        b"with a warm wind",
        b"and never landed",
        b"for eleven days ",
        b"and nights until",
        b"the southern bay",
        b"lay open below i",
        b"request accepted",
        b"request finished",
        b"cache miss on   ",
        b"write to disk   ",
        b"read from disk  ",
        b"timer expired on",
        b"worker idle at  ",
        b"worker busy at  ",
        b"queue is empty, ",
        b"queue is full,  ",
        b"retry scheduled ",
        b"retry succeeded ",
        b"session opened, ",
        b"session closed, ",
        b"user logged in, ",
        b"user logged out,",
        b"page was sent to",
        b"page placed at  ",
        b"the round is ove",
        b"guest resumed at",
        b"guest paused at ",
        b"checksum matches",
    ];
    let mut phrases = [[0; 2]; 32];
    let mut at = 0;
    while at < 32 * 16 {
        phrases[at / 16][at / 8 % 2] |= (texts[at / 16][at % 16] as u64) << (at % 8 * 8);
        at += 1;
    }
    phrases
};
