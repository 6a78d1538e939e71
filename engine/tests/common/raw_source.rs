//! A source by hand, that can do each step rightly and any of them wrongly.

use limosa::{Endpoint, Offer, RoundKind};
use limosa_pages::ChunkIndex;
use limosa_wire::{
    Agreed, Barrier, Bind, EncodingSet, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Hello, Message,
    MigrationId, PageEncoding, PageRecord, Round, RoundEnd, RoundStart, StateSection, StreamIndex,
    StreamSecret, Verdict, VersionRange, checksum, encode_table,
};

use super::cpu::digest;
use super::guest::{offer_of, test_map};
use super::raw::{Raw, RawError};

/// A frame of pages, to be made wrong.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) records: Vec<PageRecord>,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Its bytes, with every checksum right.
    pub(crate) fn sealed(&self) -> Vec<u8> {
        let mut table = Vec::new();
        encode_table(&self.records, &mut table);
        let absent = self.header.kind == FrameKind::Absent;
        let header = FrameHeader {
            record_count: self.records.len() as u16,
            payload_bytes: self.payload.len() as u32,
            table_crc: checksum(&table),
            payload_crc: if absent { 0 } else { checksum(&self.payload) },
            ..self.header
        };
        let mut front = [0; FRAME_HEADER_BYTES];
        header.encode(&mut front);
        [&front[..], &table, &self.payload].concat()
    }
}

pub(crate) fn record(first: u32, count: u32, encoding: PageEncoding, bytes: usize) -> PageRecord {
    PageRecord {
        first,
        count,
        encoding,
        payload_bytes: bytes as u32,
    }
}

/// The source.
pub(crate) struct RawSource {
    pub(crate) endpoint: Endpoint,
    pub(crate) control: Raw,
    pub(crate) id: MigrationId,
    pub(crate) secret: StreamSecret,
    pub(crate) stream_count: u16,
    pub(crate) streams: Vec<Raw>,
}

impl RawSource {
    pub(crate) fn connect(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: endpoint.clone(),
            control: Raw::connect(endpoint),
            id: MigrationId::new([7; 16]),
            secret: StreamSecret::new([0; 16]),
            stream_count: 2,
            streams: Vec::new(),
        }
    }

    pub(crate) fn hello(&mut self) -> Result<(), RawError> {
        let (versions, migration_id) = (VersionRange::SUPPORTED, self.id);
        let agent = "by hand".into();
        self.control.say(&Message::Hello(Hello {
            versions,
            migration_id,
            agent,
        }));
        self.control.hear().map(drop)
    }

    pub(crate) fn offer(&self) -> Offer {
        Offer {
            stream_count: self.stream_count,
            encodings: EncodingSet::ALL,
            ..offer_of(&test_map())
        }
    }

    /// Until the verdict.
    pub(crate) fn accepted(mut self) -> Result<Self, RawError> {
        self.hello()?;
        let offer = self.offer();
        self.control.say(&Message::Offer(offer));
        let Message::Verdict(Verdict::Accepted { secret, .. }) = self.control.hear()? else {
            return Err(RawError);
        };
        self.secret = secret;
        Ok(self)
    }

    /// Until the source has said that it agrees.
    pub(crate) fn agreed(self) -> Result<Self, RawError> {
        let mut source = self.accepted()?;
        source.agree(digest());
        Ok(source)
    }

    pub(crate) fn agree(&mut self, cpu_digest: u64) {
        self.control.say(&Message::Agreed(Agreed { cpu_digest }));
    }

    /// Opens a stream that shows these things of itself.
    pub(crate) fn open_as(&mut self, id: MigrationId, secret: StreamSecret, stream: u16) {
        let stream_count = self.stream_count;
        let bind = Bind {
            secret,
            stream_count,
        };
        let mut raw = Raw::connect(&self.endpoint);
        raw.bytes(&bind.frame(id, StreamIndex::new(stream)));
        self.streams.push(raw);
    }

    /// Until all page streams are bound.
    pub(crate) fn bound(endpoint: &Endpoint) -> Result<Self, RawError> {
        let mut source = Self::connect(endpoint).agreed()?;
        for stream in 0..source.stream_count {
            source.open_as(source.id, source.secret, stream);
        }
        match source.control.hear()? {
            Message::StreamsBound(_) => Ok(source),
            _ => Err(RawError),
        }
    }

    /// Until the first round has begun.
    pub(crate) fn in_round(endpoint: &Endpoint) -> Result<Self, RawError> {
        let mut source = Self::bound(endpoint)?;
        source.round_start(0, RoundKind::Full);
        Ok(source)
    }

    pub(crate) fn round_start(&mut self, round: u32, kind: RoundKind) {
        let round = Round::new(round);
        self.control
            .say(&Message::RoundStart(RoundStart { round, kind }));
    }

    /// A good frame on stream 0: two raw pages of chunk 0.
    pub(crate) fn frame(&self) -> Frame {
        Frame {
            header: FrameHeader {
                kind: FrameKind::Pages,
                migration_id: self.id,
                stream: StreamIndex::new(0),
                round: Round::FIRST,
                sequence: 1,
                chunk: ChunkIndex::new(0),
                record_count: 0,
                payload_bytes: 0,
                table_crc: 0,
                payload_crc: 0,
            },
            records: vec![record(3, 2, PageEncoding::Raw, 8192)],
            payload: vec![5; 8192],
        }
    }

    pub(crate) fn barrier(&mut self, stream: u16, round: u32, sequence: u64, frame_count: u64) {
        let (index, round) = (StreamIndex::new(stream), Round::new(round));
        let frame = Barrier { frame_count }.frame(self.id, index, round, sequence);
        self.streams[usize::from(stream)].bytes(&frame);
    }

    /// A whole first round, in which every page is absent.
    pub(crate) fn empty_round(&mut self) -> Result<(), RawError> {
        let absent = self.absent_frame();
        self.streams[0].bytes(&absent);
        self.barrier(0, 0, 2, 1);
        self.barrier(1, 0, 1, 0);
        self.round_end(0, vec![1, 0], test_map().page_count().get());
        self.control.hear().map(drop)
    }

    /// Every page is absent, said on stream 0 at its first place.
    pub(crate) fn absent_frame(&self) -> Vec<u8> {
        let map = test_map();
        let mut frame = self.frame();
        frame.header.kind = FrameKind::Absent;
        let all = map.regions().iter();
        let all = all.map(|region| {
            let (first, count) = (region.start().get() as u32, region.count().get() as u32);
            record(first, count, PageEncoding::Absent, 0)
        });
        frame.records = all.collect();
        frame.payload.clear();
        frame.sealed()
    }

    pub(crate) fn round_end(&mut self, round: u32, frames: Vec<u64>, pages: u64) {
        let round = Round::new(round);
        self.control.say(&Message::RoundEnd(RoundEnd {
            round,
            frames,
            pages,
        }));
    }

    /// Two rounds without a page that is not absent, and the state: until the target has it all.
    pub(crate) fn prepared(endpoint: &Endpoint) -> Result<Self, RawError> {
        let mut source = Self::in_round(endpoint)?;
        source.empty_round()?;
        source.round_start(1, RoundKind::Final);
        source.barrier(0, 1, 3, 0);
        source.barrier(1, 1, 2, 0);
        source.round_end(1, vec![0, 0], 0);
        source.state();
        source.control.hear()?;
        match source.control.hear()? {
            Message::Prepared(_) => Ok(source),
            _ => Err(RawError),
        }
    }

    pub(crate) fn state(&mut self) {
        self.state_of(digest());
    }

    /// State that says to belong to this processor.
    pub(crate) fn state_of(&mut self, cpu_digest: u64) {
        let kinds = offer_of(&test_map()).sections.into_iter();
        let sections = kinds.map(|kind| {
            let bytes = vec![1; 8];
            StateSection { kind, bytes }
        });
        let sections = sections.collect();
        self.control.say(&Message::State(limosa_wire::State {
            cpu_digest,
            sections,
        }));
    }
}
