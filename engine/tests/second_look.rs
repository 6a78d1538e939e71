//! What a target's host says of itself at the switchover, when it is looked at again: anything but
//! that all is as it was leaves the guest at the source, and nothing at the target.

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use limosa::{MigrationError, Stage};

use common::{
    AMD, FEATURES, INTEL, Later, TestGuest, TestHost, assert_kept, assert_movable, host_of, listen,
    migrate, migrate_well, quick,
};

/// Both sides' errors of a migration to a host that is another one `later`.
fn suffer(later: Later) -> [MigrationError; 2] {
    let config = quick();
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    host.later = later;
    let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
    let (error, inbound) = (out.unwrap_err(), landed.map(drop).unwrap_err());
    assert_eq!(error.stage, Stage::Switchover, "{error}");
    assert_eq!(guest.script.counts(), (1, 1, 0), "paused, and resumed");
    assert_kept(&mut guest, &error);
    assert!(!host.keeps_memory(), "guest memory is left");
    assert_eq!(host.looks.load(Ordering::SeqCst), 3);
    host.later = Later::TheSame;
    migrate_well(&mut guest, &mut host, &mut listener, &config);
    [error, inbound]
}

#[test]
fn a_host_that_has_lost_features_is_refused_with_every_reason() {
    let errors = suffer(Later::Another(host_of(INTEL, 1 << 3)));
    for error in &errors {
        assert!(error.cause.is_refusal(), "{error}");
        let text = error.to_string();
        assert!(text.contains("avx2") && text.contains("bmi2"), "{text}");
        assert!(!text.contains("bmi1"), "{text}");
    }
    assert_eq!(errors[0].cause.to_string(), errors[1].cause.to_string());
}

#[test]
fn a_host_of_another_maker_is_refused() {
    for error in suffer(Later::Another(host_of(AMD, FEATURES))) {
        assert!(error.cause.is_refusal(), "{error}");
        assert!(error.to_string().contains("AuthenticAMD"), "{error}");
    }
}

#[test]
fn a_host_that_cannot_be_looked_at_is_a_failure_of_its_own() {
    for error in suffer(Later::Fails) {
        assert!(!error.cause.is_refusal(), "{error}");
        assert!(error.to_string().contains("the kernel is gone"), "{error}");
    }
}

/// An embedder's panic is the target's failure, and not the end of its process.
#[test]
fn a_host_that_panics_is_a_failure_of_its_own() {
    for error in suffer(Later::Panics) {
        assert!(error.to_string().contains("panicked"), "{error}");
    }
}

/// A look that takes its time keeps neither the target from saying that it is alive, nor the guest
/// from moving.
#[test]
fn a_slow_look_is_waited_for() {
    let mut config = quick();
    config.session.switchover_max = Duration::from_secs(5);
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    let wait = Duration::from_millis(1500);
    assert!(wait > config.session.peer_silence_max);
    host.later = Later::Slowly(wait);
    let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
    let (report, landed) = (out.unwrap(), landed.unwrap());
    assert!(report.switchover.total >= wait);
    assert_eq!(guest.memory.first_difference(&landed.guest.memory), None);
    assert!(!guest.runs());
}

/// The source does not wait for a look without an end.
#[test]
fn a_look_that_does_not_end_in_time_leaves_the_guest() {
    let config = quick();
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    host.later = Later::Slowly(Duration::from_secs(3));
    let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
    let error = out.unwrap_err();
    assert!(error.to_string().contains("switchover"), "{error}");
    assert_kept(&mut guest, &error);
    assert!(landed.is_err() && !host.keeps_memory());
    assert_movable(&mut guest);
}
