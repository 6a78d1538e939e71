//! A target that stalls without closing a link: the source notices within its time-outs, and the
//! guest runs on there.

mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use limosa::{CancelToken, migrate_out};

use common::{RawTarget, TestGuest, Until, assert_kept, assert_movable, attempt, quick};

/// Each attempt with a guest of its own, all at once: they mostly wait.
fn suffer_all(stages: &[Until], words: &str, deed: fn(RawTarget)) {
    std::thread::scope(|scope| {
        for until in stages {
            scope.spawn(move || {
                let mut guest = TestGuest::running();
                let error = attempt(&mut guest, |listener| {
                    let mut target = RawTarget::accept(listener);
                    target.go(*until)?;
                    deed(target);
                    Ok(())
                });
                assert!(error.to_string().contains(words), "{until:?}: {error}");
                assert_kept(&mut guest, &error);
                assert_movable(&mut guest);
            });
        }
    });
}

#[test]
fn a_target_that_falls_silent_at_each_stage() {
    let (last, stages) = Until::BEFORE_HAND_OVER.split_last().unwrap();
    assert_eq!(*last, Until::PreparedSaid, "has a test of its own");
    suffer_all(stages, "", |target| {
        target.fall_silent(Duration::from_secs(5));
    });
}

/// A target that lives but does not go on is not waited for without an end.
#[test]
fn a_target_that_only_lives() {
    let stages = [
        Until::Connected,
        Until::OfferHeard,
        Until::Accepted,
        Until::StreamsOpen,
        Until::FirstRoundBegun,
        Until::LastRoundBegun,
        Until::LastRoundLanded,
    ];
    suffer_all(&stages, "did not come within", |mut target| {
        target.control.only_live(Duration::from_secs(3));
    });
}

/// The target says that it is alive, but takes no page any more, without closing anything.
#[test]
fn a_target_that_stops_reading_pages() {
    for io in common::ways() {
        let mut guest = TestGuest::running();
        let (listener, endpoint) = RawTarget::listen();
        let mut config = quick();
        config.link.io = io;
        // So little that the pages do not fit in what the kernels hold.
        config.link.send_buffer_bytes = Some(64 << 10);
        small_receive_buffer(&listener);
        let out = std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut target = RawTarget::accept(listener);
                target.drains = false;
                if target.go(Until::FirstRoundBegun).is_ok() {
                    target.control.only_live(Duration::from_secs(3));
                }
            });
            migrate_out(&mut guest, &endpoint, &config, &CancelToken::new(), &mut ())
        });
        let error = out.unwrap_err();
        assert!(
            error.to_string().contains("no byte moved"),
            "{io:?}: {error}"
        );
        assert_kept(&mut guest, &error);
        assert_movable(&mut guest);
    }
}

fn small_receive_buffer(listener: &TcpListener) {
    socket2::SockRef::from(listener)
        .set_recv_buffer_size(16 << 10)
        .unwrap();
}

/// The state is large and the target does not read it: the guest must not stand still for longer
/// than a switchover may take.
#[test]
fn a_target_that_does_not_read_the_state() {
    let mut guest = TestGuest::running();
    guest
        .script
        .state_bytes
        .store(15 << 20, std::sync::atomic::Ordering::SeqCst);
    let (listener, endpoint) = RawTarget::listen();
    small_receive_buffer(&listener);
    let mut config = quick();
    config.link.io_silence_max = Duration::from_secs(20);
    config.session.peer_silence_max = Duration::from_secs(20);
    let begun = Instant::now();
    let out = std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut target = RawTarget::accept(listener);
            if target.go(Until::LastRoundBegun).is_ok() {
                target.control.only_live(Duration::from_secs(10));
            }
        });
        migrate_out(&mut guest, &endpoint, &config, &CancelToken::new(), &mut ())
    });
    let error = out.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}: {error}",
        begun.elapsed()
    );
    assert_kept(&mut guest, &error);
    guest
        .script
        .state_bytes
        .store(0, std::sync::atomic::Ordering::SeqCst);
    assert_movable(&mut guest);
}
