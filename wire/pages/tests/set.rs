//! Page sets against an ordered set of numbers, under random sequences of operations.

use std::collections::BTreeSet;

use limosa_pages::{ChunkIndex, ChunkPages, PageIndex, PageRange, PageSet};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// What a whole-guest set does, with page numbers that may lie beyond its bound.
#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Remove(u64),
    InsertRange(u64, u64),
    RemoveRange(u64, u64),
    InsertBits(u64, Vec<u64>),
    InsertChunk(u64, [u64; 8]),
    RemoveChunk(u64, [u64; 8]),
    TakeChunk(u64),
    Union(u64, Vec<u64>),
    Subtract(u64, Vec<u64>),
    Intersect(u64, Vec<u64>),
    Parts(u64, [u64; 8]),
}

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        any::<u64>(),
        any::<u32>().prop_map(|n| 1 << (n % 64))
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0..2000u64;
    let span = || (0..2000u64, 0..700u64).prop_map(|(start, count)| (start, start + count));
    let pages = || proptest::collection::vec(0..2000u64, 0..40);
    let words = || proptest::array::uniform8(word());
    prop_oneof![
        page.clone().prop_map(Step::Insert),
        page.clone().prop_map(Step::Remove),
        span().prop_map(|(start, end)| Step::InsertRange(start, end)),
        span().prop_map(|(start, end)| Step::RemoveRange(start, end)),
        (page, proptest::collection::vec(word(), 0..6))
            .prop_map(|(first, bits)| Step::InsertBits(first, bits)),
        (0..5u64, words()).prop_map(|(chunk, words)| Step::InsertChunk(chunk, words)),
        (0..5u64, words()).prop_map(|(chunk, words)| Step::RemoveChunk(chunk, words)),
        (0..5u64).prop_map(Step::TakeChunk),
        (0..2000u64, pages()).prop_map(|(bound, pages)| Step::Union(bound, pages)),
        (0..2000u64, pages()).prop_map(|(bound, pages)| Step::Subtract(bound, pages)),
        (0..2000u64, pages()).prop_map(|(bound, pages)| Step::Intersect(bound, pages)),
        (0..5u64, words()).prop_map(|(chunk, words)| Step::Parts(chunk, words)),
    ]
}

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(PageIndex::new(start), PageIndex::new(end)).unwrap()
}

fn set_of(bound: u64, pages: &[u64]) -> PageSet {
    let mut set = PageSet::new(PageIndex::new(bound));
    pages
        .iter()
        .for_each(|page| set.insert(PageIndex::new(*page)));
    set
}

fn bits_of(first: u64, words: &[u64]) -> impl Iterator<Item = u64> + '_ {
    let set = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
    words
        .iter()
        .enumerate()
        .flat_map(move |(at, word)| set(*word).map(move |bit| first + at as u64 * 64 + bit))
}

fn apply(step: &Step, set: &mut PageSet, oracle: &mut BTreeSet<u64>) {
    match step {
        Step::Insert(page) => {
            set.insert(PageIndex::new(*page));
            oracle.insert(*page);
        }
        Step::Remove(page) => {
            set.remove(PageIndex::new(*page));
            oracle.remove(page);
        }
        Step::InsertRange(start, end) => {
            set.insert_range(range(*start, *end));
            oracle.extend(*start..*end);
        }
        Step::RemoveRange(start, end) => {
            set.remove_range(range(*start, *end));
            oracle.retain(|page| !(*start..*end).contains(page));
        }
        Step::InsertBits(first, bits) => {
            set.insert_bits(PageIndex::new(*first), bits);
            oracle.extend(bits_of(*first, bits));
        }
        Step::InsertChunk(chunk, words) => {
            set.insert_chunk(ChunkIndex::new(*chunk), &ChunkPages::from_words(*words));
            oracle.extend(bits_of(chunk * 512, words));
        }
        Step::RemoveChunk(chunk, words) => {
            set.remove_chunk(ChunkIndex::new(*chunk), &ChunkPages::from_words(*words));
            let removed: BTreeSet<u64> = bits_of(chunk * 512, words).collect();
            oracle.retain(|page| !removed.contains(page));
        }
        Step::TakeChunk(chunk) => {
            let taken = set.take_chunk(ChunkIndex::new(*chunk));
            let own: Vec<u64> = bits_of(chunk * 512, taken.words()).collect();
            let wanted: Vec<u64> = oracle
                .range(chunk * 512..(chunk + 1) * 512)
                .copied()
                .collect();
            assert_eq!(own, wanted);
            oracle.retain(|page| page / 512 != *chunk);
        }
        Step::Union(bound, pages) => {
            let other = set_of(*bound, pages);
            set.union_with(&other);
            oracle.extend(pages.iter().filter(|page| *page < bound));
            let inside: Vec<u64> = pages
                .iter()
                .copied()
                .filter(|page| *page < set.bound().get())
                .collect();
            assert!(set.is_superset(&set_of(*bound, &inside)));
        }
        Step::Subtract(bound, pages) => {
            set.subtract(&set_of(*bound, pages));
            oracle.retain(|page| page >= bound || !pages.contains(page));
        }
        Step::Intersect(bound, pages) => {
            set.intersect(&set_of(*bound, pages));
            oracle.retain(|page| page < bound && pages.contains(page));
        }
        Step::Parts(chunk, words) => {
            let (chunk, pages) = (ChunkIndex::new(*chunk), ChunkPages::from_words(*words));
            for mut part in set.parts_mut() {
                part.insert_chunk(chunk, &pages);
            }
            oracle.extend(bits_of(chunk.get() * 512, words));
        }
    }
    oracle.retain(|page| *page < set.bound().get());
}

fn check(set: &PageSet, oracle: &BTreeSet<u64>) {
    assert_eq!(set.count().get(), oracle.len() as u64);
    assert_eq!(set.is_empty(), oracle.is_empty());
    assert!((0..3000).all(|page| set.contains(PageIndex::new(page)) == oracle.contains(&page)));
    let by_words: Vec<u64> = bits_of(0, set.words()).collect();
    assert!(
        by_words.iter().eq(oracle),
        "the words hold bits beyond the bound"
    );

    let copy = set.clone();
    assert!(copy == *set && copy.words() == set.words() && copy.count() == set.count());

    let runs: Vec<PageRange> = set.runs().collect();
    assert!(
        runs.iter()
            .flat_map(|run| run.iter())
            .map(PageIndex::get)
            .eq(oracle.iter().copied())
    );
    assert!(runs.iter().all(|run| !run.is_empty()));
    assert!(
        runs.windows(2).all(|pair| pair[0].end() < pair[1].start()),
        "two runs touch"
    );

    for (start, end) in [(0, 3000), (1, 700), (511, 513), (640, 1400), (77, 77)] {
        let gaps: Vec<PageRange> = set.gaps(range(start, end)).collect();
        let pages = gaps.iter().flat_map(|gap| gap.iter()).map(PageIndex::get);
        assert!(pages.eq((start..end).filter(|page| !oracle.contains(page))));
        assert!(gaps.windows(2).all(|pair| pair[0].end() < pair[1].start()));
    }

    let chunks: Vec<(ChunkIndex, ChunkPages)> = set.chunks().collect();
    assert!(chunks.iter().all(|(_, pages)| !pages.is_empty()));
    assert!(chunks.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for (start, end) in [(0, 3000), (1, 700), (512, 513), (513, 1024), (1024, 2048)] {
        let within = set
            .chunk_indices_within(range(start, end))
            .map(ChunkIndex::get);
        let begins = |chunk: &u64| (start..end).contains(&(chunk * 512));
        let wanted = chunks.iter().map(|(chunk, _)| chunk.get()).filter(begins);
        assert!(within.eq(wanted), "the summary is exact");
    }
    let by_chunks = chunks.iter().flat_map(|(chunk, pages)| {
        assert_eq!(set.chunk(*chunk), *pages);
        pages.runs().flat_map(move |(first, count)| {
            (first..first + count).map(move |offset| chunk.page(offset).get())
        })
    });
    assert!(by_chunks.eq(oracle.iter().copied()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn a_set_is_the_numbers_put_into_it(
        bound in 0..1700u64,
        steps in proptest::collection::vec(step(), 0..24),
    ) {
        let mut set = PageSet::new(PageIndex::new(bound));
        let mut oracle = BTreeSet::new();
        for step in &steps {
            apply(step, &mut set, &mut oracle);
            check(&set, &oracle);
        }
        prop_assert!(set.is_superset(&set.clone()));
        set.clear();
        prop_assert!(set.is_empty());
    }

    #[test]
    fn the_pages_of_a_chunk_are_the_offsets_put_into_it(
        runs in proptest::collection::vec((0..600u16, 0..600u16, any::<bool>()), 0..12),
        other in proptest::array::uniform8(word()),
    ) {
        let mut pages = ChunkPages::EMPTY;
        let mut oracle = BTreeSet::new();
        for (first, count, adds) in runs {
            if adds {
                pages.insert_run(first, count);
                oracle.extend((first..first + count).filter(|offset| *offset < 512));
            } else {
                pages.remove_run(first, count);
                oracle.retain(|offset| !(first..first + count).contains(offset));
            }
        }
        prop_assert!((0..1024).all(|offset| pages.contains(offset) == oracle.contains(&offset)));
        prop_assert_eq!(pages.count() as usize, oracle.len());
        let offsets = pages.runs().flat_map(|(first, count)| first..first + count);
        prop_assert!(offsets.eq(oracle.iter().copied()));

        let other = ChunkPages::from_words(other);
        let (mut union, mut rest, mut shared) = (pages, pages, pages);
        union.union_with(&other);
        rest.subtract(&other);
        shared.intersect(&other);
        for offset in 0..512 {
            let (a, b) = (pages.contains(offset), other.contains(offset));
            prop_assert_eq!(union.contains(offset), a || b);
            prop_assert_eq!(rest.contains(offset), a && !b);
            prop_assert_eq!(shared.contains(offset), a && b);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        ..ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("seeds"))
    })]

    #[test]
    fn a_large_set_is_its_parts(
        gib in 1..96u64,
        steps in proptest::collection::vec((0..96u64 << 18, 0..200_000u64, 0..5u8), 0..12),
    ) {
        // By ranges: a number for each page would take more memory than the set.
        let bound = PageIndex::new((gib << 18) + 77);
        let (mut set, mut by_parts) = (PageSet::new(bound), PageSet::new(bound));
        let mut oracle: Vec<(u64, u64)> = Vec::new();
        for (start, count, kind) in steps {
            let pages = range(start, start + count);
            let inside = (start.min(bound.get()), (start + count).min(bound.get()));
            // What the range covers is gone from the oracle; an insertion puts it back as a whole.
            let cut = |(from, to): (u64, u64)| {
                let (first, last) = inside;
                [(from, to.min(first.max(from))), (from.max(last.min(to)), to)]
            };
            oracle = oracle.into_iter().flat_map(cut).filter(|(from, to)| from < to).collect();
            if kind < 3 {
                set.insert_range(pages);
                by_parts.parts_mut().for_each(|mut part| part.insert_range(pages));
                oracle.push(inside);
            } else {
                set.remove_range(pages);
                by_parts.parts_mut().for_each(|mut part| part.remove_range(pages));
            }
            let wanted: u64 = oracle.iter().map(|(from, to)| to - from).sum();
            prop_assert_eq!(set.count().get(), wanted);
            prop_assert_eq!(by_parts.count().get(), wanted);
            let by_words: u64 = set.words().iter().map(|word| u64::from(word.count_ones())).sum();
            prop_assert_eq!(by_words, wanted);
            prop_assert!(set == by_parts && set == set.clone());
            let filled = |(from, to): &(u64, u64)| set.gaps(range(*from, *to)).next().is_none();
            prop_assert!(oracle.iter().all(filled));
        }
        let ranges: Vec<PageRange> = set.part_ranges().collect();
        prop_assert_eq!(ranges[0].start(), PageIndex::ZERO);
        prop_assert_eq!(ranges.last().unwrap().end(), bound);
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end() == pair[1].start()));
        prop_assert!(set.parts_mut().map(|part| part.pages()).eq(ranges));
        set.parts_mut().for_each(|mut part| part.clear());
        prop_assert!(set.is_empty() && set.words().iter().all(|word| *word == 0));
        prop_assert!(set.chunks().next().is_none());
    }
}

/// Near the ends of parts of 16 GiB, of blocks and of chunks, and anywhere.
fn far_page() -> impl Strategy<Value = u64> {
    let end = |pages: u64| {
        let near = (0..(1 << 28) / pages, 0..6u64);
        near.prop_map(move |(nth, offset)| (nth * pages + offset).saturating_sub(3))
    };
    prop_oneof![0..1u64 << 28, end(1 << 22), end(1 << 15), end(512)]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        ..ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("seeds"))
    })]

    #[test]
    fn parts_that_many_threads_change_are_the_numbers_put_into_them(
        bound in (1u64 << 28) - 9000..1 << 28,
        threads in 1..=64usize,
        before in proptest::collection::vec(far_page(), 0..200),
        added in proptest::collection::vec(far_page(), 0..600),
        removed in proptest::collection::vec(far_page(), 0..200),
    ) {
        let mut set = set_of(bound, &before);
        let mut oracle: BTreeSet<u64> = before.iter().chain(&added).copied().collect();
        // Some are there for sure.
        let removed = || removed.iter().chain(added.iter().step_by(3));
        removed().for_each(|page| {
            oracle.remove(page);
        });
        oracle.retain(|page| *page < bound);
        let mut hands: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
        for (nth, part) in set.parts_mut().enumerate() {
            hands[nth % threads].push(part);
        }
        std::thread::scope(|scope| {
            for hand in &mut hands {
                scope.spawn(|| {
                    for part in hand {
                        added.iter().for_each(|page| part.insert(PageIndex::new(*page)));
                        removed().for_each(|page| part.remove(PageIndex::new(*page)));
                    }
                });
            }
        });
        prop_assert!(set.part_ranges().len() >= 64);
        prop_assert_eq!(set.count().get(), oracle.len() as u64);
        let runs = set.runs().flat_map(PageRange::iter).map(PageIndex::get);
        prop_assert!(runs.eq(oracle.iter().copied()));
        let chunks: BTreeSet<u64> = oracle.iter().map(|page| page / 512).collect();
        let marked = set.chunk_indices_within(range(0, bound)).map(ChunkIndex::get);
        prop_assert!(marked.eq(chunks), "the summary is exact");
        let by_words: u64 = set.words().iter().map(|word| u64::from(word.count_ones())).sum();
        prop_assert_eq!(by_words, oracle.len() as u64);
    }
}

#[test]
fn offsets_beyond_the_chunk_do_nothing() {
    let mut pages = ChunkPages::FULL;
    pages.remove(512);
    pages.remove_run(u16::MAX, u16::MAX);
    assert_eq!(pages, ChunkPages::FULL);
    let mut pages = ChunkPages::EMPTY;
    pages.insert(512);
    pages.insert_run(u16::MAX, u16::MAX);
    assert!(pages.is_empty() && !pages.contains(u16::MAX));
}

#[test]
fn pages_beyond_the_bound_do_nothing() {
    let bound = PageIndex::new(513);
    let mut set = PageSet::new(bound);
    let far = [PageIndex::new(513), PageIndex::new(u64::MAX)];
    far.iter().for_each(|page| set.insert(*page));
    set.insert_bits(far[1], &[u64::MAX]);
    set.insert_chunk(ChunkIndex::new(u64::MAX), &ChunkPages::FULL);
    assert!(set.is_empty() && far.iter().all(|page| !set.contains(*page)));
    assert_eq!(set.take_chunk(ChunkIndex::new(u64::MAX)), ChunkPages::EMPTY);
    set.insert_chunk(ChunkIndex::new(1), &ChunkPages::FULL);
    assert_eq!(set.runs().collect::<Vec<_>>(), [range(512, 513)]);
}
