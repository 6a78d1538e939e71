//! How fast the guest writes each chunk, and which pages had better wait for a later round. It sees
//! harvests, no pages.

use core::time::Duration;

use limosa_pages::{CHUNK_PAGES, ChunkIndex, ChunkPages, MemoryMap, PageCount, PageSet};

/// A chunk's rate is kept in steps of so many pages a second: slower ones are cold anyway, and no
/// vCPU dirties pages faster than the last step (262 140) by far.
const PAGES_PER_STEP: f64 = 4.0;

/// A chunk is worth holding back when this share of its pages is expected to be written again.
const WRITTEN_AGAIN_MIN: f64 = 0.25;

/// And when it is that much hotter than the chunks of the round are on average: where all are
/// alike, waiting takes time and saves nothing.
const HOTTER_THAN_MEAN: f64 = 2.0;

/// Most chunks that are held back at once: 2.25 MiB of them.
const HELD_CHUNKS_MAX: usize = 32 << 10;

/// What each harvest has taught about each chunk: two bytes for 2 MiB of the guest's memory.
#[derive(Debug)]
pub struct Heat {
    steps: Vec<u16>,
}

/// Pages that wait for a later round. What they hold when they are sent is what counts: nothing was
/// read, and nothing rearmed.
#[derive(Debug, Default)]
pub struct Held {
    /// In the order of memory.
    chunks: Vec<(ChunkIndex, ChunkPages)>,
    page_count: u64,
    pages_per_second: f64,
}

impl Heat {
    /// Nothing is known yet of the guest that has `map`.
    pub fn new(map: &MemoryMap) -> Self {
        let chunk_count = map.end().get().div_ceil(CHUNK_PAGES) as usize;
        Self {
            steps: vec![0; chunk_count],
        }
    }

    /// Pages a second that the guest dirties in `chunk`, about.
    pub fn of(&self, chunk: ChunkIndex) -> f64 {
        let steps = self.steps.get(chunk.get() as usize);
        f64::from(steps.copied().unwrap_or(0)) * PAGES_PER_STEP
    }

    /// Learns from a harvest that found `fresh` after `interval`. Of chunks in `held` it says
    /// nothing: they were never rearmed, and cool slowly.
    pub fn learn(&mut self, fresh: &PageSet, held: &Held, interval: Duration) {
        let seconds = interval.as_secs_f64().max(1e-6);
        for (chunk, _) in &held.chunks {
            // It cools slowly, to be sent and seen again some day; below it is halved with all
            // others.
            if let Some(steps) = self.steps.get_mut(chunk.get() as usize) {
                *steps = steps.saturating_add(*steps / 4 * 3);
            }
        }
        self.steps.iter_mut().for_each(|steps| *steps /= 2);
        for (chunk, pages) in fresh.chunks() {
            if held.has(chunk) {
                continue;
            }
            let Some(steps) = self.steps.get_mut(chunk.get() as usize) else {
                continue;
            };
            let found = f64::from(pages.count()) / seconds / PAGES_PER_STEP;
            // What was never seen before is taken as it is.
            let share = if *steps == 0 { 1.0 } else { 0.5 };
            *steps = steps.saturating_add((found * share) as u16);
        }
    }

    /// Takes those of `pages` out that are hot: likely to be written within `horizon`, and much
    /// more so than others; the hottest first, and `pages_max` at the most.
    pub fn hold_back(&self, pages: &mut PageSet, pages_max: PageCount, horizon: Duration) -> Held {
        let mut held = Held::default();
        if pages_max == PageCount::ZERO {
            return held;
        }
        let seconds = horizon.as_secs_f64();
        let (sum, count) = pages.chunks().fold((0.0, 0.0), |(sum, count), (chunk, _)| {
            (sum + self.of(chunk), count + 1.0)
        });
        let rate_min = HOTTER_THAN_MEAN * sum / f64::max(count, 1.0);
        let hot = pages.chunks().filter_map(|(chunk, pages)| {
            let rate = self.of(chunk);
            let again = rate * seconds;
            let is_hot = rate > 0.0 && rate >= rate_min;
            (is_hot && again >= WRITTEN_AGAIN_MIN * f64::from(pages.count()))
                .then_some((rate, chunk))
        });
        let mut hot: Vec<_> = hot.collect();
        hot.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
        hot.truncate(HELD_CHUNKS_MAX);
        for (rate, chunk) in hot {
            let count = u64::from(pages.chunk(chunk).count());
            if held.page_count + count > pages_max.get() {
                break;
            }
            held.page_count += count;
            held.pages_per_second += rate;
            held.chunks.push((chunk, pages.take_chunk(chunk)));
        }
        held.chunks.sort_unstable_by_key(|(chunk, _)| *chunk);
        held
    }

    /// Brings `chunks` into the order in which they are best sent: what is written soon again comes
    /// last.
    pub fn coldest_first(&self, chunks: &mut [ChunkIndex]) {
        chunks.sort_by_key(|chunk| self.steps.get(chunk.get() as usize).copied());
    }

    /// Bytes of memory that this takes.
    pub fn overhead_bytes(&self) -> usize {
        self.steps.capacity() * size_of::<u16>()
    }
}

impl Held {
    /// How many pages wait.
    pub const fn page_count(&self) -> PageCount {
        PageCount::new(self.page_count)
    }

    /// Pages a second that the guest dirties among them, as far as was seen before they were held
    /// back.
    pub const fn pages_per_second(&self) -> u64 {
        self.pages_per_second as u64
    }

    /// Puts all pages back into `pages`, to be sent or held back again.
    pub fn give_back(&mut self, pages: &mut PageSet) {
        for (chunk, held) in self.chunks.drain(..) {
            pages.insert_chunk(chunk, &held);
        }
        *self = Self::default();
    }

    /// Bytes of memory that this takes.
    pub fn overhead_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<(ChunkIndex, ChunkPages)>()
    }

    fn has(&self, chunk: ChunkIndex) -> bool {
        let found = self.chunks.binary_search_by_key(&chunk, |(own, _)| *own);
        found.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use limosa_pages::{PageIndex, PageRange};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn map(chunk_count: u64) -> MemoryMap {
        let end = PageIndex::new(chunk_count * CHUNK_PAGES);
        MemoryMap::new(vec![PageRange::new(PageIndex::new(0), end).unwrap()]).unwrap()
    }

    /// So many pages at the beginning of each chunk.
    fn dirty(map: &MemoryMap, counts: &[u64]) -> PageSet {
        let mut pages = PageSet::new(map.end());
        for (chunk, count) in counts.iter().enumerate() {
            let start = PageIndex::new(chunk as u64 * CHUNK_PAGES);
            pages.insert_range(PageRange::from_start_count(start, PageCount::new(*count)).unwrap());
        }
        pages
    }

    /// Eight cold chunks, and two that are hot.
    const COUNTS: [u64; 10] = [8, 8, 400, 8, 8, 16, 8, 8, 500, 8];

    #[test]
    fn the_hottest_wait_as_far_as_allowed_and_come_back() {
        let map = map(10);
        let mut heat = Heat::new(&map);
        let all = dirty(&map, &COUNTS);
        heat.learn(&all, &Held::default(), SECOND);
        for (pages_max, held_chunks) in [
            (0, [].as_slice()),
            (499, &[]),
            (500, &[8]),
            (899, &[8]),
            (900, &[2, 8]),
            (9999, &[2, 8]),
        ] {
            let mut left = COUNTS;
            held_chunks.iter().for_each(|chunk| left[*chunk] = 0);
            let mut pages = all.clone();
            let mut held = heat.hold_back(&mut pages, PageCount::new(pages_max), SECOND);
            assert_eq!(pages.words(), dirty(&map, &left).words(), "{pages_max}");
            let held_count = held.page_count().get();
            assert_eq!(held_count + pages.count().get(), all.count().get());
            assert_eq!(held.pages_per_second(), held_count);
            held.give_back(&mut pages);
            assert_eq!(pages.words(), all.words());
            assert_eq!(held.page_count(), PageCount::ZERO);
        }
    }

    #[test]
    fn pages_that_are_not_written_soon_do_not_wait() {
        let map = map(10);
        let mut heat = Heat::new(&map);
        let mut pages = dirty(&map, &COUNTS);
        heat.learn(&pages, &Held::default(), SECOND);
        let soon = Duration::from_millis(200);
        let held = heat.hold_back(&mut pages, PageCount::new(9999), soon);
        assert_eq!(held.page_count(), PageCount::ZERO);
    }

    #[test]
    fn where_all_chunks_are_alike_none_waits() {
        let map = map(4);
        let mut heat = Heat::new(&map);
        let mut pages = dirty(&map, &[400, 380, 420, 390]);
        heat.learn(&pages, &Held::default(), SECOND);
        let held = heat.hold_back(&mut pages, PageCount::new(9999), 10 * SECOND);
        assert_eq!(held.page_count(), PageCount::ZERO);
    }

    /// What is held back was never rearmed, so that every harvest finds it again.
    #[test]
    fn what_is_held_back_cools_slowly_whatever_is_found() {
        let map = map(3);
        let mut heat = Heat::new(&map);
        let found = dirty(&map, &[512, 100, 40]);
        heat.learn(&found, &Held::default(), SECOND);
        let before = heat.of(ChunkIndex::new(0));
        let mut pages = found.clone();
        let held = heat.hold_back(&mut pages, PageCount::new(512), SECOND);
        assert_eq!(held.page_count().get(), 512);
        for _ in 0..5 {
            heat.learn(&dirty(&map, &[512, 0, 0]), &held, Duration::from_millis(1));
        }
        let after = heat.of(ChunkIndex::new(0));
        assert!(
            after < 0.7 * before && after > 0.4 * before,
            "{before}, {after}"
        );
        assert!(heat.of(ChunkIndex::new(1)) < 20.0);
    }

    #[test]
    fn the_coldest_come_first_and_equals_stay_in_order() {
        let map = map(5);
        let mut heat = Heat::new(&map);
        heat.learn(
            &dirty(&map, &[300, 0, 100, 0, 200]),
            &Held::default(),
            SECOND,
        );
        let mut chunks: Vec<_> = (0..5).map(ChunkIndex::new).collect();
        heat.coldest_first(&mut chunks);
        let order: Vec<_> = chunks.iter().map(|chunk| chunk.get()).collect();
        assert_eq!(order, [1, 3, 2, 4, 0]);
    }

    #[test]
    fn rates_beyond_reason_saturate() {
        let map = map(1);
        let mut heat = Heat::new(&map);
        for _ in 0..3 {
            heat.learn(&dirty(&map, &[512]), &Held::default(), Duration::ZERO);
        }
        assert!(heat.of(ChunkIndex::new(0)) > 250_000.0);
    }
}
