//! Memory: the guest at the target is the guest that was paused. It is not told which pages were
//! sent.
//!
//! Checked, when the guest is about to run at the target, and again when an operator lets it run on
//! at the source: every page of the map holds, byte by byte, what the guest's own books said when
//! it was paused, and the state besides memory belongs to the same books. The books are kept by the
//! guest itself, apart from all memory.
//!
//! Checked, when the guest is about to run at the target: a page that was untouched at the source
//! is untouched at the target too, unless its chunk was made ready as a whole, which takes at least
//! [`POPULATE_PAGES_MIN`] touched pages of it at the source. This only where absent pages are said
//! to be absent, or no page is sent that was zero all the time.
//!
//! **Not checked**: pages torn by a write in the middle of their copy, since here a page is copied
//! at one instant; memory that the host's kernel populates by itself; what a discarding guest
//! (a balloon) gives back.

use limosa_pages::{MemoryMap, PAGE_BYTES};
use limosa_pipeline::{GuestMemory, POPULATE_PAGES_MIN};

use super::Findings;
use crate::sim::guest::Books;
use crate::sim::memory::SimMemory;

const NAME: &str = "memory";

/// The checker, for one attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryChecker {
    paused: Option<Books>,
    state_agrees: Option<bool>,
}

impl MemoryChecker {
    /// The guest was paused with these books.
    pub(crate) fn pauses(&mut self, books: &Books) {
        self.paused = Some(books.clone());
    }

    /// State was put in place at the target.
    pub(crate) fn restores(&mut self, state: &[u8]) {
        let books = self.paused.as_ref();
        self.state_agrees = books.map(|books| books.digest() == *state);
    }

    /// The guest is about to run at the target.
    pub(crate) fn resumes_there(
        &self,
        there: &SimMemory,
        here: Option<&SimMemory>,
        into: &mut Findings,
    ) {
        if self.state_agrees != Some(true) {
            into.add(
                NAME,
                "the state at the target is not that of the paused guest".into(),
            );
        }
        self.compare("target", there, into);
        if let Some(here) = here {
            compare_touched(here, there, into);
        }
    }

    /// The guest is about to run on at the source, after it was handed over in vain.
    pub(crate) fn resumes_here(&self, here: &SimMemory, findings: &mut Findings) {
        self.compare("source", here, findings);
    }

    fn compare(&self, side: &str, memory: &SimMemory, findings: &mut Findings) {
        let Some(books) = &self.paused else {
            return findings.add(NAME, "a guest is about to run that was never paused".into());
        };
        let map: &MemoryMap = memory.map();
        let (mut found, mut expected) = ([0; PAGE_BYTES], [0; PAGE_BYTES]);
        let mut wrong = map
            .regions()
            .iter()
            .flat_map(|region| region.iter())
            .filter(|page| {
                memory.read(*page, &mut found);
                books.fill(*page, &mut expected);
                found != expected
            });
        if let Some(first) = wrong.next() {
            let count = 1 + wrong.count();
            let text = format!("{count} pages differ at the {side}, the first is page {first}");
            findings.add(NAME, text);
        }
    }
}

fn compare_touched(here: &SimMemory, there: &SimMemory, findings: &mut Findings) {
    let chunk_count = here.map().end().get().div_ceil(limosa_pages::CHUNK_PAGES);
    for chunk in (0..chunk_count).map(limosa_pages::ChunkIndex::new) {
        let Ok(present) = here.present(chunk) else {
            continue;
        };
        let mut more = there.touched(chunk);
        more.subtract(&present);
        if !more.is_empty() {
            let text = format!(
                "{} pages of chunk {chunk} were touched in vain",
                more.count()
            );
            findings.add(NAME, text);
        }
        let count = present.count();
        if there.is_populated(chunk) && count < POPULATE_PAGES_MIN {
            let text = format!("chunk {chunk} was populated for the sake of {count} pages");
            findings.add(NAME, text);
        }
    }
}
