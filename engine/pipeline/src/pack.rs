//! Pack: lifted pages to records and payload. Unpack: records and payload to pages. The two are
//! mirrors; how bytes become fewer is `codec/`, checksums and headers are `seal.rs`.

use limosa_pages::{CHUNK_PAGES, ChunkIndex, PAGE_BYTES, PageRange};
use limosa_wire::limits::FRAME_RECORDS_MAX;
use limosa_wire::{CONSTANT_BYTES, EncodingCounts, PageEncoding, PageRecord, Round};
use vm_memory::VolatileSlice;

use crate::classify::Classifier;
use crate::codec::{BLOCK_BYTES_MAX, Constant, Delta, Lz4, PageCodec, UnpackFault, Zstd, word_of};
use crate::config::PackConfig;
use crate::copy::{lift, place, place_over, read};
use crate::encode::Encoder;
use crate::frame_buf::FrameBuf;
use crate::kernels::{Content, Kernels};
use crate::land::LandError;
use crate::memory::{GuestMemory, MemoryError};

/// Pages that are lifted where only a sample of one is wanted: a run of its own.
const SAMPLED_PAGES: u16 = 8;

/// Turns the pages of one stream into records, one page at a time, in the order of memory.
pub(crate) struct Packer {
    kernels: Kernels,
    classifier: Classifier,
    encoder: Encoder,
    sends_constant: bool,
    /// The number, among those of the stream, of the first page of the chunk.
    chunk_first: u32,
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
    /// For one of `stream_count` streams.
    pub(crate) fn new(config: &PackConfig, stream_count: u16) -> Self {
        let classifier = Classifier::new(config.codec(), config.encodings());
        let classifier = if config.sends_live() {
            classifier.with_live_pages()
        } else {
            classifier
        };
        let encoder = Encoder::new(config, stream_count);
        let run_pages_max = if classifier.may_encode() {
            encoder.block_pages()
        } else {
            FRAME_RECORDS_MAX.into()
        };
        Self {
            kernels: Kernels::detect(),
            encoder,
            classifier,
            sends_constant: config.encodings().contains(PageEncoding::Constant),
            chunk_first: 0,
            run: None,
            closed_count: 0,
            run_pages_max,
        }
    }

    pub(crate) fn classifier_mut(&mut self) -> &mut Classifier {
        &mut self.classifier
    }

    pub(crate) fn overhead_bytes(&self) -> usize {
        self.encoder.overhead_bytes()
    }

    /// The pages that follow are those of `chunk`, in `round`: the stream's chunk numbered `turn`,
    /// as far as a byte goes.
    pub(crate) fn begin_chunk(&mut self, round: Round, chunk: ChunkIndex, turn: u8) {
        // There are at most 2^32 pages.
        self.chunk_first = (chunk.get() * CHUNK_PAGES) as u32;
        self.encoder.begin_chunk(round, turn);
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
                self.encoder.forget(self.chunk_first + offset);
                self.end_run(frame);
                self.add_record(frame, offset, 1, PageEncoding::Zero, 0);
            }
            Content::Data => self.add_data(offset, payload_at, frame),
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
        self.encoder.forget(self.chunk_first + offset);
        self.end_run(frame);
        self.add_record(frame, offset, 1, PageEncoding::Zero, 0);
    }

    /// Adds the `count` pages from `offset` on, which stay in the guest's memory, to the frame.
    /// Their place in the payload is the caller's.
    pub(crate) fn add_live(&mut self, offset: u32, count: u16, frame: &mut FrameBuf) {
        self.end_run(frame);
        self.encoder
            .forget_run(self.chunk_first + offset, count.into());
        self.classifier.passed(count.into());
        let bytes = u32::from(count) * PAGE_BYTES as u32;
        self.add_record(frame, offset, count.into(), PageEncoding::Live, bytes);
    }

    /// Whether the next run might be encoded, and so must be lifted.
    pub(crate) fn may_encode_next(&self) -> bool {
        self.classifier.may_encode_next() || self.encoder.may_be_delta(&self.classifier)
    }

    /// Most pages of the next run that are worth lifting: those of a block, or of a sample.
    pub(crate) fn run_pages_wanted(&self) -> u16 {
        let only_looks = self.classifier.only_looks();
        if only_looks && !self.encoder.may_be_delta(&self.classifier) {
            return SAMPLED_PAGES;
        }
        // A block has at most 64, a frame at most 512.
        self.run_pages_max as u16
    }

    /// Adds the page that was lifted to `payload_at`.
    #[inline]
    fn add_data(&mut self, offset: u32, payload_at: usize, frame: &mut FrameBuf) {
        let lifted = frame.payload_from(payload_at);
        if self.sends_constant
            && let Some(word) = word_of(lifted)
        {
            self.encoder.forget(self.chunk_first + offset);
            frame.replace_payload_from(payload_at, &[]);
            self.end_run(frame);
            self.add_constant(offset, &word, frame);
            return;
        }
        if let Some(lifted) = lifted.first_chunk() {
            let number = self.chunk_first + offset;
            if let Some(delta_bytes) = self.encoder.again(number, lifted, &self.classifier) {
                frame.replace_payload_from(payload_at, &[]);
                self.end_run(frame);
                let at = frame.tail();
                frame.replace_payload_from(at, self.encoder.delta(delta_bytes));
                self.add_record(frame, offset, 1, PageEncoding::Delta, delta_bytes as u32);
                return;
            }
        }
        match &mut self.run {
            Some(run) => run.count += 1,
            none => {
                *none = Some(Run {
                    first: offset,
                    count: 1,
                    payload_at,
                });
            }
        }
    }

    /// Adds a page of nothing but `word`: to the last record, where it says the same of the page
    /// ahead.
    fn add_constant(&self, offset: u32, word: &[u8; CONSTANT_BYTES], frame: &mut FrameBuf) {
        let at = frame.tail();
        let is_same = frame.payload().last_chunk() == Some(word);
        let open = frame.records_mut().get_mut(self.closed_count..);
        match open.and_then(|open| open.last_mut()) {
            Some(last)
                if is_same
                    && last.encoding == PageEncoding::Constant
                    && last.first + last.count == offset =>
            {
                last.count += 1;
            }
            _ => {
                frame.replace_payload_from(at, word);
                let bytes = CONSTANT_BYTES as u32;
                self.add_record(frame, offset, 1, PageEncoding::Constant, bytes);
            }
        }
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

    /// Gives the pages that lie at the end of the payload their record, encoded or not.
    pub(crate) fn end_run(&mut self, frame: &mut FrameBuf) {
        let Some(run) = self.run.take() else {
            return;
        };
        let raw = frame.payload_from(run.payload_at);
        let raw_bytes = raw.len();
        match self.encoder.encode(raw, &mut self.classifier) {
            Some((block, encoding)) => {
                let encoded_bytes = block.len() as u32;
                frame.replace_payload_from(run.payload_at, block);
                self.add_record(frame, run.first, run.count, encoding, encoded_bytes);
            }
            None => {
                let raw_bytes = raw_bytes as u32;
                self.add_record(frame, run.first, run.count, PageEncoding::Raw, raw_bytes);
            }
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
        let joins = matches!(encoding, PageEncoding::Zero | PageEncoding::Raw);
        let records = frame.records_mut();
        let open = records
            .get_mut(self.closed_count..)
            .and_then(|open| open.last_mut());
        match open {
            Some(last)
                if joins && last.encoding == encoding && last.first + last.count == first =>
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

/// Unpacks the records of frames that hold encoded pages.
pub(crate) struct Unpacker {
    scratch: Vec<u8>,
    zstd: Zstd,
}

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self {
            scratch: vec![0; BLOCK_BYTES_MAX],
            zstd: Zstd::decoder(),
        }
    }

    pub(crate) fn overhead_bytes(&self) -> usize {
        self.scratch.capacity() + self.zstd.overhead_bytes()
    }

    /// Puts the pages of an encoded record, whose payload this is, into the guest's memory.
    pub(crate) fn unpack_to(
        &mut self,
        memory: &dyn GuestMemory,
        pages: PageRange,
        encoding: PageEncoding,
        payload: &[u8],
    ) -> Result<(), UnpackError> {
        let expected = match encoding {
            // Placed over and over.
            PageEncoding::Constant => PAGE_BYTES,
            _ => pages.count().bytes() as usize,
        };
        // No byte beyond the record's own pages is there to be written, whatever the payload says.
        let unpacked = self
            .scratch
            .get_mut(..expected)
            .ok_or(UnpackFault::TooLong { expected })?;
        match encoding {
            PageEncoding::Lz4 => Lz4::decoder().decode(payload, unpacked)?,
            PageEncoding::Zstd => self.zstd.decode(payload, unpacked)?,
            PageEncoding::Constant => Constant.decode(payload, unpacked)?,
            PageEncoding::Delta => {
                // What it starts from is what was placed here last: nobody else writes the memory.
                read(memory, pages, unpacked)?;
                Delta.decode(payload, unpacked)?;
            }
            PageEncoding::Raw | PageEncoding::Live | PageEncoding::Zero | PageEncoding::Absent => {
                return Err(UnpackFault::Damaged.into());
            }
        }
        match encoding {
            PageEncoding::Constant => place_over(memory, pages, unpacked)?,
            _ => place(memory, pages, unpacked)?,
        }
        Ok(())
    }
}

/// Why a record could not be put into the guest's memory.
pub(crate) enum UnpackError {
    Fault(UnpackFault),
    Memory(MemoryError),
}

impl UnpackError {
    /// The error of a frame, whose record this is.
    pub(crate) fn in_record(self, record: usize) -> LandError {
        match self {
            Self::Fault(fault) => LandError::Unpack { record, fault },
            Self::Memory(error) => error.into(),
        }
    }
}

impl From<UnpackFault> for UnpackError {
    fn from(fault: UnpackFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<MemoryError> for UnpackError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}
