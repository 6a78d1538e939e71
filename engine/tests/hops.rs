//! One guest that moves there and back, hosts that take one guest after the other, and strangers
//! that knock meanwhile.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use limosa::{CancelToken, Codec, Event, Moment, OnStall};
use limosa_wire::{MigrationId, StreamSecret};

use common::{
    PATIENCE, Raw, RawSource, TestGuest, TestHost, listen, migrate_watched, migrate_well, pattern,
    quick,
};

#[test]
fn there_and_back_and_there_again() {
    let config = quick();
    let mut listeners = [listen(&config), listen(&config)];
    let mut hosts = [TestHost::default(), TestHost::default()];
    let mut guest = TestGuest::running();
    for hop in 0..5 {
        let side = hop % 2;
        let mut config = config.clone();
        config.codec = [Codec::Delta, Codec::Lz4, Codec::Auto][hop % 3];
        config.session.stream_count = [1, 4, 2][hop % 3];
        guest.memory.write(2000 + hop as u64, &pattern(hop as u64));
        // What a failed attempt before might have left: a record of writes, and links.
        guest.script = Default::default();
        let arrived = migrate_well(&mut guest, &mut hosts[side], &mut listeners[side], &config);
        guest = arrived;
        guest.go();
        assert!(guest.runs(), "hop {hop}");
        for earlier in 0..=hop as u64 {
            assert_eq!(
                guest.memory.read(2000 + earlier),
                pattern(earlier),
                "hop {hop}"
            );
        }
    }
}

/// Strangers of every kind knock while a guest moves: before its source, among its streams, and
/// in its rounds.
#[test]
fn strangers_do_not_disturb() {
    let mut config = quick();
    config.session.stream_count = 8;
    config.session.downtime_max = Duration::from_millis(1);
    config.session.on_stall = OnStall::Stop;
    let mut listener = listen(&config);
    let endpoint = listener.endpoint().clone();
    let over = AtomicBool::new(false);
    // They are there first, and silent: they must not keep the source out.
    let silent: Vec<Raw> = (0..5).map(|_| Raw::connect(&endpoint)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A test that fails ends this as well.
            let begun = Instant::now();
            while !over.load(Ordering::Acquire) && begun.elapsed() < PATIENCE {
                Raw::connect(&endpoint).bytes(&[0xAA; 300]);
                Raw::connect(&endpoint).close();
                let mut stream = RawSource::connect(&endpoint);
                stream.open_as(MigrationId::new([9; 16]), StreamSecret::new([9; 16]), 0);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut guest = TestGuest::running();
        let mut host = TestHost::default();
        for _ in 0..3 {
            let arrived = migrate_well(&mut guest, &mut host, &mut listener, &config);
            guest = arrived;
            guest.script = Default::default();
            guest.go();
        }
        over.store(true, Ordering::Release);
    });
    drop(silent);
    assert!(
        listener.strangers().total() > 0,
        "{:?}",
        listener.strangers()
    );
}

/// A second source says hello in the midst of a migration: it has to wait, and the first is not
/// disturbed.
#[test]
fn a_second_source_waits() {
    let config = quick();
    let mut listener = listen(&config);
    let endpoint = listener.endpoint().clone();
    let mut guest = TestGuest::running();
    let mut second = None;
    let mut observer = |moment: &Moment| {
        if matches!(moment, Moment::Session(Event::RoundStarted(_))) {
            let endpoint = endpoint.clone();
            second.get_or_insert_with(|| {
                std::thread::spawn(move || {
                    let mut source = RawSource::connect(&endpoint);
                    source.hello().is_ok()
                })
            });
        }
    };
    let (token, mut host) = (CancelToken::new(), TestHost::default());
    let (out, landed) = migrate_watched(
        &mut guest,
        &mut host,
        &mut listener,
        &config,
        &token,
        &mut observer,
    );
    let arrived = landed.unwrap().guest;
    out.unwrap();
    assert_eq!(guest.memory.first_difference(&arrived.memory), None);
    drop(listener);
    assert!(
        !second.unwrap().join().unwrap(),
        "nobody answered the second source"
    );
}

/// A source that only says garbage is no source: the target waits on.
#[test]
fn garbage_ahead_of_a_hello_is_a_stranger() {
    let config = quick();
    let mut listener = listen(&config);
    let endpoint = listener.endpoint().clone();
    for _ in 0..5 {
        Raw::connect(&endpoint).bytes(&[0xAA; 4096]);
    }
    let mut guest = TestGuest::running();
    migrate_well(&mut guest, &mut TestHost::default(), &mut listener, &config);
    assert_eq!(
        listener.strangers().garbage,
        5,
        "{:?}",
        listener.strangers()
    );
}
