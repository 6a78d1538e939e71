//! The inner loops by themselves: over a page, a payload, a record table.

use core::hint::black_box;

use limosa_pages::{CHUNK_PAGES, ChunkIndex, PAGE_BYTES};
use limosa_pipeline::PackConfig;
use limosa_pipeline::kernels::{Checksum, Kernels};
use limosa_wire::limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_RECORDS_MAX};
use limosa_wire::{
    DecodeError, FRAME_HEADER_BYTES, FrameHeader, FrameKind, PageEncoding, PageRecord,
    RECORD_BYTES, Round, StreamIndex, checksum, decode_table, encode_table,
};

use crate::corridor::MIGRATION;
use crate::guest::{Fill, Guest};
use crate::kernel::{KernelError, Pass};

/// Copies each page, and tests the copy.
pub(crate) fn copy_test(chunk_count: u64, fill: Fill) -> Result<(Pass, u64), KernelError> {
    let guest = Guest::new(chunk_count, fill)?;
    let (kernels, page_count) = (Kernels::detect(), guest.page_count());
    let mut into = [0; PAGE_BYTES];
    let pass = move || {
        for page in 0..page_count {
            let page = guest.page(page)?;
            black_box(kernels.copy_and_test_zero(&page, black_box(&mut into)));
        }
        Ok(())
    };
    Ok((Box::new(pass), page_count))
}

/// The checksum of a payload that is in the cache, as many times as the chunks have payloads.
pub(crate) fn checksum_of_payload(chunk_count: u64) -> (Pass, u64) {
    let payload: Vec<u8> = (0..PackConfig::FRAME_PAYLOAD_BYTES)
        .map(|at| (at % 251) as u8)
        .collect();
    let page_count = chunk_count * CHUNK_PAGES;
    let payload_count = page_count / (payload.len() / PAGE_BYTES) as u64;
    let pass = move || {
        for _ in 0..payload_count {
            black_box(checksum(black_box(&payload)));
        }
        Ok(())
    };
    (Box::new(pass), page_count)
}

/// The checksum of pages that came straight to the guest's memory, run by run.
pub(crate) fn checksum_of_guest(chunk_count: u64) -> Result<(Pass, u64), KernelError> {
    let guest = Guest::new(chunk_count, Fill::Noise)?;
    let pass = move || {
        for chunk in 0..chunk_count {
            let mut checksum = Checksum::new(Kernels::detect());
            checksum.update(&guest.run(chunk * CHUNK_PAGES, CHUNK_PAGES)?);
            black_box(checksum.finish());
        }
        Ok(())
    };
    Ok((Box::new(pass), chunk_count * CHUNK_PAGES))
}

/// Header and table of one full frame a chunk, of alternating kinds of pages: there and back.
pub(crate) fn frame_table(chunk_count: u64) -> (Pass, u64) {
    let records: Vec<_> = (0..FRAME_RECORDS_MAX).map(record).collect();
    let mut table = Vec::with_capacity(records.len() * RECORD_BYTES);
    let mut read = Vec::with_capacity(records.len());
    let units = chunk_count * records.len() as u64;
    let pass = move || {
        for _ in 0..chunk_count {
            table.clear();
            encode_table(black_box(&records), &mut table);
            let header = header_of(&records, checksum(&table));
            let mut bytes = [0; FRAME_HEADER_BYTES];
            header.encode(&mut bytes);
            let header = FrameHeader::decode(black_box(&bytes)).map_err(damaged)?;
            decode_table(&header, black_box(&table), &mut read).map_err(damaged)?;
        }
        Ok(())
    };
    (Box::new(pass), units)
}

/// Every second page of a chunk is zero, up to what a payload may have.
fn record(at: u16) -> PageRecord {
    let is_raw =
        at.is_multiple_of(2) && usize::from(at) / 2 < FRAME_PAYLOAD_BYTES_MAX as usize / PAGE_BYTES;
    PageRecord {
        first: at.into(),
        count: 1,
        encoding: if is_raw {
            PageEncoding::Raw
        } else {
            PageEncoding::Zero
        },
        payload_bytes: if is_raw { PAGE_BYTES as u32 } else { 0 },
    }
}

fn header_of(records: &[PageRecord], table_crc: u32) -> FrameHeader {
    FrameHeader {
        kind: FrameKind::Pages,
        migration_id: MIGRATION,
        stream: StreamIndex::new(0),
        round: Round::FIRST,
        sequence: 1,
        chunk: ChunkIndex::new(0),
        record_count: records.len() as u16,
        payload_bytes: records.iter().map(|record| record.payload_bytes).sum(),
        payload_crc: 0,
        table_crc,
    }
}

fn damaged(error: DecodeError) -> KernelError {
    KernelError::Tape {
        what: error.to_string(),
    }
}
