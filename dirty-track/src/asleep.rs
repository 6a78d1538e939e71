//! Memory that has held nothing since recording began, and need not be watched page by page: once
//! something is written there, it is populated. It knows no kernel log.

use limosa_pages::{ChunkIndex, PageIndex, PageRange};

use crate::Presence;

/// Whole chunks without a populated page, in runs.
///
/// A page without content reads as zeros. As long as no page of a chunk has any, none of them was
/// written since the chunk was found so, whoever the writer might be.
pub(crate) struct Asleep {
    presence: Presence,
    /// In the order of memory, none empty.
    runs: Vec<PageRange>,
}

impl Asleep {
    /// Nothing sleeps before [`lay_down`](Self::lay_down).
    pub(crate) fn new(presence: Presence) -> Self {
        Self {
            presence,
            runs: Vec::new(),
        }
    }

    /// Lets every chunk of `pages` sleep that presence tells of: until [`wake`](Self::wake), which
    /// is to come before anything is said of them.
    pub(crate) fn lay_down(&mut self, pages: PageRange) {
        let runs = self
            .presence
            .told()
            .map(|told| whole_chunks(told.intersect(pages)));
        self.runs.extend(runs.filter(|run| !run.is_empty()));
        self.runs.sort_unstable_by_key(|run| run.start());
    }

    /// Nothing sleeps any more.
    pub(crate) fn clear(&mut self) {
        self.runs = Vec::new();
    }

    /// The runs of chunks that sleep, in order.
    pub(crate) fn runs(&self) -> &[PageRange] {
        &self.runs
    }

    /// The parts of `pages` that no sleeping chunk has, in order.
    pub(crate) fn awake(&self, pages: PageRange) -> impl Iterator<Item = PageRange> {
        awake(&self.runs, pages)
    }

    /// Wakes the chunks in which a page is populated now, and hands them to `woken`, in runs.
    pub(crate) fn wake(&mut self, woken: &mut dyn FnMut(PageRange)) {
        let mut still = Vec::new();
        for run in std::mem::take(&mut self.runs) {
            let mut from = run.start();
            self.presence.each_run(run, &mut |populated| {
                let first = populated.start().chunk().pages().start().max(from);
                let beyond = end_of_chunk(populated.end()).min(run.end());
                still.extend(PageRange::new(from, first).filter(|gap| !gap.is_empty()));
                if let Some(awake) = PageRange::new(first, beyond).filter(|run| !run.is_empty()) {
                    woken(awake);
                    from = beyond;
                }
            });
            still.extend(PageRange::new(from, run.end()).filter(|gap| !gap.is_empty()));
        }
        self.runs = still;
    }

    pub(crate) fn overhead_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<PageRange>()
    }
}

/// The parts of `pages` that none of `runs` has, which are in order; in order.
pub(crate) fn awake(runs: &[PageRange], pages: PageRange) -> impl Iterator<Item = PageRange> {
    let first = runs.partition_point(|run| run.end() <= pages.start());
    let asleep = runs.iter().skip(first).map(move |run| run.intersect(pages));
    let asleep = asleep.take_while(|run| !run.is_empty());
    let end = PageRange::new(pages.end(), pages.end()).unwrap_or(PageRange::empty());
    let mut from = pages.start();
    let parts = asleep.chain([end]).map(move |run| {
        let awake = PageRange::new(from, run.start());
        from = run.end();
        awake.unwrap_or(PageRange::empty())
    });
    parts.filter(|awake| !awake.is_empty())
}

fn whole_chunks(pages: PageRange) -> PageRange {
    let first = end_of_chunk(pages.start());
    let beyond = pages.end().chunk().pages().start();
    PageRange::new(first, beyond).unwrap_or(PageRange::empty())
}

/// `page`, or where that is within a chunk, the first page of the next chunk.
pub(crate) fn end_of_chunk(page: PageIndex) -> PageIndex {
    match page.offset_in_chunk() {
        0 => page,
        _ => ChunkIndex::new(page.chunk().get() + 1).pages().start(),
    }
}
