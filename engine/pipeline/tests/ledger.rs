//! The ledger's one answer: each way in which a migration can be incomplete is told apart.

mod common;

use std::sync::Arc;

use common::{TestError, TestMemory, Wire, corridor, keep, lander, map_of, no_rearm, noise};
use limosa_pages::{ChunkIndex, PAGE_BYTES, PageCount, PageIndex, PageSet};
use limosa_pipeline::{
    ChunkWork, Gap, GuestMemory, LandError, Landed, Lander, Ledger, OpenError, PackConfig,
    PackError, StreamReport, scan,
};
use limosa_wire::{Barrier, EncodingCounts, Round, StreamIndex};

const STREAMS: u16 = 2;

/// What each stream carries of a round, recorded.
struct Recorded {
    source: Arc<TestMemory>,
    target: Arc<TestMemory>,
    ledger: Arc<Ledger>,
    landers: Vec<Lander>,
    tapes: Vec<Vec<u8>>,
    reports: Vec<StreamReport>,
}

/// Round 0 of a guest of four chunks with a few pages, not landed yet.
fn recorded(pages_of: impl Fn(&TestMemory) -> PageSet) -> Recorded {
    let map = map_of(&[(0, 2048)]);
    let (source, target) = (TestMemory::new(&map), TestMemory::new(&map));
    for page in (0..2048).step_by(100) {
        source.write(page, &noise(page, PAGE_BYTES));
    }
    let ledger = Arc::new(Ledger::new(&map, STREAMS));
    let work = scan(&pages_of(&source), &map, STREAMS);
    let mut recorded = Recorded {
        landers: (0..STREAMS)
            .map(|stream| lander(&target, &ledger, stream))
            .collect(),
        source,
        target,
        ledger,
        tapes: Vec::new(),
        reports: Vec::new(),
    };
    for stream in 0..STREAMS {
        let mut corridor = corridor(&recorded.source, stream, STREAMS, &PackConfig::default());
        let mut tape = Vec::new();
        let work = &work[usize::from(stream)];
        let report = corridor.run_round::<TestError>(
            Round::FIRST,
            work,
            &mut no_rearm,
            &mut keep(&mut tape),
        );
        recorded.tapes.push(tape);
        recorded.reports.push(report.unwrap());
    }
    recorded
}

impl Recorded {
    fn land(&mut self, stream: usize, bytes: &[u8]) -> Result<Option<Landed>, LandError> {
        let mut wire = Wire(bytes.iter().copied().collect());
        let mut last = None;
        loop {
            match self.landers[stream].land(&mut wire) {
                Ok(landed) => last = Some(landed),
                Err(TestError::Land(error)) => return Err(error),
                Err(_) => return Ok(last),
            }
        }
    }

    fn land_all(&mut self) {
        for stream in 0..self.tapes.len() {
            let tape = self.tapes[stream].clone();
            self.land(stream, &tape).unwrap();
        }
    }

    fn frames(&self) -> Vec<u64> {
        self.reports
            .iter()
            .map(|report| report.frame_count)
            .collect()
    }

    fn pages(&self) -> EncodingCounts {
        self.reports.iter().map(|report| report.pages).sum()
    }

    fn confirm(&self) -> Result<(), Gap> {
        self.ledger
            .confirm(Round::FIRST, &self.frames(), self.pages().total())
    }
}

fn full(memory: &TestMemory) -> PageSet {
    memory.map().full_set()
}

#[test]
fn a_whole_round_is_complete() {
    let mut recorded = recorded(full);
    recorded.land_all();
    let totals = recorded.ledger.landed(Round::FIRST).unwrap();
    assert_eq!(totals.frame_counts, recorded.frames());
    assert_eq!(totals.pages, recorded.pages());
    assert_eq!(
        recorded.ledger.complete(),
        Err(Gap::TotalsMissing {
            round: Round::FIRST
        })
    );
    recorded.confirm().unwrap();
    assert_eq!(recorded.ledger.complete(), Ok(()));
    assert_eq!(recorded.ledger.round(), Round::new(1));
    assert_eq!(recorded.source.first_difference(&recorded.target), None);
}

#[test]
fn before_the_first_round_nothing_is_complete() {
    let ledger = Ledger::new(&map_of(&[(0, 10)]), 1);
    let (stream, round) = (StreamIndex::new(0), Round::FIRST);
    assert_eq!(
        ledger.complete(),
        Err(Gap::BarrierMissing { stream, round })
    );
    assert_eq!(ledger.landed(round), None);
}

#[test]
fn a_page_that_never_came_is_missed() {
    let mut recorded = recorded(|memory| {
        let mut pages = full(memory);
        pages.remove_range(common::range(900, 3));
        pages
    });
    recorded.land_all();
    recorded.confirm().unwrap();
    let (first, count) = (PageIndex::new(900), PageCount::new(3));
    assert_eq!(
        recorded.ledger.complete(),
        Err(Gap::PagesMissing { first, count })
    );
}

#[test]
fn a_missing_barrier_is_missed() {
    let mut recorded = recorded(full);
    let tape = recorded.tapes[0].clone();
    recorded.land(0, &tape).unwrap();
    let without = recorded.tapes[1].len() - 72;
    let tape = recorded.tapes[1][..without].to_vec();
    recorded.land(1, &tape).unwrap();
    let (stream, round) = (StreamIndex::new(1), Round::FIRST);
    let gap = Gap::BarrierMissing { stream, round };
    assert_eq!(recorded.ledger.landed(round), None);
    assert_eq!(recorded.confirm(), Err(gap));
    assert_eq!(recorded.ledger.complete(), Err(gap));
}

#[test]
fn a_later_round_that_is_half_here_is_not_complete() {
    let mut recorded = recorded(full);
    recorded.land_all();
    recorded.confirm().unwrap();
    let round = Round::new(1);
    let sequence = recorded.reports[0].frame_count + 2;
    let stream = StreamIndex::new(0);
    let barrier = Barrier { frame_count: 0 };
    let frame = barrier.frame(common::MIGRATION, stream, round, sequence);
    recorded.land(0, &frame).unwrap();
    let gap = Gap::BarrierMissing {
        stream: StreamIndex::new(1),
        round,
    };
    assert_eq!(recorded.ledger.complete(), Err(gap));
}

#[test]
fn a_skipped_frame_is_a_gap_for_good() {
    let mut recorded = recorded(full);
    let header = limosa_wire::FrameHeader::decode(recorded.tapes[0].first_chunk().unwrap());
    let behind_first = recorded.tapes[0][header.unwrap().frame_bytes()..].to_vec();
    let error = recorded.land(0, &behind_first).unwrap_err();
    let stream = StreamIndex::new(0);
    let LandError::Open(error) = error else {
        panic!("{error}")
    };
    assert_eq!(
        error,
        OpenError::SequenceGap {
            stream,
            expected: 1,
            found: 2
        }
    );
    let gap = Gap::StreamBroken {
        stream,
        round: Round::FIRST,
    };
    assert_eq!(recorded.ledger.complete(), Err(gap));
}

#[test]
fn a_repeated_frame_is_a_gap_for_good() {
    let mut recorded = recorded(full);
    let header = limosa_wire::FrameHeader::decode(recorded.tapes[0].first_chunk().unwrap());
    let first = recorded.tapes[0][..header.unwrap().frame_bytes()].to_vec();
    recorded.land(0, &first).unwrap();
    let error = recorded.land(0, &first).unwrap_err();
    assert!(matches!(
        error,
        LandError::Open(OpenError::SequenceGap {
            expected: 2,
            found: 1,
            ..
        })
    ));
    assert!(matches!(
        recorded.ledger.complete(),
        Err(Gap::StreamBroken { .. })
    ));
}

#[test]
fn totals_that_differ_are_told_apart() {
    let mut recorded = recorded(full);
    recorded.land_all();
    let (ledger, frames, pages) = (
        &recorded.ledger,
        recorded.frames(),
        recorded.pages().total(),
    );
    let round = Round::FIRST;
    let mut more = frames.clone();
    more[1] += 1;
    let gap = Gap::FramesDiffer {
        stream: StreamIndex::new(1),
        round,
        counted: frames[1],
        claimed: frames[1] + 1,
    };
    assert_eq!(ledger.confirm(round, &more, pages), Err(gap));
    let gap = Gap::PagesDiffer {
        round,
        counted: pages,
        claimed: pages + 1,
    };
    assert_eq!(ledger.confirm(round, &frames, pages + 1), Err(gap));
    let gap = Gap::StreamsDiffer {
        expected: 2,
        claimed: 1,
    };
    assert_eq!(ledger.confirm(round, &frames[..1], pages), Err(gap));
    assert_eq!(ledger.complete(), Err(Gap::TotalsMissing { round }));
    let later = ledger.confirm(Round::new(1), &frames, pages);
    assert!(matches!(later, Err(Gap::BarrierMissing { .. })));
}

#[test]
fn a_barrier_that_tells_another_number_is_refused() {
    let mut recorded = recorded(full);
    let (stream, round) = (StreamIndex::new(0), Round::FIRST);
    let barrier = Barrier { frame_count: 3 };
    let frame = barrier.frame(common::MIGRATION, stream, round, 1);
    let error = recorded.land(0, &frame).unwrap_err();
    assert!(matches!(
        error,
        LandError::BarrierDiffers {
            expected: 3,
            found: 0,
            ..
        }
    ));
    assert!(matches!(
        recorded.ledger.complete(),
        Err(Gap::StreamBroken { .. })
    ));
}

#[test]
fn a_stream_may_not_run_ahead_of_the_others() {
    let mut recorded = recorded(full);
    let tape = recorded.tapes[0].clone();
    recorded.land(0, &tape).unwrap();
    let (stream, found) = (StreamIndex::new(0), Round::new(1));
    let sequence = recorded.reports[0].frame_count + 2;
    let frame = Barrier { frame_count: 0 }.frame(common::MIGRATION, stream, found, sequence);
    let error = recorded.land(0, &frame).unwrap_err();
    let LandError::Open(error) = error else {
        panic!("{error}")
    };
    let expected = Round::FIRST;
    assert_eq!(
        error,
        OpenError::WrongRound {
            stream,
            expected,
            found
        }
    );
}

#[test]
fn a_corridor_refuses_what_another_stream_owns() {
    let memory = TestMemory::new(&map_of(&[(0, 2048)]));
    let owners = common::owners_of(&memory, 2);
    owners.take(ChunkIndex::new(1), StreamIndex::new(1), 0);
    let mut corridor = common::corridor_beside(&memory, 0, &owners, &PackConfig::default());
    let work = ChunkWork {
        chunk: ChunkIndex::new(1),
        pages: limosa_pages::ChunkPages::FULL,
    };
    let mut bytes = Vec::new();
    let sent = corridor.run_round::<TestError>(
        Round::FIRST,
        &[work],
        &mut no_rearm,
        &mut keep(&mut bytes),
    );
    assert!(matches!(
        sent,
        Err(TestError::Pack(PackError::NotOwner { .. }))
    ));
    assert!(bytes.is_empty());
}
