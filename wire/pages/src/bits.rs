//! Work on bits that lie in words: setting a run, clearing a run, finding the runs. It does not
//! know what a bit stands for.

use core::iter::FusedIterator;

/// Bits in a word.
pub(crate) const WORD_BITS: usize = u64::BITS as usize;

/// Sets the bits `start..end`; bits that no word holds are left out.
pub(crate) fn set_run(words: &mut [u64], start: usize, end: usize) {
    change_run(words, start, end, |word, mask| *word |= mask);
}

/// Clears the bits `start..end`; bits that no word holds are left out.
pub(crate) fn clear_run(words: &mut [u64], start: usize, end: usize) {
    change_run(words, start, end, |word, mask| *word &= !mask);
}

fn change_run(words: &mut [u64], start: usize, end: usize, change: impl Fn(&mut u64, u64)) {
    let end = end.min(words.len() * WORD_BITS);
    if start >= end {
        return;
    }
    let last = end - 1;
    let head_mask = u64::MAX << (start % WORD_BITS);
    let tail_mask = u64::MAX >> (WORD_BITS - 1 - last % WORD_BITS);
    match &mut words[start / WORD_BITS..=last / WORD_BITS] {
        [] => {}
        [only] => change(only, head_mask & tail_mask),
        [head, whole @ .., tail] => {
            change(head, head_mask);
            for word in whole {
                change(word, u64::MAX);
            }
            change(tail, tail_mask);
        }
    }
}

/// The runs of set bits, each as (first bit, number of bits), in order and as long as they can be.
#[derive(Clone, Debug)]
pub(crate) struct Runs<'a> {
    words: &'a [u64],
    /// A bit for each `block_words` words, clear where they are all zero; none are known to be
    /// where there are no bits.
    summary: &'a [u64],
    block_words: usize,
    /// Which word `rest` was taken from.
    at: usize,
    /// The bits of that word that no run has used up.
    rest: u64,
}

impl<'a> Runs<'a> {
    pub(crate) fn new(words: &'a [u64]) -> Self {
        Self {
            words,
            summary: &[],
            block_words: 1,
            at: 0,
            rest: words.first().copied().unwrap_or(0),
        }
    }

    /// The runs from the bit `start` on, with the blocks passed over that `summary` says are empty.
    pub(crate) fn from(
        start: usize,
        words: &'a [u64],
        summary: &'a [u64],
        block_words: usize,
    ) -> Self {
        let at = start / WORD_BITS;
        let first = words.get(at).copied().unwrap_or(0);
        Self {
            words,
            summary,
            block_words,
            at,
            rest: first & (u64::MAX << (start % WORD_BITS)),
        }
    }

    /// The first word from `at` on that may have a bit; a number past the last where none has.
    fn next_word(&self, at: usize) -> usize {
        if self.summary.is_empty() || !at.is_multiple_of(self.block_words) {
            return at;
        }
        let block = at / self.block_words;
        let mut word = block / WORD_BITS;
        let mut bits = self.summary.get(word).copied().unwrap_or(0);
        bits &= u64::MAX << (block % WORD_BITS);
        while bits == 0 {
            word += 1;
            match self.summary.get(word) {
                Some(next) => bits = *next,
                None => return usize::MAX,
            }
        }
        (word * WORD_BITS + bits.trailing_zeros() as usize) * self.block_words
    }
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        while self.rest == 0 {
            let at = self.next_word(self.at.checked_add(1)?);
            self.rest = *self.words.get(at)?;
            self.at = at;
        }
        let first = self.rest.trailing_zeros() as usize;
        let ones = (self.rest >> first).trailing_ones() as usize;
        let start = self.at * WORD_BITS + first;
        if first + ones < WORD_BITS {
            self.rest &= u64::MAX << (first + ones);
            return Some((start, ones));
        }
        let mut end = start + ones;
        self.rest = 0;
        while let Some(&word) = self.words.get(self.at + 1) {
            self.at += 1;
            let ones = word.trailing_ones();
            end += ones as usize;
            if word != u64::MAX {
                self.rest = word & (u64::MAX << ones);
                break;
            }
        }
        Some((start, end - start))
    }
}

impl FusedIterator for Runs<'_> {}
