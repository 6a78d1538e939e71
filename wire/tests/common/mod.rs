//! Messages and frames for the tests: some of every kind by hand, and any at all by strategy. It
//! tests nothing itself.
#![allow(dead_code, reason = "each test file uses its own part of this one")]

use limosa_pages::{ChunkIndex, MemoryMap, PageCount, PageIndex, PageRange};
use limosa_wire::limits::{BLOCK_PAGES_MAX, FRAME_RECORDS_MAX};
use limosa_wire::{
    Abort, AbortReason, Agreed, Barrier, Bind, DecodeError, ENVELOPE_BYTES, EncodingSet, Envelope,
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, HandOver, Hello, KeepAlive, Message, MigrationId,
    Offer, PageEncoding, PageRecord, Prepared, ProtocolVersion, Reason, ReasonKind, Refuse, Round,
    RoundEnd, RoundKind, RoundLanded, RoundStart, Running, SectionKind, State, StateSection,
    StreamIndex, StreamSecret, StreamsBound, Verdict, VersionRange, checksum, decode_table,
    encode_table,
};
use proptest::prelude::*;

/// Reads a message as a receiver does: the envelope, then as many bytes as it says.
pub(crate) fn decode_message(bytes: &[u8]) -> Option<Result<Message, DecodeError>> {
    let (front, body) = bytes.split_first_chunk::<ENVELOPE_BYTES>()?;
    Some(Envelope::decode(front).and_then(|envelope| Message::decode(&envelope, body)))
}

/// Gives damaged bytes of a message the length and checksums that they should have.
pub(crate) fn reseal_message(bytes: &mut [u8]) {
    let Some((front, body)) = bytes.split_first_chunk_mut::<ENVELOPE_BYTES>() else {
        return;
    };
    front[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    front[16..20].copy_from_slice(&checksum(body).to_le_bytes());
    let covered = [&front[..12], &front[16..]].concat();
    front[12..16].copy_from_slice(&checksum(&covered).to_le_bytes());
}

/// A frame as a receiver sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) records: Vec<PageRecord>,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The frame with header fields that fit the rest.
    pub(crate) fn sealed(
        mut header: FrameHeader,
        records: Vec<PageRecord>,
        payload: Vec<u8>,
    ) -> Self {
        let mut table = Vec::new();
        encode_table(&records, &mut table);
        header.record_count = records.len() as u16;
        header.payload_bytes = payload.len() as u32;
        header.table_crc = checksum(&table);
        header.payload_crc = checksum(&payload);
        Self {
            header,
            records,
            payload,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut front = [0; FRAME_HEADER_BYTES];
        self.header.encode(&mut front);
        let mut bytes = front.to_vec();
        encode_table(&self.records, &mut bytes);
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Reads a frame as a receiver does. `None` where there are fewer bytes than the header says.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Result<Self, DecodeError>> {
        let (front, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let header = match FrameHeader::decode(front) {
            Ok(header) => header,
            Err(error) => return Some(Err(error)),
        };
        let (table, rest) = rest.split_at_checked(header.table_bytes())?;
        let (payload, _) = rest.split_at_checked(header.payload_bytes as usize)?;
        let mut records = Vec::new();
        let decoded = match header.kind {
            FrameKind::Bind => Bind::decode(&header, payload).map(drop),
            FrameKind::Barrier => Barrier::decode(&header, payload).map(drop),
            FrameKind::Pages | FrameKind::Absent => decode_table(&header, table, &mut records)
                .and_then(|()| header.check_payload(payload)),
        };
        Some(decoded.map(|()| Self {
            header,
            records,
            payload: payload.to_vec(),
        }))
    }
}

/// Gives damaged bytes of a frame the checksums that they should have.
pub(crate) fn reseal_frame(bytes: &mut [u8]) {
    let Some((front, rest)) = bytes.split_first_chunk_mut::<FRAME_HEADER_BYTES>() else {
        return;
    };
    let table_bytes = usize::from(u16::from_le_bytes([front[26], front[27]])) * 16;
    if let Some((table, payload)) = rest.split_at_checked(table_bytes) {
        front[52..56].copy_from_slice(&checksum(table).to_le_bytes());
        front[56..60].copy_from_slice(&checksum(payload).to_le_bytes());
    }
    reseal_header(front);
}

/// Gives a damaged frame header the checksum that it should have.
pub(crate) fn reseal_header(front: &mut [u8; FRAME_HEADER_BYTES]) {
    let crc = checksum(&front[..60]);
    front[60..].copy_from_slice(&crc.to_le_bytes());
}

pub(crate) fn header(kind: FrameKind) -> FrameHeader {
    FrameHeader {
        kind,
        migration_id: MigrationId::new(*b"sixteen bytes id"),
        stream: StreamIndex::new(3),
        round: Round::FIRST,
        sequence: 7,
        chunk: ChunkIndex::new(if kind == FrameKind::Pages { 19 } else { 0 }),
        record_count: 0,
        payload_bytes: 0,
        table_crc: 0,
        payload_crc: 0,
    }
}

pub(crate) fn record(
    first: u32,
    count: u32,
    encoding: PageEncoding,
    payload_bytes: u32,
) -> PageRecord {
    PageRecord {
        first,
        count,
        encoding,
        payload_bytes,
    }
}

/// One frame of every kind, by name.
pub(crate) fn frame_examples() -> Vec<(&'static str, Vec<u8>)> {
    let id = MigrationId::new(*b"sixteen bytes id");
    let bind = Bind {
        secret: StreamSecret::new([0xa5; 16]),
        stream_count: 4,
    };
    let barrier = Barrier { frame_count: 6 };
    let pages = vec![
        record(0, 3, PageEncoding::Zero, 0),
        record(3, 1, PageEncoding::Raw, 4096),
        record(100, 64, PageEncoding::Lz4, 20),
        record(511, 1, PageEncoding::Zero, 0),
    ];
    let absent = vec![
        record(5, 1, PageEncoding::Absent, 0),
        record(0x10_0000, u32::MAX - 0x10_0000, PageEncoding::Absent, 0),
    ];
    let payload = (0..4116u32).map(|n| (n / 16) as u8).collect();
    vec![
        ("bind", bind.frame(id, StreamIndex::new(3)).to_vec()),
        (
            "pages",
            Frame::sealed(header(FrameKind::Pages), pages, payload).encode(),
        ),
        (
            "absent",
            Frame::sealed(header(FrameKind::Absent), absent, vec![]).encode(),
        ),
        (
            "barrier",
            barrier
                .frame(id, StreamIndex::new(3), Round::new(2), 14)
                .to_vec(),
        ),
    ]
}

fn map_of(regions: &[(u64, u64)]) -> MemoryMap {
    let region = |(start, count): &(u64, u64)| {
        PageRange::from_start_count(PageIndex::new(*start), PageCount::new(*count)).unwrap()
    };
    MemoryMap::new(regions.iter().map(region).collect()).unwrap()
}

fn section(name: &str, version: u16) -> SectionKind {
    SectionKind {
        name: name.into(),
        version,
    }
}

fn offer_example() -> Offer {
    Offer {
        cpu: (0..64).collect(),
        map: map_of(&[(0, 0xa0), (0x100, 0xbff00), (0x10_0000, 0x4_0000)]),
        vcpu_count: 4,
        sections: vec![section("kvm-vcpu", 1), section("kvm-clock", 2)],
        stream_count: 8,
        // Those of the first version: what is kept does not change when encodings are added.
        encodings: EncodingSet::from_bits(0b1_1110),
        machine: "kvm-x86".into(),
    }
}

const CPU_DIGEST: u64 = 0x0123_4567_89ab_cdef;

fn accepted_example() -> Verdict {
    Verdict::Accepted {
        stream_count: 4,
        encodings: EncodingSet::from_bits(0b0_1110),
        secret: StreamSecret::new([0xa5; 16]),
        host: (0..48).rev().collect(),
        cpu_digest: CPU_DIGEST,
    }
}

fn reasons_example() -> Vec<Reason> {
    let reason = |kind, what: &str, remedy: &str| {
        let (what, remedy) = (what.into(), remedy.into());
        Reason { kind, what, remedy }
    };
    vec![
        reason(
            ReasonKind::Cpu,
            "the guest sees avx512f",
            "start the guest with a baseline",
        ),
        reason(
            ReasonKind::Memory,
            "64 GiB are not free here — 12 GiB are",
            "",
        ),
    ]
}

fn state_example() -> State {
    let vcpu = StateSection {
        kind: section("kvm-vcpu", 1),
        bytes: vec![7; 300],
    };
    let clock = StateSection {
        kind: section("kvm-clock", 2),
        bytes: vec![],
    };
    State {
        cpu_digest: CPU_DIGEST,
        sections: vec![vcpu, clock],
    }
}

fn hello_example() -> Hello {
    Hello {
        versions: VersionRange {
            oldest: ProtocolVersion::new(1),
            newest: ProtocolVersion::new(3),
        },
        migration_id: MigrationId::new(*b"sixteen bytes id"),
        agent: "limosa 0.1.0".into(),
    }
}

/// One message of every kind, and both verdicts, by name.
pub(crate) fn message_examples() -> Vec<(&'static str, Message)> {
    let (round, pages) = (Round::new(2), 1234);
    let (cpu_digest, reasons) = (CPU_DIGEST, reasons_example());
    let refused = Verdict::Refused {
        reasons: reasons.clone(),
    };
    let abort = Abort {
        reason: AbortReason::Cancelled,
        text: "the operator changed plans".into(),
    };
    vec![
        ("hello", Message::Hello(hello_example())),
        ("offer", Message::Offer(offer_example())),
        ("accepted", Message::Verdict(accepted_example())),
        ("refused", Message::Verdict(refused)),
        ("agreed", Message::Agreed(Agreed { cpu_digest })),
        ("refuse", Message::Refuse(Refuse { reasons })),
        (
            "streams-bound",
            Message::StreamsBound(StreamsBound { stream_count: 4 }),
        ),
        (
            "round-start",
            Message::RoundStart(RoundStart {
                round,
                kind: RoundKind::Live,
            }),
        ),
        (
            "round-end",
            Message::RoundEnd(RoundEnd {
                round,
                frames: vec![9, 8, 7, 0],
                pages,
            }),
        ),
        (
            "round-landed",
            Message::RoundLanded(RoundLanded { round, pages }),
        ),
        ("state", Message::State(state_example())),
        ("prepared", Message::Prepared(Prepared { cpu_digest })),
        ("hand-over", Message::HandOver(HandOver {})),
        ("running", Message::Running(Running {})),
        ("abort", Message::Abort(abort)),
        ("keep-alive", Message::KeepAlive(KeepAlive { sequence: 41 })),
    ]
}

fn text(bytes_max: usize) -> impl Strategy<Value = String> {
    "\\PC{0,80}".prop_map(move |text| limosa_wire::codec::readable(&text, bytes_max))
}

fn section_kind() -> impl Strategy<Value = SectionKind> {
    ("[ -~]{1,32}", any::<u16>()).prop_map(|(name, version)| SectionKind { name, version })
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn offer() -> impl Strategy<Value = Offer> {
    let map = proptest::collection::vec((0..100u64, 1..5000u64), 1..20).prop_map(|gaps| {
        let mut end = 0;
        let place = |(gap, count): &(u64, u64)| {
            let start = end + gap;
            end = start + count;
            (start, *count)
        };
        map_of(&gaps.iter().map(place).collect::<Vec<_>>())
    });
    let cpu = proptest::collection::vec(any::<u8>(), 0..400);
    let sections = proptest::collection::vec(section_kind(), 0..8);
    (
        cpu,
        map,
        any::<u16>(),
        sections,
        1..=64u16,
        any::<u32>(),
        "[ -~]{1,32}",
    )
        .prop_map(
            |(cpu, map, vcpu_count, sections, stream_count, bits, machine)| {
                let encodings = EncodingSet::from_bits(bits);
                Offer {
                    cpu,
                    map,
                    vcpu_count,
                    sections,
                    stream_count,
                    encodings,
                    machine,
                }
            },
        )
}

fn reasons() -> impl Strategy<Value = Vec<Reason>> {
    let reason = (one_of(ReasonKind::ALL), text(512), text(512))
        .prop_map(|(kind, what, remedy)| Reason { kind, what, remedy });
    proptest::collection::vec(reason, 0..10)
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let host = proptest::collection::vec(any::<u8>(), 0..400);
    let numbers = (1..=64u16, any::<u32>(), any::<u64>());
    let accepted = (numbers, any::<[u8; 16]>(), host).prop_map(
        |((stream_count, bits, cpu_digest), secret, host)| Verdict::Accepted {
            stream_count,
            encodings: EncodingSet::from_bits(bits),
            secret: StreamSecret::new(secret),
            host,
            cpu_digest,
        },
    );
    prop_oneof![
        accepted,
        reasons().prop_map(|reasons| Verdict::Refused { reasons })
    ]
}

/// Any message that may be sent.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    let hello = (any::<u16>(), any::<u16>(), any::<[u8; 16]>(), "[ -~]{1,64}").prop_map(
        |(a, b, id, agent)| Hello {
            versions: VersionRange {
                oldest: ProtocolVersion::new(a.min(b)),
                newest: ProtocolVersion::new(a.max(b)),
            },
            migration_id: MigrationId::new(id),
            agent,
        },
    );
    let section = (
        section_kind(),
        proptest::collection::vec(any::<u8>(), 0..200),
    )
        .prop_map(|(kind, bytes)| StateSection { kind, bytes });
    let sections = proptest::collection::vec(section, 0..8);
    let state = (any::<u64>(), sections).prop_map(|(cpu_digest, sections)| State {
        cpu_digest,
        sections,
    });
    let round = || any::<u32>().prop_map(Round::new);
    let frames = proptest::collection::vec(any::<u64>(), 0..=64);
    prop_oneof![
        hello.prop_map(Message::Hello),
        offer().prop_map(Message::Offer),
        verdict().prop_map(Message::Verdict),
        (1..=64u16).prop_map(|stream_count| Message::StreamsBound(StreamsBound { stream_count })),
        (round(), one_of(RoundKind::ALL))
            .prop_map(|(round, kind)| Message::RoundStart(RoundStart { round, kind })),
        (round(), frames, any::<u64>()).prop_map(|(round, frames, pages)| {
            Message::RoundEnd(RoundEnd {
                round,
                frames,
                pages,
            })
        }),
        (round(), any::<u64>())
            .prop_map(|(round, pages)| Message::RoundLanded(RoundLanded { round, pages })),
        state.prop_map(Message::State),
        any::<u64>().prop_map(|cpu_digest| Message::Prepared(Prepared { cpu_digest })),
        any::<u64>().prop_map(|cpu_digest| Message::Agreed(Agreed { cpu_digest })),
        reasons().prop_map(|reasons| Message::Refuse(Refuse { reasons })),
        Just(Message::HandOver(HandOver {})),
        Just(Message::Running(Running {})),
        (one_of(AbortReason::ALL), text(1024))
            .prop_map(|(reason, text)| Message::Abort(Abort { reason, text })),
        any::<u64>().prop_map(|sequence| Message::KeepAlive(KeepAlive { sequence })),
    ]
}

/// Turns random triples of gap, count and shape into records that obey every rule.
fn lay_out(shapes: &[(u32, u32, u8)], absent: bool) -> Vec<PageRecord> {
    let (mut end, mut payload) = (0u32, 0u32);
    let mut records = Vec::new();
    for (gap, count, shape) in shapes.iter().take(FRAME_RECORDS_MAX.into()) {
        let first = end + gap;
        let count = if absent {
            *count
        } else {
            (*count).min(512u32.saturating_sub(first))
        };
        let (encoding, count, payload_bytes) = match shape % 6 {
            _ if absent => (PageEncoding::Absent, count, 0),
            0 => (PageEncoding::Zero, count, 0),
            1 => (PageEncoding::Raw, count, count * 4096),
            2 => (PageEncoding::Constant, count, 8),
            3 => (PageEncoding::Delta, count.min(1), 4 + u32::from(*shape)),
            block => {
                let count = count.min(BLOCK_PAGES_MAX);
                let encoding = [PageEncoding::Lz4, PageEncoding::Zstd][block as usize - 4];
                let bytes = u32::from(*shape) * 16 + 1;
                (encoding, count, bytes.min((count * 4096).saturating_sub(1)))
            }
        };
        payload += payload_bytes;
        if count == 0 || payload > 200_000 {
            break;
        }
        records.push(record(first, count, encoding, payload_bytes));
        end = first + count;
    }
    records
}

/// Any `Pages` or `Absent` frame that may be sent, payloads kept small.
pub(crate) fn frame() -> impl Strategy<Value = Frame> {
    let shapes = proptest::collection::vec((0..20u32, 1..20u32, any::<u8>()), 1..60);
    let ids = (
        any::<[u8; 16]>(),
        0..64u16,
        any::<u32>(),
        any::<u64>(),
        0..1u64 << 23,
    );
    (shapes, ids, any::<bool>(), any::<u8>()).prop_map(
        |(mut shapes, (id, stream, round, sequence, chunk), absent, fill)| {
            shapes[0].2 &= !1;
            let mut records = lay_out(&shapes, absent);
            if records.is_empty() {
                records.push(record(0, 1, PageEncoding::Zero, 0));
            }
            let payload_bytes: u32 = records.iter().map(|record| record.payload_bytes).sum();
            let kind = if absent {
                FrameKind::Absent
            } else {
                FrameKind::Pages
            };
            let header = FrameHeader {
                migration_id: MigrationId::new(id),
                stream: StreamIndex::new(stream),
                round: if absent {
                    Round::FIRST
                } else {
                    Round::new(round)
                },
                sequence,
                chunk: ChunkIndex::new(if absent { 0 } else { chunk }),
                ..header(kind)
            };
            Frame::sealed(header, records, vec![fill; payload_bytes as usize])
        },
    )
}
