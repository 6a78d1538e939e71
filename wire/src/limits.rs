//! Every bound of the protocol, why it is there, and the relations between them, proved when this
//! crate is compiled. A receiver refuses what is beyond a bound before it allocates for it.

use limosa_pages::{CHUNK_BYTES, CHUNK_PAGES, PAGE_BYTES, PAGE_END_MAX, REGIONS_MAX};

/// Most page streams of a migration: more than the logical processors that a stream each can feed.
pub const STREAMS_MAX: u16 = 64;

/// Most bytes of pages in one frame. A frame is what a receiver must hold at once for each stream,
/// and all that is lost to a wrong checksum; beyond this size nothing gets faster.
pub const FRAME_PAYLOAD_BYTES_MAX: u32 = 1 << 20;

/// Most records in one frame: one for each page of a chunk.
pub const FRAME_RECORDS_MAX: u16 = 512;

/// Most bytes of a frame's record table.
pub const FRAME_TABLE_BYTES_MAX: usize = FRAME_RECORDS_MAX as usize * crate::record::RECORD_BYTES;

/// Most bytes of a whole frame: header, record table and payload.
pub const FRAME_BYTES_MAX: usize =
    crate::frame::FRAME_HEADER_BYTES + FRAME_TABLE_BYTES_MAX + FRAME_PAYLOAD_BYTES_MAX as usize;

/// Most pages in one LZ4 or zstd block: 256 KiB, so that a place to unpack it fits in a core's
/// cache.
pub const BLOCK_PAGES_MAX: u32 = 64;

/// Most bytes of the name and version of a peer's software.
pub const AGENT_BYTES_MAX: usize = 64;

/// Most bytes of the name of a kind of guest.
pub const MACHINE_BYTES_MAX: usize = 32;

/// Most bytes of the sealed description of the guest's CPU, or of what a host can give: two sets of
/// 256 CPUID entries of 24 bytes each and their MSRs take a quarter of it.
pub const CPU_BYTES_MAX: usize = 64 << 10;

/// Most state sections of a guest: one per kind of device, not per device.
pub const SECTIONS_MAX: usize = 64;

/// Most bytes of the name of a state section.
pub const SECTION_NAME_BYTES_MAX: usize = 32;

/// Most bytes of one state section: the registers of 200 vCPUs with AVX-512 and AMX state, or the
/// queues of a device.
pub const SECTION_BYTES_MAX: usize = 1 << 20;

/// Most bytes of all state sections together: what may cross while the guest stands still.
pub const STATE_BYTES_MAX: usize = 16 << 20;

/// Most reasons in a refusal: more than the feature bits of all words that are compared.
pub const REASONS_MAX: usize = 1024;

/// Most bytes of each text of a reason: a line or two for an operator.
pub const REASON_TEXT_BYTES_MAX: usize = 512;

/// Most bytes of the text of an abort.
pub const ABORT_TEXT_BYTES_MAX: usize = 1024;

/// Most bytes of a message body whose kind has no larger bound: those of fixed and small fields.
pub const SMALL_BODY_BYTES_MAX: usize = 2048;

/// Most bytes of an offer's body.
pub const OFFER_BODY_BYTES_MAX: usize = (4 + CPU_BYTES_MAX)
    + (2 + REGIONS_MAX * 16)
    + (2 + SECTIONS_MAX * (2 + SECTION_NAME_BYTES_MAX + 2))
    + (2 + MACHINE_BYTES_MAX)
    + 8;

/// Most bytes of a refusal's body: every reason, each as long as can be.
pub const REFUSE_BODY_BYTES_MAX: usize = 2 + REASONS_MAX * (1 + 2 * (2 + REASON_TEXT_BYTES_MAX));

/// Most bytes of an accepting verdict's body, which describes the host.
pub const ACCEPTED_BODY_BYTES_MAX: usize = 1 + 2 + 4 + 16 + (4 + CPU_BYTES_MAX) + 8;

/// Most bytes of a verdict's body: a refusal with every reason is the largest.
pub const VERDICT_BODY_BYTES_MAX: usize = 1 + REFUSE_BODY_BYTES_MAX;

/// Most bytes of a body with the guest's state.
pub const STATE_BODY_BYTES_MAX: usize =
    8 + 2 + SECTIONS_MAX * (2 + SECTION_NAME_BYTES_MAX + 2 + 4) + STATE_BYTES_MAX;

/// Most bytes of any message body.
pub const BODY_BYTES_MAX: usize = STATE_BODY_BYTES_MAX;

/// One more than the number of the last chunk that can have a page.
pub const CHUNK_END_MAX: u64 = PAGE_END_MAX.get() / CHUNK_PAGES;

// A chunk in single pages fits the record table of one frame, whatever their encodings.
const _: () = assert!(FRAME_RECORDS_MAX as u64 == CHUNK_PAGES);
const _: () = assert!(FRAME_TABLE_BYTES_MAX == 8 << 10);
// Two frames are enough for a chunk that stays raw, and a frame holds whole pages.
const _: () = assert!(FRAME_PAYLOAD_BYTES_MAX as usize * 2 >= CHUNK_BYTES);
const _: () = assert!((FRAME_PAYLOAD_BYTES_MAX as usize).is_multiple_of(PAGE_BYTES));
// A block fits in a frame, and as raw pages too.
const _: () = assert!(BLOCK_PAGES_MAX as usize * PAGE_BYTES <= FRAME_PAYLOAD_BYTES_MAX as usize);
const _: () = assert!(BLOCK_PAGES_MAX as u64 <= CHUNK_PAGES);
// Records name absent pages by numbers of 32 bits, and the last such page is within them.
const _: () = assert!(PAGE_END_MAX.get() - 1 <= u32::MAX as u64);
const _: () = assert!(PAGE_END_MAX.get().is_multiple_of(CHUNK_PAGES));
// Lengths of names and texts, and of lists, have two bytes; those of bodies have four.
const _: () = assert!(AGENT_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(MACHINE_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(SECTION_NAME_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(REASON_TEXT_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(ABORT_TEXT_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(REASONS_MAX <= u16::MAX as usize);
const _: () = assert!(SECTIONS_MAX <= u16::MAX as usize);
const _: () = assert!(BODY_BYTES_MAX <= u32::MAX as usize);
// The bound of small bodies holds the largest of them.
const _: () = assert!(SMALL_BODY_BYTES_MAX >= 4 + 16 + 2 + AGENT_BYTES_MAX);
const _: () = assert!(SMALL_BODY_BYTES_MAX >= 1 + 2 + ABORT_TEXT_BYTES_MAX);
const _: () = assert!(SMALL_BODY_BYTES_MAX >= 4 + 2 + STREAMS_MAX as usize * 8 + 8);
// Of the two verdicts the larger one sets the bound.
const _: () = assert!(VERDICT_BODY_BYTES_MAX >= ACCEPTED_BODY_BYTES_MAX);
// No kind of message may be larger than the bound of all.
const _: () = assert!(BODY_BYTES_MAX >= OFFER_BODY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX >= VERDICT_BODY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX >= REFUSE_BODY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX >= SMALL_BODY_BYTES_MAX);
// One section alone may not exceed what all may have together.
const _: () = assert!(SECTION_BYTES_MAX <= STATE_BYTES_MAX);
