//! The codecs of one stream at the source, and the memory they work in. Which one a run gets is
//! decided by `classify/`.

use std::time::Instant;

use limosa_pages::PAGE_BYTES;
use limosa_wire::limits::BLOCK_PAGES_MAX;
use limosa_wire::{PageEncoding, Round};

use crate::classify::{Block, Classifier};
use crate::codec::{Delta, History, Last, Lz4, PageCodec, Zstd, ZstdLevel};
use crate::config::{Codec, PackConfig};

/// Fewest pages of a run for which a sample is cheaper than trying the run itself.
const SAMPLED_RUN_PAGES_MIN: usize = 4;

/// Most streams whose blocks are as long as can be. With more of them blocks are an eighth of that,
/// so that the codecs of all streams take no more memory than they may.
const LONG_BLOCK_STREAMS_MAX: u16 = 16;

/// Encodes runs and single pages.
pub(crate) struct Encoder {
    lz4: Option<Lz4>,
    zstd: Option<Zstd>,
    /// Where blocks are written: as long as the longest that any codec may try.
    scratch: Vec<u8>,
    history: Option<History>,
    /// Whether the pages that are added now were sent before.
    is_again: bool,
    delta: Vec<u8>,
    block_pages: u32,
}

impl Encoder {
    /// What `config` asks for, in the share of memory of one of `stream_count` streams.
    pub(crate) fn new(config: &PackConfig, stream_count: u16) -> Self {
        let codec = config.codec();
        let may = |encoding| config.encodings().contains(encoding);
        let is_auto = codec == Codec::Auto;
        let block_pages = match stream_count {
            ..=LONG_BLOCK_STREAMS_MAX => BLOCK_PAGES_MAX,
            _ => BLOCK_PAGES_MAX / 8,
        };
        let block_bytes = block_pages as usize * PAGE_BYTES;
        let has_lz4 = codec == Codec::Lz4 || is_auto && may(PageEncoding::Lz4);
        let level = match codec {
            Codec::Zstd(level) => Some(level),
            Codec::Auto => Some(ZstdLevel::SLOW).filter(|_| may(PageEncoding::Zstd)),
            Codec::None | Codec::Lz4 | Codec::Delta => None,
        };
        let has_delta = codec == Codec::Delta || is_auto && may(PageEncoding::Delta);
        let scratch_bytes = match has_lz4 {
            true => Lz4::room_bytes(block_bytes),
            false => level.map_or(0, |_| block_bytes),
        };
        let mut encoder = Self {
            lz4: has_lz4.then(Lz4::encoder),
            zstd: level.map(|level| Zstd::encoder(level, block_bytes)),
            scratch: vec![0; scratch_bytes],
            history: None,
            is_again: false,
            delta: vec![0; if has_delta { Delta::BYTES_MAX } else { 0 }],
            block_pages,
        };
        let share_bytes = config.codec_bytes_max() / usize::from(stream_count.max(1));
        let rest_bytes = share_bytes.saturating_sub(encoder.overhead_bytes());
        encoder.history = has_delta.then(|| History::new(rest_bytes));
        encoder
    }

    /// Most pages of one block.
    pub(crate) fn block_pages(&self) -> u32 {
        self.block_pages
    }

    pub(crate) fn overhead_bytes(&self) -> usize {
        self.scratch.capacity()
            + self.delta.capacity()
            + self.lz4.as_ref().map_or(0, |_| Lz4::OVERHEAD_BYTES)
            + self.zstd.as_ref().map_or(0, Zstd::overhead_bytes)
            + self.history.as_ref().map_or(0, History::overhead_bytes)
    }

    /// Pages of the stream's chunk numbered `turn` follow, in `round`.
    pub(crate) fn begin_chunk(&mut self, round: Round, turn: u8) {
        if let Some(history) = &mut self.history {
            history.begin_chunk(turn);
        }
        // What round 0 sends was not sent before, and most of it will not be again.
        self.is_again = self.history.is_some() && round != Round::FIRST;
    }

    /// The page numbered `number` goes in a way of which the history does not know.
    #[inline]
    pub(crate) fn forget(&mut self, number: u32) {
        if self.is_again
            && let Some(history) = &mut self.history
        {
            history.forget(number);
        }
    }

    /// As [`forget`](Self::forget), of `count` pages from `first` on.
    pub(crate) fn forget_run(&mut self, first: u32, count: u32) {
        if self.is_again
            && let Some(history) = self.history.as_mut().filter(|history| !history.is_empty())
        {
            (first..first + count).for_each(|number| history.forget(number));
        }
    }

    /// Whether pages that are added now may go as what changed of them.
    pub(crate) fn may_be_delta(&self, classifier: &Classifier) -> bool {
        self.is_again && classifier.wants_delta()
    }

    /// Says how many bytes the [delta](Self::delta) has with which the page numbered `number` is
    /// sent again; `None` where it is sent in another way, which the history then knows.
    #[inline]
    pub(crate) fn again(
        &mut self,
        number: u32,
        page: &[u8; PAGE_BYTES],
        classifier: &Classifier,
    ) -> Option<usize> {
        if !self.is_again {
            return None;
        }
        let history = self.history.as_mut()?;
        if !classifier.wants_delta() {
            history.forget(number);
            return None;
        }
        match history.last(number) {
            Last::Known(last) => {
                let delta = Delta.encode(page, last, &mut self.delta);
                *last = *page;
                delta
            }
            Last::Unknown => {
                history.keep(number, page);
                None
            }
        }
    }

    /// The delta of `bytes` bytes that was made last.
    pub(crate) fn delta(&self, bytes: usize) -> &[u8] {
        self.delta.get(..bytes).unwrap_or_default()
    }

    /// The block of `raw` and its encoding, where the classifier's rules want one.
    pub(crate) fn encode(
        &mut self,
        raw: &[u8],
        classifier: &mut Classifier,
    ) -> Option<(&[u8], PageEncoding)> {
        let page_count = raw.len() / PAGE_BYTES;
        let samples = classifier.next_run(page_count);
        let is_long = page_count >= SAMPLED_RUN_PAGES_MIN;
        for block in samples.into_iter().flatten() {
            let began = Instant::now();
            let sample = if is_long {
                let middle = page_count / 2 * PAGE_BYTES;
                &raw[middle..middle + PAGE_BYTES]
            } else {
                raw
            };
            let encoded_bytes = self.compress(sample, block);
            classifier.sampled(block, sample.len(), encoded_bytes, began.elapsed());
        }
        let block = classifier.block_of_run()?;
        let began = Instant::now();
        let encoded_bytes = self.compress(raw, block);
        let pays = classifier.encoded(block, raw.len(), encoded_bytes, began.elapsed());
        let encoded = self.scratch.get(..encoded_bytes.filter(|_| pays)?)?;
        Some((encoded, block.encoding()))
    }

    /// `None` where it does not become shorter.
    fn compress(&mut self, raw: &[u8], block: Block) -> Option<usize> {
        match block {
            Block::Lz4 => self.lz4.as_mut()?.encode(raw, &[], &mut self.scratch),
            Block::Zstd(level) => {
                let zstd = self.zstd.as_mut()?;
                zstd.set_level(level);
                zstd.encode(raw, &[], &mut self.scratch)
            }
        }
    }
}
