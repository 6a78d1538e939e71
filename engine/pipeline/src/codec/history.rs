//! What a stream has last sent of the pages that are written again and again, in bounded memory.
//! What is made of it is `delta.rs`.

use limosa_pages::{CHUNK_PAGES, PAGE_BYTES};

/// The last versions of some pages.
///
/// A page has one place where it can be kept, by its chunk's number among those of the stream, so
/// that pages that lie together keep out of each other's way. One that is used there stays: a
/// newcomer takes the place only on its second try without a use between. So a set of pages that is
/// larger than the history, and is walked over and over, does not drive out everything that it
/// brings in.
///
/// What is kept is what the target has: a page that goes in any other way than as a delta of it, or
/// as bytes that are [kept](Self::keep), must be [forgotten](Self::forget).
pub(crate) struct History {
    /// One more than the number of the page at each place; 0 where there is none.
    held: Vec<Place>,
    pages: Vec<u8>,
    /// How many are held: none is looked for where there are none.
    held_count: usize,
    /// Number of the chunk whose pages are spoken of, among those of the stream.
    turn: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Empty,
    /// A page that was used since another one asked for the place.
    Used(u32),
    /// A page that gives way to the next one.
    Idle(u32),
}

impl Place {
    fn page(self) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::Used(page) | Self::Idle(page) => Some(page),
        }
    }
}

/// What the history has of a page.
pub(crate) enum Last<'a> {
    /// The version that the target has, to be overwritten by the one that is sent.
    Known(&'a mut [u8; PAGE_BYTES]),
    /// Nothing.
    Unknown,
}

impl History {
    /// Keeps as many pages as fit in `bytes`. The memory is taken when pages come.
    pub(crate) fn new(bytes: usize) -> Self {
        let count = bytes / (PAGE_BYTES + size_of::<Place>());
        Self {
            held: vec![Place::Empty; count],
            pages: vec![0; count * PAGE_BYTES],
            held_count: 0,
            turn: 0,
        }
    }

    /// How many bytes of memory it takes.
    pub(crate) fn overhead_bytes(&self) -> usize {
        self.pages.capacity() + self.held.capacity() * size_of::<Place>()
    }

    /// Whether no page is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.held_count == 0
    }

    /// The pages that are spoken of from here on are of the stream's chunk numbered `turn`.
    pub(crate) fn begin_chunk(&mut self, turn: u8) {
        self.turn = turn;
    }

    fn place_of(&self, page: u32) -> Option<usize> {
        let count = self.held.len();
        let number =
            usize::from(self.turn) * CHUNK_PAGES as usize + page as usize % CHUNK_PAGES as usize;
        (count > 0).then(|| number % count)
    }

    /// The last version of the guest's page `page`.
    pub(crate) fn last(&mut self, page: u32) -> Last<'_> {
        let Some(place) = self.find(page) else {
            return Last::Unknown;
        };
        self.held[place] = Place::Used(page);
        let bytes = self.pages[place * PAGE_BYTES..].first_chunk_mut();
        bytes.map_or(Last::Unknown, Last::Known)
    }

    fn find(&self, page: u32) -> Option<usize> {
        if self.held_count == 0 {
            return None;
        }
        let place = self.place_of(page)?;
        (self.held[place].page() == Some(page)).then_some(place)
    }

    /// Keeps `bytes` as the version of `page` that the target has, where there is a place for it.
    pub(crate) fn keep(&mut self, page: u32, bytes: &[u8; PAGE_BYTES]) {
        let Some(place) = self.place_of(page) else {
            return;
        };
        match self.held[place] {
            Place::Used(other) if other != page => {
                self.held[place] = Place::Idle(other);
                return;
            }
            Place::Empty => self.held_count += 1,
            Place::Used(_) | Place::Idle(_) => {}
        }
        self.held[place] = Place::Used(page);
        self.pages[place * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(bytes);
    }

    /// The target has another version of `page` now.
    pub(crate) fn forget(&mut self, page: u32) {
        if let Some(place) = self.find(page) {
            self.held[place] = Place::Empty;
            self.held_count -= 1;
        }
    }
}
