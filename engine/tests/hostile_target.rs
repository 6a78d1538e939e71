//! A target that breaks the protocol, refuses, gives up or goes away: the guest runs on at the
//! source and can be moved by the next attempt.

mod common;

use std::time::Duration;

use limosa::{CancelToken, migrate_out};
use limosa_wire::{
    Abort, AbortReason, EncodingSet, Message, Prepared, Reason, ReasonKind, Round, RoundLanded,
    Running, StreamsBound, Verdict,
};

use common::{
    Raw, RawTarget, TestGuest, Until, assert_kept, assert_movable, attempt, digest, quick,
};

/// What a target does once it has gone along as far as `Until`, and the words of the error.
type Deed = fn(&mut RawTarget);

fn suffer(cases: &[(&str, Until, Deed)]) {
    let mut guest = TestGuest::running();
    for (words, until, deed) in cases {
        let error = attempt(&mut guest, |listener| {
            let mut target = RawTarget::accept(listener);
            target.go(*until)?;
            deed(&mut target);
            target.fall_silent(Duration::from_secs(5));
            Ok(())
        });
        assert!(error.to_string().contains(words), "wanted {words}: {error}");
        assert_kept(&mut guest, &error);
    }
    assert_movable(&mut guest);
}

#[test]
fn nobody_listens() {
    let mut guest = TestGuest::running();
    let (listener, endpoint) = RawTarget::listen();
    drop(listener);
    let out = migrate_out(
        &mut guest,
        &endpoint,
        &quick(),
        &CancelToken::new(),
        &mut (),
    );
    let error = out.unwrap_err();
    assert!(
        error.to_string().contains("nobody listens there"),
        "{error}"
    );
    assert_kept(&mut guest, &error);
    assert_movable(&mut guest);
}

#[test]
fn wrong_words() {
    suffer(&[
        ("what is no message", Until::Connected, |target| {
            target.control.bytes(&[0x55; 200]);
        }),
        ("what is no message", Until::Bound, |target| {
            target.control.bytes(&[0x55; 200]);
        }),
        (
            "it accepted page streams that were not offered",
            Until::OfferHeard,
            |target| {
                target.verdict(3, EncodingSet::ALL);
            },
        ),
        (
            "it accepted page encodings that were not offered",
            Until::OfferHeard,
            |target| {
                target.verdict(2, EncodingSet::EMPTY);
            },
        ),
        ("page streams", Until::StreamsOpen, |target| {
            let stream_count = 1;
            target
                .control
                .say(&Message::StreamsBound(StreamsBound { stream_count }));
        }),
        ("it sent Prepared", Until::FirstRoundBegun, |target| {
            let cpu_digest = digest();
            target
                .control
                .say(&Message::Prepared(Prepared { cpu_digest }));
        }),
        ("it sent Running", Until::Bound, |target| {
            target.control.say(&Message::Running(Running {}));
        }),
        ("it sent RoundLanded", Until::Bound, |target| {
            let (round, pages) = (Round::new(7), 1);
            target
                .control
                .say(&Message::RoundLanded(RoundLanded { round, pages }));
        }),
    ]);
}

#[test]
fn a_target_that_says_no() {
    let mut guest = TestGuest::running();
    let error = attempt(&mut guest, |listener| {
        let mut target = RawTarget::accept(listener);
        target.go(Until::OfferHeard)?;
        let reason = |what: &str| Reason {
            kind: ReasonKind::Cpu,
            what: what.into(),
            remedy: "choose another target".into(),
        };
        let reasons = vec![reason("no avx512f"), reason("no pku")];
        target
            .control
            .say(&Message::Verdict(Verdict::Refused { reasons }));
        target.fall_silent(Duration::from_secs(3));
        Ok(())
    });
    assert!(error.cause.is_refusal(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("no avx512f") && text.contains("no pku"),
        "every reason: {text}"
    );
    assert_kept(&mut guest, &error);
    assert_movable(&mut guest);
}

/// The reason that the target gives is the error, though all its links end at once.
#[test]
fn a_target_that_gives_up_is_quoted() {
    let mut guest = TestGuest::running();
    for until in [
        Until::Accepted,
        Until::Bound,
        Until::FirstRoundBegun,
        Until::LastRoundBegun,
    ] {
        let error = attempt(&mut guest, |listener| {
            let mut target = RawTarget::accept(listener);
            target.go(until)?;
            let (reason, text) = (AbortReason::Capacity, "the host is on fire".to_owned());
            for stream in target.streams.drain(..) {
                stream.close();
            }
            target.control.say(&Message::Abort(Abort { reason, text }));
            target.control.close();
            Ok(())
        });
        assert!(error.to_string().contains("on fire"), "{until:?}: {error}");
        assert_kept(&mut guest, &error);
    }
    assert_movable(&mut guest);
}

/// Its streams break a moment before it says why, while the source sends on them.
#[test]
fn a_reason_that_comes_after_the_links_have_ended_is_quoted() {
    let mut guest = TestGuest::running();
    let error = attempt(&mut guest, |listener| {
        socket2::SockRef::from(&listener)
            .set_recv_buffer_size(16 << 10)
            .unwrap();
        let mut target = RawTarget::accept(listener);
        target.drains = false;
        target.go(Until::FirstRoundBegun)?;
        target.streams.clear();
        std::thread::sleep(Duration::from_millis(30));
        let (reason, text) = (AbortReason::Capacity, "the host is on fire".to_owned());
        target.control.say(&Message::Abort(Abort { reason, text }));
        target.fall_silent(Duration::from_secs(3));
        Ok(())
    });
    assert!(error.to_string().contains("on fire"), "{error}");
    assert_kept(&mut guest, &error);
    assert_movable(&mut guest);
}

#[test]
fn a_target_that_goes_away_at_each_stage() {
    let mut guest = TestGuest::running();
    for until in Until::BEFORE_HAND_OVER {
        if until == Until::PreparedSaid {
            continue;
        }
        let error = attempt(&mut guest, |listener| {
            let mut target = RawTarget::accept(listener);
            target.go(until)
        });
        assert_kept(&mut guest, &error);
    }
    assert_movable(&mut guest);
}

/// A first word from somebody who speaks another protocol.
#[test]
fn another_service_at_the_address() {
    let mut guest = TestGuest::running();
    let error = attempt(&mut guest, |listener| {
        let mut raw: Raw = Raw::of(listener.accept().unwrap().0);
        raw.bytes(b"SSH-2.0-OpenSSH_9.6\r\n");
        raw.drain();
        Ok(())
    });
    assert!(error.to_string().contains("not a Limosa peer"), "{error}");
    assert_kept(&mut guest, &error);
}
