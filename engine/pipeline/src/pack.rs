//! Pack: lifted pages to records and payload. Unpack: records and payload to pages. The two are
//! mirrors; checksums and headers are `seal.rs`.

use std::time::Instant;

use limosa_pages::PAGE_BYTES;
use limosa_wire::limits::{FRAME_RECORDS_MAX, LZ4_RUN_PAGES_MAX};
use limosa_wire::{EncodingCounts, PageEncoding, PageRecord};
use lz4_flex::block::{
    CompressTable, DecompressError, compress_into_with_table, decompress_into,
    get_maximum_output_size,
};
use vm_memory::VolatileSlice;

use crate::classify::Classifier;
use crate::config::Codec;
use crate::copy::lift;
use crate::frame_buf::FrameBuf;
use crate::kernels::{Content, Kernels};

const LZ4_RUN_BYTES_MAX: usize = LZ4_RUN_PAGES_MAX as usize * PAGE_BYTES;

/// Fewest pages of a run for which a sample is cheaper than trying the run itself.
const SAMPLED_RUN_PAGES_MIN: u32 = 4;

/// Turns the pages of one stream into records, one page at a time, in the order of memory.
pub(crate) struct Packer {
    kernels: Kernels,
    classifier: Classifier,
    encoder: Encoder,
    /// Pages with data that lie at the end of the payload and have no record yet.
    run: Option<Run>,
    /// Records of the frame that are in an earlier region of memory, which none may reach into.
    closed_count: usize,
    run_pages_max: u32,
}

#[derive(Clone, Copy)]
struct Run {
    first: u32,
    count: u32,
    payload_at: usize,
}

/// The frame has no room for the page: seal it, begin another, and try again.
#[derive(Debug)]
pub(crate) struct FrameFull;

impl Packer {
    pub(crate) fn new(codec: Codec) -> Self {
        let classifier = Classifier::new(codec);
        let run_pages_max = if classifier.may_encode() {
            LZ4_RUN_PAGES_MAX
        } else {
            FRAME_RECORDS_MAX.into()
        };
        Self {
            kernels: Kernels::detect(),
            encoder: Encoder::new(&classifier),
            classifier,
            run: None,
            closed_count: 0,
            run_pages_max,
        }
    }

    pub(crate) fn classifier_mut(&mut self) -> &mut Classifier {
        &mut self.classifier
    }

    pub(crate) fn overhead_bytes(&self) -> usize {
        self.encoder.scratch.capacity()
    }

    /// Lifts the page at `offset` of the chunk and adds it to the frame. Pages come in rising
    /// order.
    #[inline]
    pub(crate) fn add_page(
        &mut self,
        offset: u32,
        page: &VolatileSlice<'_>,
        frame: &mut FrameBuf,
    ) -> Result<(), FrameFull> {
        if self
            .run
            .is_some_and(|run| run.first + run.count != offset || run.count == self.run_pages_max)
        {
            self.end_run(frame);
        }
        let payload_at = frame.tail();
        match lift(self.kernels, page, frame).ok_or(FrameFull)? {
            Content::Zero => {
                self.end_run(frame);
                self.add_record(frame, offset, 1, PageEncoding::Zero, 0);
            }
            Content::Data => match &mut self.run {
                Some(run) => run.count += 1,
                none => {
                    *none = Some(Run {
                        first: offset,
                        count: 1,
                        payload_at,
                    });
                }
            },
        }
        Ok(())
    }

    /// What a page of the guest holds, without lifting it.
    #[inline]
    pub(crate) fn test_zero(&self, page: &VolatileSlice<'_>) -> Content {
        self.kernels.test_zero(page)
    }

    /// Adds the page at `offset`, which is zero, to the frame.
    pub(crate) fn add_zero(&mut self, offset: u32, frame: &mut FrameBuf) {
        self.end_run(frame);
        self.add_record(frame, offset, 1, PageEncoding::Zero, 0);
    }

    /// Adds the `count` pages from `offset` on, which stay in the guest's memory, to the frame.
    /// Their place in the payload is the caller's.
    pub(crate) fn add_live(&mut self, offset: u32, count: u16, frame: &mut FrameBuf) {
        self.end_run(frame);
        let bytes = u32::from(count) * PAGE_BYTES as u32;
        self.add_record(frame, offset, count.into(), PageEncoding::Live, bytes);
    }

    /// Whether the next run might be encoded, and so must be lifted.
    pub(crate) fn may_encode_next(&self) -> bool {
        self.classifier.may_encode_next()
    }

    /// What follows is in another region of memory: no record may span both.
    pub(crate) fn end_region(&mut self, frame: &mut FrameBuf) {
        self.end_run(frame);
        self.closed_count = frame.records().len();
    }

    /// The frame is complete. Says how its pages were encoded.
    pub(crate) fn end_frame(&mut self, frame: &mut FrameBuf) -> EncodingCounts {
        self.end_run(frame);
        self.closed_count = 0;
        let mut counts = EncodingCounts::default();
        for record in frame.records() {
            counts.count(record.encoding, record.count.into());
        }
        counts
    }

    fn end_run(&mut self, frame: &mut FrameBuf) {
        let Some(run) = self.run.take() else {
            return;
        };
        let raw = frame.payload_from(run.payload_at);
        let raw_bytes = raw.len();
        if let Some(block) = self.encoder.encode(raw, &mut self.classifier) {
            let encoded_bytes = block.len() as u32;
            frame.replace_payload_from(run.payload_at, block);
            self.add_record(
                frame,
                run.first,
                run.count,
                PageEncoding::Lz4,
                encoded_bytes,
            );
        } else {
            self.add_record(
                frame,
                run.first,
                run.count,
                PageEncoding::Raw,
                raw_bytes as u32,
            );
        }
    }

    /// Adds a record, or makes the last one longer where both are of a kind and touch.
    fn add_record(
        &self,
        frame: &mut FrameBuf,
        first: u32,
        count: u32,
        encoding: PageEncoding,
        payload_bytes: u32,
    ) {
        let records = frame.records_mut();
        let open = records
            .get_mut(self.closed_count..)
            .and_then(|open| open.last_mut());
        match open {
            Some(last)
                if encoding != PageEncoding::Lz4
                    && last.encoding == encoding
                    && last.first + last.count == first =>
            {
                last.count += count;
                last.payload_bytes += payload_bytes;
            }
            _ => records.push(PageRecord {
                first,
                count,
                encoding,
                payload_bytes,
            }),
        }
    }
}

struct Encoder {
    table: CompressTable,
    scratch: Vec<u8>,
}

impl Encoder {
    fn new(classifier: &Classifier) -> Self {
        let scratch_bytes = if classifier.may_encode() {
            get_maximum_output_size(LZ4_RUN_BYTES_MAX)
        } else {
            0
        };
        Self {
            table: CompressTable::large(),
            scratch: vec![0; scratch_bytes],
        }
    }

    /// The LZ4 block of `raw`, where the classifier's rules want it.
    fn encode(&mut self, raw: &[u8], classifier: &mut Classifier) -> Option<&[u8]> {
        if !classifier.wants_sample() {
            return None;
        }
        let page_count = raw.len() / PAGE_BYTES;
        let began = Instant::now();
        if page_count >= SAMPLED_RUN_PAGES_MIN as usize {
            let middle = page_count / 2 * PAGE_BYTES;
            let sample = self.compress(&raw[middle..middle + PAGE_BYTES])?;
            classifier.encoded(PAGE_BYTES, began.elapsed());
            if !classifier.judge_sample(sample) {
                return None;
            }
        }
        let encoded_bytes = self.compress(raw)?;
        classifier.encoded(raw.len(), began.elapsed());
        if page_count < SAMPLED_RUN_PAGES_MIN as usize {
            classifier.judge_sample(encoded_bytes / page_count.max(1));
        }
        let pays = classifier.judge_run(raw.len(), encoded_bytes);
        pays.then(|| self.scratch.get(..encoded_bytes)).flatten()
    }

    fn compress(&mut self, raw: &[u8]) -> Option<usize> {
        // The scratch is as long as the worst case; were it not, the run would go raw.
        compress_into_with_table(raw, &mut self.scratch, &mut self.table).ok()
    }
}

/// Why an encoded run is not what its record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackFault {
    /// The block would become more bytes than its record has pages for.
    #[error("the block unpacks to more than the {expected} bytes of its pages")]
    TooLong {
        /// Bytes of the record's pages.
        expected: usize,
    },
    /// The block became fewer bytes than its record has pages for.
    #[error("the block unpacks to {found} bytes, not to the {expected} of its pages")]
    TooShort {
        /// Bytes of the record's pages.
        expected: usize,
        /// Bytes that came out.
        found: usize,
    },
    /// The bytes are no LZ4 block.
    #[error("the bytes are no LZ4 block")]
    Damaged,
}

/// Unpacks the records of frames that hold encoded pages.
pub(crate) struct Unpacker {
    scratch: Vec<u8>,
}

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self {
            scratch: vec![0; LZ4_RUN_BYTES_MAX],
        }
    }

    pub(crate) fn overhead_bytes(&self) -> usize {
        self.scratch.capacity()
    }

    /// The pages of an LZ4 record, whose block this is.
    pub(crate) fn unpack(
        &mut self,
        record: &PageRecord,
        block: &[u8],
    ) -> Result<&[u8], UnpackFault> {
        let expected = record.count as usize * PAGE_BYTES;
        // No byte beyond the record's own pages is there to be written, whatever the block says.
        let pages = self
            .scratch
            .get_mut(..expected)
            .ok_or(UnpackFault::TooLong { expected })?;
        match decompress_into(block, pages) {
            Ok(found) if found == expected => Ok(pages),
            Ok(found) => Err(UnpackFault::TooShort { expected, found }),
            Err(DecompressError::OutputTooSmall { .. }) => Err(UnpackFault::TooLong { expected }),
            Err(_) => Err(UnpackFault::Damaged),
        }
    }
}
