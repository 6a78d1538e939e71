//! A request to stop, from another thread and at any moment: before the hand-over the guest runs on
//! at the source, and from there on the migration ends as it would have.

mod common;

use std::time::{Duration, Instant};

use limosa::{
    CancelToken, Custody, Endpoint, Event, Moment, RoundKind, Stage, migrate_in, migrate_out,
};

use common::{
    RawSource, RawTarget, TestGuest, TestHost, Until, assert_kept, assert_movable, listen,
    migrate_watched, quick,
};

/// Long enough for the 50 ms that a token takes, and for a machine that is busy.
const SOON: Duration = Duration::from_millis(1500);

/// Cancels from another thread after `wait`, and says how long the source then took.
fn cancelled_after(
    wait: Duration,
    guest: &mut TestGuest,
    endpoint: &Endpoint,
) -> (limosa::MigrationError, Duration) {
    let token = CancelToken::new();
    std::thread::scope(|scope| {
        let canceller = scope.spawn({
            let token = token.clone();
            move || {
                std::thread::sleep(wait);
                token.cancel();
                Instant::now()
            }
        });
        let mut config = quick();
        // Whatever ends the migration, it is not a time-out.
        config.session.peer_silence_max = Duration::from_secs(20);
        config.session.handshake_max = Duration::from_secs(20);
        config.session.prepare_max = Duration::from_secs(20);
        config.session.switchover_max = Duration::from_secs(20);
        config.link.io_silence_max = Duration::from_secs(20);
        config.link.connect_max = Duration::from_secs(20);
        config.link.send_buffer_bytes = Some(64 << 10);
        let error = migrate_out(guest, endpoint, &config, &token, &mut ()).unwrap_err();
        (error, canceller.join().unwrap().elapsed())
    })
}

/// The listener's queue is full, so that no connection comes about.
#[test]
fn before_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&path).unwrap())
        .unwrap();
    socket.listen(0).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut guest = TestGuest::running();
    let endpoint = Endpoint::Unix(path);
    let (error, took) = cancelled_after(Duration::from_millis(100), &mut guest, &endpoint);
    assert!(error.cause.is_cancelled(), "{error}");
    assert_eq!(error.stage, Stage::Connect);
    assert!(took < SOON, "{took:?}");
    assert_kept(&mut guest, &error);
    assert_movable(&mut guest);
}

/// The target goes along so far and no further, so the source is there when it is cancelled.
#[test]
fn at_each_stage() {
    let mut guest = TestGuest::running();
    for until in Until::BEFORE_HAND_OVER {
        if until == Until::PreparedSaid {
            continue;
        }
        let (listener, endpoint) = RawTarget::listen();
        socket2::SockRef::from(&listener)
            .set_recv_buffer_size(16 << 10)
            .unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut target = RawTarget::accept(listener);
                // The streams of a first round that does not end are not read.
                target.drains = until != Until::FirstRoundBegun;
                if target.go(until).is_ok() {
                    target.control.drain();
                }
            });
            let wait = Duration::from_millis(200);
            let (error, took) = cancelled_after(wait, &mut guest, &endpoint);
            assert!(error.cause.is_cancelled(), "{until:?}: {error}");
            assert!(took < SOON + Duration::from_secs(1), "{until:?}: {took:?}");
            assert_kept(&mut guest, &error);
        });
    }
    assert_movable(&mut guest);
}

/// Both sides are real, and the request comes whenever it comes.
#[test]
fn at_any_moment_both_sides_agree() {
    let (mut cancelled, mut completed) = (0, 0);
    for step in 0..40 {
        let config = quick();
        let mut listener = listen(&config);
        let mut guest = TestGuest::running();
        let mut host = TestHost::default();
        let token = CancelToken::new();
        let canceller = std::thread::spawn({
            let token = token.clone();
            move || {
                std::thread::sleep(Duration::from_micros(step * 600));
                token.cancel();
            }
        });
        let (out, landed) = migrate_watched(
            &mut guest,
            &mut host,
            &mut listener,
            &config,
            &token,
            &mut (),
        );
        canceller.join().unwrap();
        match (out, landed) {
            (Ok(_), Ok(landed)) => {
                assert_eq!(guest.memory.first_difference(&landed.guest.memory), None);
                assert!(!guest.runs());
                completed += 1;
            }
            (Err(error), Err(inbound)) => {
                assert!(error.cause.is_cancelled(), "{error}");
                assert_kept(&mut guest, &error);
                assert_eq!(inbound.custody, Custody::Source, "{inbound}");
                assert!(!host.keeps_memory());
                cancelled += 1;
            }
            (out, landed) => panic!("{:?} there, {:?} here", out.err(), landed.err()),
        }
    }
    println!("{cancelled} cancelled, {completed} completed");
    assert!(cancelled > 0, "no request came in time");
}

/// Is it this event?
type Wanted = fn(&Event) -> bool;

/// Events, and whether a request at that moment ends the migration.
const EVENTS: [(&str, Wanted, bool); 6] = [
    (
        "accepted",
        |event| matches!(event, Event::Accepted { .. }),
        true,
    ),
    (
        "first round",
        |event| matches!(event, Event::RoundStarted(_)),
        true,
    ),
    ("sent", |event| matches!(event, Event::RoundSent(_)), true),
    (
        "estimate",
        |event| matches!(event, Event::Estimate { .. }),
        true,
    ),
    (
        "last round",
        |event| matches!(event, Event::RoundStarted(plan) if plan.kind == RoundKind::Final),
        true,
    ),
    (
        "handed over",
        |event| matches!(event, Event::Custody(Custody::InTransit)),
        false,
    ),
];

/// The observer cancels at a stage exactly, from another thread that it waits for.
#[test]
fn from_an_observer_at_each_event() {
    for (name, wanted, ends_it) in EVENTS {
        let config = quick();
        let mut listener = listen(&config);
        let mut guest = TestGuest::running();
        let mut host = TestHost::default();
        let token = CancelToken::new();
        let mut observer = |moment: &Moment| {
            if let Moment::Session(event) = moment
                && wanted(event)
            {
                let token = token.clone();
                std::thread::spawn(move || token.cancel()).join().unwrap();
            }
        };
        let (out, landed) = migrate_watched(
            &mut guest,
            &mut host,
            &mut listener,
            &config,
            &token,
            &mut observer,
        );
        assert!(token.is_cancelled(), "{name} never came");
        if ends_it {
            let error = out.unwrap_err();
            assert!(error.cause.is_cancelled(), "{name}: {error}");
            assert_kept(&mut guest, &error);
            let inbound = landed.map(drop).unwrap_err();
            assert!(
                inbound.to_string().contains("Cancelled"),
                "{name}: {inbound}"
            );
            assert!(!host.keeps_memory());
            assert_movable(&mut guest);
        } else {
            assert!(
                out.is_ok() && landed.is_ok(),
                "{name}: {:?} {:?}",
                out.err(),
                landed.err()
            );
        }
    }
}

/// A target is cancelled: while it waits for a source, for streams, and in a round.
#[test]
fn at_the_target() {
    type Deed = fn(&Endpoint) -> Option<RawSource>;
    let deeds: [(&str, Deed); 4] = [
        ("no source", |_| None),
        ("handshake", |endpoint| {
            let mut source = RawSource::connect(endpoint);
            source.hello().ok()?;
            Some(source)
        }),
        ("streams", |endpoint| {
            RawSource::connect(endpoint).accepted().ok()
        }),
        ("round", |endpoint| RawSource::in_round(endpoint).ok()),
    ];
    let mut config = quick();
    config.session.peer_silence_max = Duration::from_secs(20);
    config.session.handshake_max = Duration::from_secs(20);
    let mut listener = listen(&config);
    let mut host = TestHost::default();
    for (name, deed) in deeds {
        let endpoint = listener.endpoint().clone();
        let token = CancelToken::new();
        let error = std::thread::scope(|scope| {
            let own = token.clone();
            scope.spawn(move || {
                let source = deed(&endpoint);
                std::thread::sleep(Duration::from_millis(100));
                own.cancel();
                if let Some(source) = source {
                    source.control.drain();
                }
            });
            let begun = Instant::now();
            let inbound = migrate_in(&mut host, &mut listener, &config, &token, &mut ());
            assert!(begun.elapsed() < SOON + Duration::from_secs(1), "{name}");
            inbound.map(drop).unwrap_err()
        });
        assert!(error.cause.is_cancelled(), "{name}: {error}");
        assert_eq!(error.custody, Custody::Source, "{name}");
        assert!(!host.keeps_memory(), "{name}");
    }
}
