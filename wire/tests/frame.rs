//! Page frames: there and back, and every rule of header, table and payload broken once.

mod common;

use common::{Frame, frame, frame_examples, header, record, reseal_header};
use limosa_pages::ChunkIndex;
use limosa_wire::limits::{CHUNK_END_MAX, FRAME_PAYLOAD_BYTES_MAX, STREAMS_MAX};
use limosa_wire::{
    Barrier, Bind, DecodeFault, EncodingCounts, EncodingSet, FRAME_HEADER_BYTES, FrameHeader,
    FrameKind, MigrationId, PageEncoding, PageRecord, Round, StreamIndex, StreamSecret,
    decode_table,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn a_frame_comes_back_as_it_was(frame in frame()) {
        let bytes = frame.encode();
        prop_assert_eq!(bytes.len(), frame.header.frame_bytes());
        prop_assert_eq!(Frame::decode(&bytes).unwrap().unwrap(), frame);
    }

    #[test]
    fn a_flipped_bit_of_a_frame_is_seen(frame in frame(), at in any::<prop::sample::Index>()) {
        let mut bytes = frame.encode();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Frame::decode(&bytes).unwrap().is_err());
    }

    #[test]
    fn a_table_that_ends_early_is_refused(frame in frame(), at in any::<prop::sample::Index>()) {
        let bytes = frame.encode();
        let table = &bytes[FRAME_HEADER_BYTES..][..frame.header.table_bytes()];
        let mut records = frame.records.clone();
        let cut = &table[..at.index(table.len())];
        prop_assert!(decode_table(&frame.header, cut, &mut records).is_err());
        prop_assert!(records.is_empty());
    }

    #[test]
    fn random_headers_are_refused(bytes in prop::collection::vec(any::<u8>(), FRAME_HEADER_BYTES)) {
        let bytes: [u8; FRAME_HEADER_BYTES] = bytes.try_into().unwrap();
        prop_assert!(FrameHeader::decode(&bytes).is_err());
    }

    #[test]
    fn what_a_random_table_decodes_to_is_that_table(
        records in prop::collection::vec((0..520u32, 0..70u32, 0..6u8, 0..9000u32), 1..4),
        absent in any::<bool>(),
    ) {
        let kind = if absent { FrameKind::Absent } else { FrameKind::Pages };
        let mut table = Vec::new();
        for (first, count, encoding, payload_bytes) in &records {
            table.extend_from_slice(&first.to_le_bytes());
            table.extend_from_slice(&count.to_le_bytes());
            table.extend_from_slice(&[*encoding, 0, 0, 0]);
            table.extend_from_slice(&payload_bytes.to_le_bytes());
        }
        let mut front = header(kind);
        front.record_count = records.len() as u16;
        front.payload_bytes = records.iter().map(|record| record.3).sum();
        front.table_crc = limosa_wire::checksum(&table);
        let mut decoded = Vec::new();
        if decode_table(&front, &table, &mut decoded).is_ok() {
            let again: Vec<u8> = decoded.iter().flat_map(PageRecord::encode).collect();
            prop_assert_eq!(again, table);
        }
    }
}

#[test]
fn every_flipped_bit_of_a_header_is_seen() {
    for (name, whole) in frame_examples() {
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut front: [u8; FRAME_HEADER_BYTES] = *whole.first_chunk().unwrap();
            front[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&front).is_err(), "bit {bit} of {name}");
        }
    }
}

/// Where a changed header is refused, and the change.
type Refusal = (usize, fn(&mut FrameHeader));

/// Checks that each change to an honest header is refused, at the byte given with it.
fn refuses(honest: &FrameHeader, changes: &[Refusal]) {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    honest.encode(&mut bytes);
    assert_eq!(FrameHeader::decode(&bytes).as_ref(), Ok(honest));
    for (offset, change) in changes {
        let mut changed = *honest;
        change(&mut changed);
        changed.encode(&mut bytes);
        let refused = FrameHeader::decode(&bytes).map_err(|error| error.offset);
        assert_eq!(refused, Err(*offset), "{changed:?}");
    }
}

#[test]
fn a_header_beyond_its_bounds_is_refused() {
    let mut pages = header(FrameKind::Pages);
    pages.record_count = 1;
    refuses(
        &pages,
        &[
            (24, |header| header.stream = StreamIndex::new(STREAMS_MAX)),
            (26, |header| header.record_count = 0),
            (26, |header| header.record_count = 513),
            (40, |header| header.chunk = ChunkIndex::new(CHUNK_END_MAX)),
            (48, |header| {
                header.payload_bytes = FRAME_PAYLOAD_BYTES_MAX + 1;
            }),
        ],
    );
    let mut absent = header(FrameKind::Absent);
    absent.record_count = 1;
    refuses(
        &absent,
        &[
            (26, |header| header.record_count = 0),
            (28, |header| header.round = Round::new(1)),
            (40, |header| header.chunk = ChunkIndex::new(1)),
            (48, |header| header.payload_bytes = 1),
            (56, |header| header.payload_crc = 1),
        ],
    );
}

#[test]
fn a_header_of_a_frame_without_pages_says_nothing_of_pages() {
    let mut barrier = header(FrameKind::Barrier);
    barrier.payload_bytes = 8;
    refuses(
        &barrier,
        &[
            (26, |header| header.record_count = 1),
            (40, |header| header.chunk = ChunkIndex::new(1)),
            (48, |header| header.payload_bytes = 9),
            (52, |header| header.table_crc = 1),
        ],
    );
    let mut bind = header(FrameKind::Bind);
    (bind.payload_bytes, bind.sequence) = (18, 0);
    refuses(
        &bind,
        &[
            (26, |header| header.record_count = 1),
            (28, |header| header.round = Round::new(1)),
            (32, |header| header.sequence = 1),
            (40, |header| header.chunk = ChunkIndex::new(1)),
            (48, |header| header.payload_bytes = 17),
            (52, |header| header.table_crc = 1),
        ],
    );
}

#[test]
fn a_header_from_elsewhere_is_refused_by_name() {
    let (_, whole) = frame_examples().swap_remove(1);
    let damaged = |at: usize, byte: u8| {
        let mut front: [u8; FRAME_HEADER_BYTES] = *whole.first_chunk().unwrap();
        front[at] = byte;
        reseal_header(&mut front);
        FrameHeader::decode(&front).unwrap_err().what
    };
    assert!(matches!(damaged(3, b'C'), DecodeFault::Magic { .. }));
    assert_eq!(damaged(4, 1), DecodeFault::Version { found: 1 });
    assert_eq!(damaged(4, 2), DecodeFault::Version { found: 2 });
    assert_eq!(
        damaged(6, 9),
        DecodeFault::Unknown {
            field: "frame",
            found: 9
        }
    );
    let flags = DecodeFault::Mismatch {
        field: "flags",
        found: 1,
        expected: 0,
    };
    assert_eq!(damaged(7, 1), flags);
}

fn refused_table(kind: FrameKind, records: &[PageRecord]) -> DecodeFault {
    let frame = Frame::sealed(header(kind), records.to_vec(), vec![]);
    let payload_bytes = records.iter().map(|record| record.payload_bytes).sum();
    let header = FrameHeader {
        payload_bytes,
        ..frame.header
    };
    let table = &frame.encode()[FRAME_HEADER_BYTES..];
    decode_table(&header, table, &mut Vec::new())
        .unwrap_err()
        .what
}

#[test]
fn a_table_that_breaks_a_rule_is_refused_by_name() {
    use PageEncoding::{Absent, Constant, Delta, Lz4, Raw, Zero, Zstd};
    let pages = |records: &[PageRecord]| refused_table(FrameKind::Pages, records);
    let absent = |records: &[PageRecord]| refused_table(FrameKind::Absent, records);

    assert_eq!(
        pages(&[record(0, 0, Zero, 0)]),
        DecodeFault::EmptyRecord { record: 0 }
    );
    let out_of_order = DecodeFault::RecordOutOfOrder { record: 1 };
    assert_eq!(
        pages(&[record(4, 2, Zero, 0), record(5, 1, Zero, 0)]),
        out_of_order
    );
    assert_eq!(
        pages(&[record(4, 1, Zero, 0), record(0, 1, Zero, 0)]),
        out_of_order
    );
    assert_eq!(
        absent(&[record(4, 2, Absent, 0), record(5, 1, Absent, 0)]),
        out_of_order
    );
    let beyond = |record, end| DecodeFault::RecordOutOfBounds { record, end };
    assert_eq!(pages(&[record(511, 2, Zero, 0)]), beyond(0, 512));
    assert_eq!(
        pages(&[record(u32::MAX, u32::MAX, Zero, 0)]),
        beyond(0, 512)
    );
    assert_eq!(
        absent(&[record(u32::MAX, 2, Absent, 0)]),
        beyond(0, 1 << 32)
    );
    let misplaced = DecodeFault::EncodingOutOfPlace { record: 0 };
    assert_eq!(pages(&[record(0, 1, Absent, 0)]), misplaced);
    assert_eq!(absent(&[record(0, 1, Zero, 0)]), misplaced);
    assert_eq!(absent(&[record(0, 1, Raw, 4096)]), misplaced);
    for (encoding, count, payload_bytes, min, max) in [
        (Zero, 1, 1, 0, 0),
        (Raw, 2, 8191, 8192, 8192),
        (Raw, 2, 8193, 8192, 8192),
        (Lz4, 2, 8192, 1, 8191),
        (Lz4, 2, 0, 1, 8191),
        (Constant, 9, 9, 8, 8),
        (Constant, 1, 0, 8, 8),
        (Zstd, 2, 8192, 1, 8191),
        (Zstd, 2, 0, 1, 8191),
        (Delta, 1, 4096, 4, 4095),
        (Delta, 1, 3, 4, 4095),
    ] {
        let fault = DecodeFault::RecordPayload {
            record: 0,
            found: payload_bytes,
            min,
            max,
        };
        assert_eq!(pages(&[record(0, count, encoding, payload_bytes)]), fault);
    }
    for (encoding, count, max) in [(Lz4, 65, 64), (Zstd, 65, 64), (Delta, 2, 1)] {
        let found = u64::from(count);
        let long = DecodeFault::OutOfBounds {
            field: "pages of a block",
            found,
            min: 1,
            max,
        };
        assert_eq!(pages(&[record(0, count, encoding, 10)]), long);
    }
}

#[test]
fn the_payloads_of_the_records_add_up() {
    let records = vec![record(0, 1, PageEncoding::Raw, 4096)];
    let frame = Frame::sealed(header(FrameKind::Pages), records, vec![1; 4097]);
    let refused = Frame::decode(&frame.encode()).unwrap().unwrap_err();
    let field = "payload of all records";
    assert_eq!(
        refused.what,
        DecodeFault::Mismatch {
            field,
            found: 4096,
            expected: 4097
        }
    );
}

#[test]
fn binds_and_barriers_come_back_as_they_were() {
    let id = MigrationId::new([9; 16]);
    let stream = StreamIndex::new(5);
    let bind = Bind {
        secret: StreamSecret::new([7; 16]),
        stream_count: 6,
    };
    let bytes = bind.frame(id, stream);
    let (front, payload) = bytes.split_first_chunk().unwrap();
    let header = FrameHeader::decode(front).unwrap();
    assert_eq!(
        (header.kind, header.stream, header.sequence),
        (FrameKind::Bind, stream, 0)
    );
    assert_eq!(Bind::decode(&header, payload).unwrap(), bind);
    assert!(Barrier::decode(&header, payload).is_err());
    assert!(Bind::decode(&header, &payload[1..]).is_err());

    let barrier = Barrier {
        frame_count: u64::MAX,
    };
    let bytes = barrier.frame(id, stream, Round::new(3), 88);
    let (front, payload) = bytes.split_first_chunk().unwrap();
    let header = FrameHeader::decode(front).unwrap();
    assert_eq!((header.round, header.sequence), (Round::new(3), 88));
    assert_eq!(Barrier::decode(&header, payload).unwrap(), barrier);
}

#[test]
fn a_stream_beyond_the_count_that_it_binds_is_refused() {
    for (stream, stream_count, fits) in [(0, 1, true), (1, 1, false), (63, 64, true), (0, 0, false)]
    {
        let bind = Bind {
            secret: StreamSecret::new([0; 16]),
            stream_count,
        };
        let bytes = bind.frame(MigrationId::new([0; 16]), StreamIndex::new(stream));
        let (front, payload) = bytes.split_first_chunk().unwrap();
        let decoded = Bind::decode(&FrameHeader::decode(front).unwrap(), payload);
        assert_eq!(decoded.is_ok(), fits, "stream {stream} of {stream_count}");
    }
}

#[test]
fn secrets_do_not_show() {
    let secret = StreamSecret::new([0xab; 16]);
    assert_eq!(format!("{secret:?}"), "StreamSecret(..)");
    assert_eq!(secret, StreamSecret::new([0xab; 16]));
    for byte in 0..16 {
        let mut other = [0xab; 16];
        other[byte] ^= 1;
        assert_ne!(secret, StreamSecret::new(other));
    }
}

#[test]
fn encodings_are_counted_and_collected() {
    let mut counts = EncodingCounts::default();
    for (pages, encoding) in PageEncoding::ALL.iter().enumerate() {
        counts.count(*encoding, pages as u64 + 1);
    }
    assert_eq!(
        counts,
        EncodingCounts {
            absent: 1,
            zero: 2,
            raw: 3,
            lz4: 4,
            constant: 5,
            zstd: 6,
            delta: 7,
            live: 8,
        }
    );
    assert_eq!((counts.total(), counts.data()), (36, 28));
    assert_eq!(
        [counts, counts].into_iter().sum::<EncodingCounts>().total(),
        72
    );
    let some = EncodingSet::ALL.without(PageEncoding::Lz4);
    assert!(EncodingSet::ALL.is_superset(some) && !some.is_superset(EncodingSet::ALL));
    assert_eq!(some.with(PageEncoding::Lz4), EncodingSet::ALL);
    assert_eq!(EncodingSet::from_bits(u32::MAX).intersect(some), some);
}
