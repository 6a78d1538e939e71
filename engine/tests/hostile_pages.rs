//! A source whose pages are wrong: nothing of it becomes a guest, and the next guest comes in.

mod common;

use std::time::{Duration, Instant};

use limosa::{CancelToken, Custody, Endpoint, RoundKind, migrate_in};
use limosa_pages::ChunkIndex;
use limosa_wire::{HandOver, Message, MigrationId, PageEncoding, PageRecord, Round, StreamIndex};

use common::{
    Frame, PATIENCE, RawSource, TestGuest, TestHost, listen, migrate_well, quick, test_map,
};

fn record(first: u32, count: u32, encoding: PageEncoding, payload_bytes: u32) -> PageRecord {
    PageRecord {
        first,
        count,
        encoding,
        payload_bytes,
    }
}

/// What is wrong with the source's pages, once its first round has begun.
type Deed = fn(&mut RawSource);

/// Sends the good frame after a change, and the change to its sealed bytes.
fn send(source: &mut RawSource, change: impl FnOnce(&mut Frame)) {
    let mut frame = source.frame();
    change(&mut frame);
    source.streams[0].bytes(&frame.sealed());
}

fn suffer(cases: &[(&str, Deed)]) {
    let config = quick();
    let mut listener = listen(&config);
    let mut host = TestHost::default();
    for (words, deed) in cases {
        let endpoint: Endpoint = listener.endpoint().clone();
        let begun = Instant::now();
        let inbound = std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut source = RawSource::in_round(&endpoint).unwrap();
                deed(&mut source);
                source.control.drain();
            });
            let token = CancelToken::new();
            migrate_in(&mut host, &mut listener, &config, &token, &mut ())
        });
        let error = inbound.err().unwrap_or_else(|| panic!("{words}: taken in"));
        assert!(error.to_string().contains(words), "wanted {words}: {error}");
        assert_eq!(error.custody, Custody::Source, "{words}");
        assert!(begun.elapsed() < PATIENCE, "{words}: {:?}", begun.elapsed());
        assert!(!host.keeps_memory(), "{words}: guest memory is left");
    }
    let mut guest = TestGuest::running();
    migrate_well(&mut guest, &mut host, &mut listener, &config);
}

#[test]
fn frames_that_are_damaged_or_of_another_stream() {
    suffer(&[
        ("not a Limosa peer", |source| {
            source.streams[0].bytes(&[0x55; 8192]);
        }),
        ("checksum of the header", |source| {
            let mut bytes = source.frame().sealed();
            bytes[20] ^= 1;
            source.streams[0].bytes(&bytes);
        }),
        ("checksum of the table", |source| {
            let mut bytes = source.frame().sealed();
            bytes[64] ^= 1;
            source.streams[0].bytes(&bytes);
        }),
        ("checksum of the payload", |source| {
            let mut bytes = source.frame().sealed();
            bytes[5000] ^= 1;
            source.streams[0].bytes(&bytes);
        }),
        ("payload", |source| {
            send(source, |frame| {
                frame.payload = vec![0; (1 << 20) + 4096];
                frame.records = vec![record(0, 257, PageEncoding::Raw, (1 << 20) + 4096)];
            });
        }),
        ("migration", |source| {
            send(source, |frame| {
                frame.header.migration_id = MigrationId::new([8; 16]);
            });
        }),
        ("stream", |source| {
            send(source, |frame| frame.header.stream = StreamIndex::new(1));
        }),
        ("where frame 1 was next", |source| {
            send(source, |frame| frame.header.sequence = 2);
        }),
        ("where frame 1 was next", |source| {
            send(source, |frame| frame.header.sequence = 0);
        }),
        ("round", |source| {
            send(source, |frame| frame.header.round = Round::new(1));
        }),
    ]);
}

#[test]
fn pages_that_have_no_place() {
    suffer(&[
        ("does not own it", |source| {
            // Whichever arrives first, the other is one too many.
            send(source, |_| {});
            let mut frame = source.frame();
            frame.header.stream = StreamIndex::new(1);
            source.streams[1].bytes(&frame.sealed());
        }),
        // The second chunk of the first region ends inside it.
        ("not inside one region", |source| {
            send(source, |frame| frame.header.chunk = ChunkIndex::new(2));
        }),
        ("not inside one region", |source| {
            send(source, |frame| {
                frame.header.chunk = ChunkIndex::new(1 << 20);
            });
        }),
        ("record", |source| {
            send(source, |frame| {
                frame.records = vec![record(511, 2, PageEncoding::Raw, 8192)];
            });
        }),
        ("not inside one region", |source| {
            let bytes = source.absent_frame();
            let mut frame = source.frame();
            frame.header.kind = limosa_wire::FrameKind::Absent;
            frame.records = vec![record(900, 200, PageEncoding::Absent, 0)];
            frame.payload.clear();
            assert_ne!(bytes, frame.sealed());
            source.streams[0].bytes(&frame.sealed());
        }),
    ]);
}

#[test]
fn zstd_and_deltas_that_are_none() {
    suffer(&[
        ("cannot be unpacked", |source| {
            send(source, |frame| {
                frame.payload = vec![0xFF; 100];
                frame.records = vec![record(0, 1, PageEncoding::Zstd, 100)];
            });
        }),
        ("starts from other contents", |source| {
            send(source, |frame| {
                frame.payload = vec![0xFF; 4];
                frame.records = vec![record(0, 1, PageEncoding::Delta, 4)];
            });
        }),
        ("is 2, not within 1 to 1", |source| {
            send(source, |frame| {
                frame.payload = vec![0xFF; 4];
                frame.records = vec![record(0, 2, PageEncoding::Delta, 4)];
            });
        }),
        ("is 65, not within 1 to 64", |source| {
            send(source, |frame| {
                frame.payload = vec![1; 100];
                frame.records = vec![record(0, 65, PageEncoding::Zstd, 100)];
            });
        }),
    ]);
}

#[test]
fn lz4_that_is_none_or_a_bomb() {
    suffer(&[
        ("cannot be unpacked", |source| {
            send(source, |frame| {
                frame.payload = vec![0xFF; 100];
                frame.records = vec![record(0, 1, PageEncoding::Lz4, 100)];
            });
        }),
        // One token, and lengths that say 64 KiB of the byte ahead, where one page is due.
        ("cannot be unpacked", |source| {
            send(source, |frame| {
                let mut bomb = vec![0x1F, 7, 1, 0];
                bomb.extend([255; 256]);
                bomb.extend([10, 0x50, 7, 7, 7, 7, 7]);
                frame.records = vec![record(0, 1, PageEncoding::Lz4, bomb.len() as u32)];
                frame.payload = bomb;
            });
        }),
        // Less than is due.
        ("cannot be unpacked", |source| {
            send(source, |frame| {
                frame.payload = vec![0x50, 7, 7, 7, 7, 7];
                frame.records = vec![record(0, 1, PageEncoding::Lz4, 6)];
            });
        }),
        ("is 65, not within 1 to 64", |source| {
            send(source, |frame| {
                frame.payload = vec![0xFF; 100];
                frame.records = vec![record(0, 65, PageEncoding::Lz4, 100)];
            });
        }),
    ]);
}

#[test]
fn totals_that_differ() {
    let whole = test_map().page_count().get();
    assert_eq!(whole, 3100, "the totals below are of this map");
    suffer(&[
        (
            "totals of round 0 differ from what was counted here: pages",
            |source| {
                let absent = source.absent_frame();
                source.streams[0].bytes(&absent);
                source.barrier(0, 0, 2, 1);
                source.barrier(1, 0, 1, 0);
                source.round_end(0, vec![1, 0], 3099);
            },
        ),
        (
            "totals of round 0 differ from what was counted here: frames",
            |source| {
                let absent = source.absent_frame();
                source.streams[0].bytes(&absent);
                source.barrier(0, 0, 2, 1);
                source.barrier(1, 0, 1, 0);
                source.round_end(0, vec![2, 0], 3100);
            },
        ),
        ("frames came on stream 0", |source| {
            source.barrier(0, 0, 1, 4);
        }),
        // A round of pages that are not all of them: only the ledger can tell.
        ("pages never arrived", |source| {
            let good = source.frame().sealed();
            source.streams[0].bytes(&good);
            source.barrier(0, 0, 2, 1);
            source.barrier(1, 0, 1, 0);
            source.round_end(0, vec![1, 0], 2);
            let _ = source.control.hear();
            source.round_start(1, RoundKind::Final);
            source.barrier(0, 1, 3, 0);
            source.barrier(1, 1, 2, 0);
            source.round_end(1, vec![0, 0], 0);
            source.state();
        }),
    ]);
}

/// Rounds that nobody announced must not confuse the target.
#[test]
fn streams_that_run_ahead_of_the_control_link() {
    suffer(&[
        ("round", |source| {
            let absent = source.absent_frame();
            source.streams[0].bytes(&absent);
            source.barrier(0, 0, 2, 1);
            source.barrier(1, 0, 1, 0);
            source.barrier(0, 1, 3, 0);
            source.barrier(1, 1, 2, 0);
            source.control.only_live(Duration::from_millis(300));
        }),
        // The same, once the target has taken down that the first round landed.
        ("it spoke of round 1 where 0 was due", |source| {
            let absent = source.absent_frame();
            source.streams[0].bytes(&absent);
            source.barrier(0, 0, 2, 1);
            source.barrier(1, 0, 1, 0);
            std::thread::sleep(Duration::from_millis(100));
            source.barrier(0, 1, 3, 0);
            source.barrier(1, 1, 2, 0);
            source.control.only_live(Duration::from_millis(300));
        }),
        ("round", |source| {
            let _ = source.empty_round();
            source.barrier(0, 1, 3, 0);
            source.barrier(1, 1, 2, 0);
            source.barrier(0, 2, 4, 0);
            source.barrier(1, 2, 3, 0);
            source.control.only_live(Duration::from_millis(300));
        }),
        // Pages after everything was checked, and before the guest is handed over.
        ("after the last round", |source| {
            let _ = source.empty_round();
            source.round_start(1, RoundKind::Final);
            source.barrier(0, 1, 3, 0);
            source.barrier(1, 1, 2, 0);
            source.round_end(1, vec![0, 0], 0);
            source.state();
            let _ = (source.control.hear(), source.control.hear());
            send(source, |frame| {
                frame.header.sequence = 4;
                frame.header.round = Round::new(2);
            });
            std::thread::sleep(Duration::from_millis(100));
            source.control.say(&Message::HandOver(HandOver {}));
        }),
    ]);
}
