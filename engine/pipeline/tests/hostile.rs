//! Frames that a peer must not send: each is refused with the exact deed, places nothing where it
//! must not, and breaks the ledger for good.

mod common;

use std::sync::Arc;

use common::{MIGRATION, TestError, TestMemory, Wire, lander, map_of, noise, range, text};
use limosa_pages::{ChunkIndex, PAGE_BYTES};
use limosa_pipeline::{Gap, GuestMemory, LandError, Lander, Ledger, OpenError, UnpackFault};
use limosa_wire::{
    Bind, DecodeFault, EncodingSet, FRAME_HEADER_BYTES, FrameHeader, FrameKind, MigrationId,
    PageEncoding, PageRecord, Round, StreamIndex, checksum, encode_table,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Pages 0..100 and 600..1000: the first chunk has a hole, and a second region begins in the
/// second.
const REGIONS: [(u64, u64); 2] = [(0, 100), (600, 400)];

struct Frame {
    header: FrameHeader,
    records: Vec<PageRecord>,
    payload: Vec<u8>,
}

fn record(first: u32, count: u32, encoding: PageEncoding, payload_bytes: usize) -> PageRecord {
    PageRecord {
        first,
        count,
        encoding,
        payload_bytes: payload_bytes as u32,
    }
}

fn pages(chunk: u64, records: Vec<PageRecord>, payload: Vec<u8>) -> Frame {
    let header = FrameHeader {
        kind: FrameKind::Pages,
        migration_id: MIGRATION,
        stream: StreamIndex::new(0),
        round: Round::FIRST,
        sequence: 1,
        chunk: ChunkIndex::new(chunk),
        record_count: 0,
        payload_bytes: 0,
        table_crc: 0,
        payload_crc: 0,
    };
    Frame {
        header,
        records,
        payload,
    }
}

fn absent(first: u32, count: u32) -> Frame {
    let records = vec![record(first, count, PageEncoding::Absent, 0)];
    let mut frame = pages(0, records, Vec::new());
    frame.header.kind = FrameKind::Absent;
    frame
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let mut table = Vec::new();
        encode_table(&self.records, &mut table);
        let header = FrameHeader {
            record_count: self.records.len() as u16,
            payload_bytes: self.payload.len() as u32,
            table_crc: checksum(&table),
            payload_crc: checksum(&self.still_payload()),
            ..self.header
        };
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        header.encode(bytes.first_chunk_mut().unwrap());
        bytes.extend_from_slice(&table);
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// What the checksum is over.
    fn still_payload(&self) -> Vec<u8> {
        let (mut rest, mut still) = (&self.payload[..], Vec::new());
        for record in &self.records {
            let own_bytes = rest.len().min(record.payload_bytes as usize);
            let (own, behind) = rest.split_at(own_bytes);
            if record.encoding != PageEncoding::Live {
                still.extend_from_slice(own);
            }
            rest = behind;
        }
        still.extend_from_slice(rest);
        still
    }
}

struct Target {
    memory: Arc<TestMemory>,
    ledger: Arc<Ledger>,
    lander: Lander,
}

fn target(stream_count: u16) -> Target {
    let map = map_of(&REGIONS);
    let memory = TestMemory::new(&map);
    let ledger = Arc::new(Ledger::new(&map, stream_count));
    let lander = lander(&memory, &ledger, 0);
    Target {
        memory,
        ledger,
        lander,
    }
}

impl Target {
    fn land(&mut self, bytes: &[u8]) -> Result<(), TestError> {
        let mut wire = Wire(bytes.iter().copied().collect());
        self.lander.land(&mut wire).map(drop)
    }

    fn is_untouched(&self) -> bool {
        let mut pages = self
            .memory
            .map()
            .regions()
            .iter()
            .flat_map(|region| region.iter());
        pages.all(|page| self.memory.read(page.get()) == vec![0; PAGE_BYTES])
    }
}

/// Lands one frame that must be refused.
fn refused_bytes(bytes: &[u8]) -> LandError {
    let mut target = target(1);
    let Err(TestError::Land(error)) = target.land(bytes) else {
        panic!("the frame was taken");
    };
    assert!(target.is_untouched(), "{error}");
    let broken = target.ledger.complete();
    assert!(
        matches!(broken, Err(Gap::StreamBroken { .. })),
        "{broken:?}"
    );
    error
}

fn refused(frame: &Frame) -> LandError {
    refused_bytes(&frame.bytes())
}

fn fault(error: &LandError) -> DecodeFault {
    match error {
        LandError::Open(OpenError::Damaged { fault, .. }) => fault.what,
        other => panic!("{other}"),
    }
}

#[test]
fn pages_outside_the_guests_memory() {
    let raw = |first, count: u32| {
        let payload = noise(1, count as usize * PAGE_BYTES);
        vec![(
            record(first, count, PageEncoding::Raw, payload.len()),
            payload,
        )]
    };
    // Across the end of a region, in a hole, beyond the map, across into the next region.
    for (chunk, first, count) in [
        (0, 90, 20),
        (0, 300, 1),
        (1, 490, 1),
        (40, 0, 1),
        (1, 80, 10),
    ] {
        let (records, payloads): (Vec<_>, Vec<_>) = raw(first, count).into_iter().unzip();
        let error = refused(&pages(chunk, records, payloads.concat()));
        assert!(
            matches!(error, LandError::OutsideMap { record: 0 }),
            "{error}"
        );
    }
    for (first, count) in [(50, 100), (100, 1), (0, 1000), (1000, 1), (u32::MAX, 1)] {
        let error = refused(&absent(first, count));
        assert!(
            matches!(error, LandError::OutsideMap { record: 0 }),
            "{error}"
        );
    }
    // A good record ahead does not help.
    let records = vec![
        record(0, 1, PageEncoding::Raw, PAGE_BYTES),
        record(200, 1, PageEncoding::Zero, 0),
    ];
    let error = refused(&pages(0, records, noise(1, PAGE_BYTES)));
    assert!(
        matches!(error, LandError::OutsideMap { record: 1 }),
        "{error}"
    );
}

#[test]
fn records_that_overlap() {
    let records = vec![
        record(5, 2, PageEncoding::Raw, 2 * PAGE_BYTES),
        record(6, 1, PageEncoding::Raw, PAGE_BYTES),
    ];
    let error = refused(&pages(0, records, noise(1, 3 * PAGE_BYTES)));
    assert_eq!(fault(&error), DecodeFault::RecordOutOfOrder { record: 1 });
}

#[test]
fn a_payload_that_is_not_the_records() {
    let records = vec![record(5, 2, PageEncoding::Raw, PAGE_BYTES)];
    let error = refused(&pages(0, records, noise(1, PAGE_BYTES)));
    assert!(
        matches!(fault(&error), DecodeFault::RecordPayload { record: 0, .. }),
        "{error}"
    );
    let records = vec![record(5, 1, PageEncoding::Raw, PAGE_BYTES)];
    let error = refused(&pages(0, records, noise(1, 2 * PAGE_BYTES)));
    assert!(
        matches!(fault(&error), DecodeFault::Mismatch { .. }),
        "{error}"
    );
}

#[test]
fn another_migration_stream_or_round() {
    let good = || pages(0, vec![record(0, 1, PageEncoding::Zero, 0)], Vec::new());
    let mut frame = good();
    frame.header.migration_id = MigrationId::new([8; 16]);
    assert!(matches!(
        refused(&frame),
        LandError::Open(OpenError::Stranger { .. })
    ));
    let mut frame = good();
    frame.header.stream = StreamIndex::new(1);
    assert!(matches!(
        refused(&frame),
        LandError::Open(OpenError::WrongStream { .. })
    ));
    let mut frame = good();
    frame.header.round = Round::new(1);
    assert!(matches!(
        refused(&frame),
        LandError::Open(OpenError::WrongRound { .. })
    ));
    let mut frame = good();
    frame.header.sequence = 0;
    assert!(matches!(
        refused(&frame),
        LandError::Open(OpenError::SequenceGap { .. })
    ));
    let bind = Bind {
        secret: common::SECRET,
        stream_count: 1,
    };
    let error = refused_bytes(&bind.frame(MIGRATION, StreamIndex::new(0)));
    assert!(
        matches!(error, LandError::Open(OpenError::BoundTwice { .. })),
        "{error}"
    );
}

#[test]
fn a_chunk_that_another_stream_brought_first() {
    let mut target = target(2);
    let mut other = lander(&target.memory, &target.ledger, 1);
    let mut frame = pages(0, vec![record(0, 1, PageEncoding::Zero, 0)], Vec::new());
    frame.header.stream = StreamIndex::new(1);
    let mut wire = Wire(frame.bytes().into());
    assert!(other.land(&mut wire).is_ok());
    frame.header.stream = StreamIndex::new(0);
    let error = target.land(&frame.bytes()).unwrap_err();
    assert!(
        matches!(error, TestError::Land(LandError::NotOwner { .. })),
        "{error:?}"
    );
    let broken = target.ledger.complete();
    assert!(
        matches!(broken, Err(Gap::StreamBroken { .. })),
        "{broken:?}"
    );
}

#[test]
fn encodings_that_were_not_agreed_upon() {
    let block = lz4_flex::block::compress(&text(1, PAGE_BYTES));
    let records = vec![record(0, 1, PageEncoding::Lz4, block.len())];
    let packed = pages(0, records, block).bytes();
    let absent = absent(0, 1).bytes();
    let records = vec![record(0, 1, PageEncoding::Live, PAGE_BYTES)];
    let live = pages(0, records, noise(1, PAGE_BYTES)).bytes();
    let other = |encoding| pages(0, vec![record(0, 1, encoding, 8)], vec![0; 8]).bytes();
    for (bytes, encoding) in [
        (packed, PageEncoding::Lz4),
        (absent, PageEncoding::Absent),
        (live, PageEncoding::Live),
        (other(PageEncoding::Zstd), PageEncoding::Zstd),
        (other(PageEncoding::Delta), PageEncoding::Delta),
        (other(PageEncoding::Constant), PageEncoding::Constant),
    ] {
        let target = target(1);
        let mut lander = Lander::new(
            Arc::clone(&target.memory) as Arc<dyn GuestMemory>,
            Arc::clone(&target.ledger),
            MIGRATION,
            StreamIndex::new(0),
            EncodingSet::EMPTY,
        );
        let landed = lander.land(&mut Wire(bytes.into_iter().collect()));
        let Err(TestError::Land(LandError::NotAgreed {
            record: 0,
            encoding: found,
        })) = landed
        else {
            panic!("the frame was taken");
        };
        assert_eq!(found, encoding);
    }
}

#[test]
fn blocks_that_do_not_unpack_to_their_pages() {
    let unpack_as = |encoding, count: u32, block: Vec<u8>| {
        let records = vec![record(0, count, encoding, block.len())];
        let error = refused(&pages(0, records, block));
        let LandError::Unpack { record: 0, fault } = error else {
            panic!("{error}");
        };
        fault
    };
    let unpack = |count, block| unpack_as(PageEncoding::Lz4, count, block);
    let expected = 2 * PAGE_BYTES;
    let short = lz4_flex::block::compress(&text(1, PAGE_BYTES));
    let found = PAGE_BYTES;
    assert_eq!(unpack(2, short), UnpackFault::TooShort { expected, found });
    let long = lz4_flex::block::compress(&text(1, 3 * PAGE_BYTES));
    assert_eq!(unpack(2, long), UnpackFault::TooLong { expected });
    // A bomb: less than a page of block, a megabyte of zeros.
    let bomb = lz4_flex::block::compress(&vec![0; 900_000]);
    assert!(bomb.len() < PAGE_BYTES);
    assert_eq!(
        unpack(1, bomb),
        UnpackFault::TooLong {
            expected: PAGE_BYTES
        }
    );
    assert_eq!(unpack(1, vec![0xff; 100]), UnpackFault::Damaged);

    let zstd = |bytes: &[u8]| {
        let mut block = vec![0; 1 << 20];
        let mut context = zstd::zstd_safe::CCtx::create();
        let block_bytes = context.compress2(&mut block[..], bytes).unwrap();
        block.truncate(block_bytes);
        block
    };
    let unpack = |count, block| unpack_as(PageEncoding::Zstd, count, block);
    let short = zstd(&text(1, PAGE_BYTES));
    assert_eq!(unpack(2, short), UnpackFault::TooShort { expected, found });
    let long = zstd(&text(1, 3 * PAGE_BYTES));
    assert_eq!(unpack(2, long), UnpackFault::TooLong { expected });
    let bomb = zstd(&vec![7; 200 << 20]);
    assert!(bomb.len() < 2 * PAGE_BYTES);
    assert_eq!(unpack(2, bomb), UnpackFault::TooLong { expected });
    assert_eq!(unpack(1, vec![0xff; 100]), UnpackFault::Damaged);

    let unpack = |block: &[&[u8]]| unpack_as(PageEncoding::Delta, 1, block.concat());
    let expected = PAGE_BYTES;
    // The page is zero here, whatever the peer believes.
    let sum = checksum(&noise(1, PAGE_BYTES)).to_le_bytes();
    assert_eq!(unpack(&[&sum]), UnpackFault::OtherBase);
    assert_eq!(unpack(&[&sum, &[3, 1], &[1; 8]]), UnpackFault::OtherBase);
    assert_eq!(unpack(&[&sum, &[3, 2], &[1; 15]]), UnpackFault::Damaged);
    assert_eq!(unpack(&[&sum, &[3]]), UnpackFault::Damaged);
    let beyond = [255, 0, 255, 0, 2, 1];
    assert_eq!(
        unpack(&[&sum, &beyond, &[1; 8]]),
        UnpackFault::TooLong { expected }
    );
}

#[test]
fn a_delta_lands_on_what_was_there() {
    let mut target = target(1);
    let (last, mut page) = (noise(1, PAGE_BYTES), noise(1, PAGE_BYTES));
    page[4088..].fill(3);
    let raw = record(7, 1, PageEncoding::Raw, PAGE_BYTES);
    target.land(&pages(0, vec![raw], last).bytes()).unwrap();
    let tokens = [255, 0, 255, 0, 1, 1];
    let delta = [&checksum(&page).to_le_bytes()[..], &tokens, &[3; 8]].concat();
    let mut frame = pages(
        0,
        vec![record(7, 1, PageEncoding::Delta, delta.len())],
        delta,
    );
    frame.header.sequence += 1;
    target.land(&frame.bytes()).unwrap();
    assert_eq!(target.memory.read(7), page);
}

#[test]
fn a_wrong_checksum_over_landed_memory() {
    for encoding in [
        PageEncoding::Raw,
        PageEncoding::Lz4,
        PageEncoding::Constant,
        PageEncoding::Delta,
    ] {
        let payload = match encoding {
            PageEncoding::Lz4 => lz4_flex::block::compress(&text(1, PAGE_BYTES)),
            PageEncoding::Constant => vec![5; 8],
            PageEncoding::Delta => checksum(&[0; PAGE_BYTES]).to_le_bytes().to_vec(),
            _ => noise(1, PAGE_BYTES),
        };
        let records = vec![record(9, 1, encoding, payload.len())];
        let mut bytes = pages(0, records, payload).bytes();
        *bytes.last_mut().unwrap() ^= 1;
        let mut target = target(1);
        let Err(TestError::Land(error)) = target.land(&bytes) else {
            panic!("the frame was taken");
        };
        assert_eq!(fault(&error), DecodeFault::Checksum { of: "payload" });
        // Raw pages are received in place: the damage is there, and the guest never runs on it.
        assert!(matches!(
            target.ledger.complete(),
            Err(Gap::StreamBroken { .. })
        ));
    }
}

#[test]
fn a_frame_that_ends_early_is_not_taken_down() {
    let records = vec![record(9, 4, PageEncoding::Raw, 4 * PAGE_BYTES)];
    let bytes = pages(0, records, noise(1, 4 * PAGE_BYTES)).bytes();
    for cut in [0, 10, 64, 70, 80, 81, PAGE_BYTES, bytes.len() - 1] {
        let mut target = target(1);
        assert!(matches!(target.land(&bytes[..cut]), Err(TestError::Link)));
        assert!(matches!(
            target.ledger.complete(),
            Err(Gap::BarrierMissing { .. })
        ));
    }
}

#[test]
fn many_small_records_land_where_they_belong() {
    let records: Vec<_> = (0..400)
        .map(|page| match page % 2 {
            0 => record(88 + page, 1, PageEncoding::Raw, PAGE_BYTES),
            _ => record(88 + page, 1, PageEncoding::Zero, 0),
        })
        .collect();
    let payload = noise(3, 200 * PAGE_BYTES);
    let mut target = target(1);
    target
        .land(&pages(1, records, payload.clone()).bytes())
        .unwrap();
    for (page, bytes) in payload.chunks_exact(PAGE_BYTES).enumerate() {
        assert_eq!(target.memory.read(600 + 2 * page as u64), bytes);
    }
    assert_eq!(
        target.memory.slice(range(600, 400)).unwrap().len(),
        400 * PAGE_BYTES
    );
}

fn any_record() -> impl Strategy<Value = PageRecord> {
    let encoding = prop::sample::select(PageEncoding::ALL);
    let payload = prop_oneof![Just(0), Just(PAGE_BYTES), 0..3 * PAGE_BYTES];
    (0..700_u32, 0..9_u32, encoding, payload).prop_map(|(first, count, encoding, payload)| {
        let payload = match encoding {
            PageEncoding::Raw | PageEncoding::Live => count as usize * PAGE_BYTES,
            PageEncoding::Lz4 | PageEncoding::Zstd | PageEncoding::Delta => payload,
            PageEncoding::Constant => 8,
            PageEncoding::Zero | PageEncoding::Absent => 0,
        };
        record(first, count, encoding, payload)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    /// Whatever comes: no panic, and nothing beside the pages that the frame names is written.
    #[test]
    fn no_frame_writes_beside_its_pages(
        mut records in prop::collection::vec(any_record(), 1..5),
        chunk in 0..3_u64,
        seed in any::<u64>(),
        packed in prop::collection::vec(any::<u8>(), 3 * PAGE_BYTES),
    ) {
        records.sort_by_key(|record| record.first);
        let payload: Vec<u8> = records
            .iter()
            .flat_map(|record| match record.encoding {
                PageEncoding::Lz4 | PageEncoding::Zstd | PageEncoding::Delta => {
                    packed[..record.payload_bytes as usize].to_vec()
                }
                _ => noise(seed, record.payload_bytes as usize),
            })
            .collect();
        let frame = pages(chunk, records, payload);
        let mut target = target(1);
        let landed = target.land(&frame.bytes());
        for page in target.memory.map().regions().iter().flat_map(|region| region.iter()) {
            let named = frame.records.iter().any(|record| {
                let first = chunk * 512 + u64::from(record.first);
                (first..first + u64::from(record.count)).contains(&page.get())
            });
            let is_zero = target.memory.read(page.get()) == vec![0; PAGE_BYTES];
            prop_assert!(named || is_zero);
        }
        if landed.is_err() {
            prop_assert!(target.ledger.complete().is_err());
        }
    }
}
