//! Ranges and memory maps: their rules one by one, and their answers against those of a naive look
//! at every page.

use limosa_pages::{
    CHUNK_PAGES, ChunkIndex, ChunkPages, GuestAddress, HOLE_SLACK_PAGES, MapError, MemoryMap,
    PAGE_END_MAX, PageCount, PageIndex, PageRange, REGIONS_MAX,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(PageIndex::new(start), PageIndex::new(end)).unwrap()
}

/// Up to eight regions below page 4000, some of them touching.
fn regions() -> impl Strategy<Value = Vec<PageRange>> {
    proptest::collection::vec((0..200u64, 1..300u64), 1..8).prop_map(|gaps| {
        let mut end = 0;
        gaps.iter()
            .map(|(gap, count)| {
                let start = end + gap / 2 * (gap % 2);
                end = start + count;
                range(start, end)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn a_map_answers_as_its_regions_do(
        regions in regions(),
        start in 0..4000u64,
        count in 0..400u64,
    ) {
        let map = MemoryMap::new(regions.clone()).unwrap();
        let asked = range(start, start + count);
        let page = PageIndex::new(start);
        let holder = regions.iter().position(|region| region.contains(page));
        prop_assert_eq!(map.region_of(page), holder);
        if count > 0 {
            let holds = |region: &PageRange| asked.iter().all(|page| region.contains(page));
            let inside = regions.iter().any(holds);
            prop_assert_eq!(map.contains_range(asked), inside);
        }
        prop_assert_eq!(map.page_count(), regions.iter().map(|region| region.count()).sum());
        prop_assert_eq!(Some(map.end()), regions.last().map(|region| region.end()));
        let full = map.full_set();
        prop_assert_eq!(full.count(), map.page_count());
        for page in (0..4000).map(PageIndex::new) {
            prop_assert_eq!(full.contains(page), map.region_of(page).is_some());
        }
        let parts: Vec<_> = map.chunks().collect();
        let pages = parts.iter().flat_map(|(_, part)| part.iter());
        prop_assert!(pages.eq(full.runs().flat_map(PageRange::iter)));
        prop_assert!(parts.iter().all(|(chunk, part)| chunk.pages().contains_range(*part)));
    }

    #[test]
    fn chunks_cut_a_range_into_its_pages(start in 0..5000u64, count in 0..3000u64) {
        let whole = range(start, start + count);
        let parts: Vec<_> = whole.chunks().collect();
        prop_assert!(parts.iter().flat_map(|(_, part)| part.iter()).eq(whole.iter()));
        for (chunk, part) in parts {
            prop_assert!(!part.is_empty());
            prop_assert!(part.iter().all(|page| page.chunk() == chunk));
            let count = ChunkPages::of_range(chunk, whole).count();
            prop_assert_eq!(u64::from(count), part.count().get());
        }
    }

    #[test]
    fn ranges_share_the_pages_that_both_have(ends in proptest::array::uniform4(0..60u64)) {
        let [a, b, c, d] = ends;
        let (left, right) = (range(a.min(b), a.max(b)), range(c.min(d), c.max(d)));
        let shared = left.intersect(right);
        for page in (0..60).map(PageIndex::new) {
            prop_assert_eq!(shared.contains(page), left.contains(page) && right.contains(page));
        }
        prop_assert_eq!(left.contains_range(right), right.iter().all(|page| left.contains(page)));
    }
}

#[test]
fn a_map_refuses_what_breaks_its_rules() {
    let refused = |regions: Vec<PageRange>| MemoryMap::new(regions).unwrap_err();
    assert_eq!(refused(vec![]), MapError::NoRegion);
    assert_eq!(
        refused(vec![range(0, 1), range(5, 5)]),
        MapError::EmptyRegion { region: 1 }
    );
    assert_eq!(
        refused(vec![range(4, 8), range(0, 4)]),
        MapError::OutOfOrder { region: 1 }
    );
    assert_eq!(
        refused(vec![range(0, 8), range(7, 9)]),
        MapError::OutOfOrder { region: 1 }
    );

    let many = |count: u64| {
        (0..count)
            .map(|n| range(2 * n, 2 * n + 1))
            .collect::<Vec<_>>()
    };
    assert!(MemoryMap::new(many(REGIONS_MAX as u64)).is_ok());
    assert_eq!(
        refused(many(REGIONS_MAX as u64 + 1)),
        MapError::TooManyRegions { count: 65 }
    );

    let end = PAGE_END_MAX.get();
    assert!(MemoryMap::new(vec![range(0, end)]).is_ok());
    assert_eq!(
        refused(vec![range(0, end + 1)]),
        MapError::TooFar {
            end: PageIndex::new(end + 1)
        }
    );
    assert_eq!(
        refused(vec![range(0, u64::MAX)]),
        MapError::TooFar {
            end: PageIndex::new(u64::MAX)
        }
    );

    let hole = HOLE_SLACK_PAGES.get() + 10;
    assert!(MemoryMap::new(vec![range(hole, hole + 10)]).is_ok());
    assert_eq!(
        refused(vec![range(hole + 1, hole + 11)]),
        MapError::TooSparse {
            hole_pages: PageCount::new(hole + 1),
            page_count: PageCount::new(10)
        },
    );
}

#[test]
fn a_range_ends_where_numbers_end() {
    let last = PageIndex::new(u64::MAX);
    assert_eq!(PageRange::new(last, PageIndex::ZERO), None);
    assert_eq!(PageRange::from_start_count(last, PageCount::new(1)), None);
    assert!(
        PageRange::from_start_count(last, PageCount::ZERO)
            .unwrap()
            .is_empty()
    );
    let top = ChunkIndex::new(u32::MAX.into());
    assert_eq!(top.pages().end().get(), CHUNK_PAGES << 32);
    assert!([u64::MAX, 1 << 32].map(ChunkIndex::new) == [top; 2] && last.chunk() == top);
    assert!(top.pages().start() > PAGE_END_MAX);
    assert_eq!(range(u64::MAX - 1, u64::MAX).chunks().count(), 0);
    let end = top.pages().end().get();
    let around = range(end - 1, end + 1).chunks().collect::<Vec<_>>();
    assert_eq!(around, [(top, range(end - 1, end))]);
}

#[test]
fn addresses_and_pages_agree() {
    for index in [0, 1, 511, 512, PAGE_END_MAX.get(), (1 << 52) - 1] {
        let page = PageIndex::new(index);
        assert_eq!(page.address().get(), index * 4096);
        assert_eq!(PageIndex::from_address(page.address()), page);
        assert_eq!(
            PageIndex::from_address(GuestAddress::new(index * 4096 + 4095)),
            page
        );
        let last = ChunkIndex::new(u64::MAX);
        let again = page.chunk().page(page.offset_in_chunk());
        assert!(again == page || page.chunk() == last && page > last.pages().start());
    }
    assert_eq!(PageIndex::new(u64::MAX).address().get(), u64::MAX - 4095);
    assert_eq!(PageCount::new(u64::MAX).bytes(), u64::MAX);
    assert_eq!(PageCount::covering_bytes(4097).get(), 2);
    assert_eq!(
        PageCount::new(u64::MAX) + PageCount::new(1),
        PageCount::new(u64::MAX)
    );
}
