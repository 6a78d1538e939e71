//! A guest moves while it writes, over every kind of link, and arrives whole.

mod common;

use limosa::{CancelToken, Codec, Event, Moment, OnStall};
use std::time::Duration;

use common::{
    ABSENT_PAGE, CODECS, FILLED_PAGES, TestGuest, TestHost, listen, migrate_watched, migrate_well,
    pattern, quick, tcp, unix, ways,
};

const STREAMS: [u16; 4] = [1, 2, 8, 64];

#[test]
fn memory_is_equal_over_every_link() {
    let folder = tempfile::tempdir().unwrap();
    for io in ways() {
        for endpoint in [tcp(), unix(&folder)] {
            for streams in STREAMS {
                for codec in CODECS {
                    let mut config = quick();
                    config.link.io = io;
                    config.codec = codec;
                    config.session.stream_count = streams;
                    let mut listener = limosa::Listener::bind(&endpoint, &config.link).unwrap();
                    let mut guest = TestGuest::running();
                    let arrived =
                        migrate_well(&mut guest, &mut TestHost::default(), &mut listener, &config);
                    assert_untouched_is_unpopulated(&arrived);
                }
            }
        }
    }
}

fn assert_untouched_is_unpopulated(arrived: &TestGuest) {
    assert_eq!(arrived.memory.read(ABSENT_PAGE), vec![0; 4096]);
    let populated = arrived.memory.populated_count();
    assert!(populated <= FILLED_PAGES, "{populated} pages are populated");
}

/// A page that is absent at the source takes no memory at the target; nothing reads it before this
/// test looks.
#[test]
fn absent_pages_stay_unpopulated() {
    let config = quick();
    let mut guest = TestGuest::running();
    if guest.memory.is_populated(ABSENT_PAGE) {
        println!("SKIPPED: this kernel does not tell which pages are present");
        return;
    }
    let mut listener = listen(&config);
    let mut host = TestHost::default();
    let (out, landed) = common::migrate(&mut guest, &mut host, &mut listener, &config);
    let (report, arrived) = (out.unwrap(), landed.unwrap().guest);
    assert!(!arrived.memory.is_populated(ABSENT_PAGE));
    let populated = arrived.memory.populated_count();
    assert!(
        populated > 0 && populated <= FILLED_PAGES,
        "{populated} pages are populated"
    );
    assert!(report.pages().absent >= 2000, "{:?}", report.pages());
}

/// The guest writes all the time, and after each round nearly all of its memory: the pause never
/// fits, and there are as many rounds as can be.
#[test]
fn many_rounds_lose_no_write() {
    for (codec, streams) in [(Codec::None, 2), (Codec::Lz4, 3)] {
        let mut config = quick();
        config.codec = codec;
        config.session.stream_count = streams;
        config.session.downtime_max = Duration::from_millis(1);
        config.session.on_stall = OnStall::Stop;
        let mut listener = listen(&config);
        let mut guest = TestGuest::running();
        let memory = guest.memory.clone();
        let mut seed = 1;
        let mut observer = |moment: &Moment| {
            if matches!(moment, Moment::Session(Event::RoundSent(report)) if report.round.get() < 4)
            {
                seed += 2;
                let page = pattern(seed);
                (300..1000)
                    .chain(1600..3600)
                    .for_each(|number| memory.write(number, &page));
            }
        };
        let (out, landed) = migrate_watched(
            &mut guest,
            &mut TestHost::default(),
            &mut listener,
            &config,
            &CancelToken::new(),
            &mut observer,
        );
        let (report, arrived) = (out.unwrap(), landed.unwrap().guest);
        assert!(report.rounds.len() > 4, "{} rounds", report.rounds.len());
        assert_eq!(guest.memory.first_difference(&arrived.memory), None);
    }
}

/// What was sent with data and zeroed later is zero at the target; what was zeroed and written
/// again is not.
#[test]
fn zeroed_pages_are_overwritten() {
    for codec in CODECS {
        let mut config = quick();
        config.codec = codec;
        let mut listener = listen(&config);
        let mut guest = TestGuest::running();
        let memory = guest.memory.clone();
        let zeroed = 400..700;
        let mut rounds = 0;
        let mut observer = |moment: &Moment| {
            if matches!(moment, Moment::Session(Event::RoundSent(_))) {
                rounds += 1;
                if rounds == 1 {
                    zeroed.clone().for_each(|page| memory.zero(page));
                    memory.write(ABSENT_PAGE, &pattern(1));
                }
            }
        };
        let (out, landed) = migrate_watched(
            &mut guest,
            &mut TestHost::default(),
            &mut listener,
            &config,
            &CancelToken::new(),
            &mut observer,
        );
        let (report, arrived) = (out.unwrap(), landed.unwrap().guest);
        assert!(report.pages().zero >= 300, "{:?}", report.pages());
        assert_eq!(guest.memory.first_difference(&arrived.memory), None);
        assert_eq!(arrived.memory.read(500), vec![0; 4096]);
        assert_eq!(arrived.memory.read(ABSENT_PAGE), pattern(1));
    }
}

#[test]
fn the_report_says_how_pages_travelled() {
    for io in ways() {
        let mut config = quick();
        config.link.io = io;
        let mut listener = listen(&config);
        let mut guest = TestGuest::running();
        let (out, landed) =
            common::migrate(&mut guest, &mut TestHost::default(), &mut listener, &config);
        let (source, target) = (out.unwrap(), landed.unwrap().report);
        let word = match io {
            limosa::IoChoice::Blocking => "blocking",
            _ => "io_uring",
        };
        assert!(source.io.contains(word), "{}", source.io);
        assert!(target.io.contains(word), "{}", target.io);
        assert_eq!(source.tracking, "vmm-writes");
        assert_eq!((source.stream_count, target.stream_count), (2, 2));
        assert!(source.wire_bytes() > 0 && source.overhead_bytes > 0);
    }
}

/// Runs of pages go straight out of the guest's memory where both sides let them, and nowhere else.
#[test]
fn pages_are_staged_where_either_side_wants_it() {
    use limosa::Staging::{Always, Auto, Never};
    let live = |source, target| {
        let at = |staging| limosa::MigrationConfig {
            staging,
            codec: Codec::None,
            ..quick()
        };
        let mut listener = listen(&at(target));
        let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
        let endpoint = listener.endpoint().clone();
        let (out, landed) = std::thread::scope(|scope| {
            let landing = scope.spawn(|| {
                let token = CancelToken::new();
                limosa::migrate_in(&mut host, &mut listener, &at(target), &token, &mut ())
            });
            let token = CancelToken::new();
            let out = limosa::migrate_out(&mut guest, &endpoint, &at(source), &token, &mut ());
            (out.unwrap(), landing.join().unwrap().unwrap())
        });
        assert_eq!(guest.memory.first_difference(&landed.guest.memory), None);
        out.pages().live
    };
    for (source, target) in [(Auto, Auto), (Never, Auto), (Auto, Never), (Never, Never)] {
        assert!(live(source, target) > 0, "{source:?} to {target:?}");
    }
    for (source, target) in [
        (Always, Auto),
        (Auto, Always),
        (Always, Never),
        (Never, Always),
    ] {
        assert_eq!(live(source, target), 0, "{source:?} to {target:?}");
    }
}
