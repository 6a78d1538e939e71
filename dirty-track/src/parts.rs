//! Work on a page set by as many threads as there are logical processors, each in its own stretch
//! of memory. It does not know what the pages are.

use limosa_pages::{PageSet, SetPart};
use rayon::prelude::*;

/// Does `work` in each part of `pages`, and adds up what it returns. A set that is one part needs
/// no other thread.
pub(crate) fn sum_of_parts(
    pages: &mut PageSet,
    work: impl Fn(&mut SetPart<'_>) -> u64 + Sync,
) -> u64 {
    match pages.part_ranges().len() {
        0 | 1 => pages.parts_mut().map(|mut part| work(&mut part)).sum(),
        _ => {
            let mut parts: Vec<SetPart<'_>> = pages.parts_mut().collect();
            parts.par_iter_mut().map(&work).sum()
        }
    }
}
