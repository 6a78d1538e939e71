//! Hosts on which the guest can't live, and peers that lie about having judged: no page leaves, no
//! memory is made, the guest runs on at the source, and both sides name every reason.

mod common;

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::Duration;

use limosa::{CancelToken, Custody, MigrationError, Stage, migrate_in, migrate_out};
use limosa_wire::{EncodingSet, Message, Verdict};

use common::{
    AMD, FEATURES, INTEL, Inbound, Outbound, RawError, RawSource, RawTarget, TestGuest, TestHost,
    Until, address, assert_kept, assert_movable, attempt, digest, host_of, listen, migrate,
    proxy_to, quick, test_host, unaffected_host,
};

/// Both sides, with somebody between them who counts.
fn migrate_counted(
    guest: &mut TestGuest,
    host: &mut TestHost,
) -> (Outbound, Inbound, std::sync::Arc<common::Passed>) {
    let config = quick();
    let mut listener = listen(&config);
    let (endpoint, passed) = proxy_to(address(listener.endpoint()));
    let (out, landed) = std::thread::scope(|scope| {
        let token = CancelToken::new();
        let target = scope.spawn({
            let (token, config) = (token.clone(), config.clone());
            let listener = &mut listener;
            move || migrate_in(host, listener, &config, &token, &mut ())
        });
        let out = migrate_out(guest, &endpoint, &config, &CancelToken::new(), &mut ());
        if out.is_err() {
            token.cancel();
        }
        (out, target.join().unwrap())
    });
    (out, landed, passed)
}

fn assert_names(error: &MigrationError, names: &[&str]) {
    assert!(error.cause.is_refusal(), "{error}");
    let text = error.to_string();
    for name in names {
        assert!(text.contains(name), "{name} is not in: {text}");
    }
}

/// A refused guest shows on the wire as one control connection and no page stream, and nothing was
/// made for it.
#[test]
fn a_refused_guest_moves_no_byte_of_memory() {
    for (cpu, names) in [
        (
            host_of(AMD, FEATURES),
            &["GenuineIntel", "AuthenticAMD"][..],
        ),
        (host_of(INTEL, 0), &["bmi1", "avx2", "bmi2"][..]),
    ] {
        let (mut guest, mut host) = (TestGuest::running(), TestHost::of(cpu));
        let (out, landed, passed) = migrate_counted(&mut guest, &mut host);
        let (error, inbound) = (out.unwrap_err(), landed.map(drop).unwrap_err());
        assert_names(&error, names);
        assert_names(&inbound, names);
        assert_eq!(passed.controls.load(Ordering::SeqCst), 1);
        assert_eq!(passed.page_streams.load(Ordering::SeqCst), 0);
        assert_eq!(passed.others.load(Ordering::SeqCst), 0);
        assert_eq!(host.prepares.load(Ordering::SeqCst), 0, "no memory is made");
        assert_eq!(guest.script.counts(), (0, 0, 0), "never paused");
        assert_kept(&mut guest, &error);
        assert_movable(&mut guest);
    }
}

/// The one who counts sees page streams where they are.
#[test]
fn an_accepted_guest_moves_over_the_same_way() {
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    let (out, landed, passed) = migrate_counted(&mut guest, &mut host);
    let (report, landed) = (out.unwrap(), landed.unwrap());
    assert_eq!(passed.page_streams.load(Ordering::SeqCst), 2);
    assert!(passed.page_bytes.load(Ordering::SeqCst) > report.wire_bytes());
    assert_eq!(host.prepares.load(Ordering::SeqCst), 1);
    assert_eq!(
        host.looks.load(Ordering::SeqCst),
        3,
        "when it came, and at the end"
    );
    assert_eq!(guest.memory.first_difference(&landed.guest.memory), None);
}

/// No connection waits that would be a page stream.
fn no_stream_came(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let knocked = listener.accept();
    assert!(knocked.is_err(), "{knocked:?}");
}

/// What a target says of its host and of the guest, and the words of the source's error.
type Lie = (&'static str, fn(&mut RawTarget));

#[test]
fn a_target_that_accepts_everything_gets_no_page() {
    let lies: [Lie; 6] = [
        ("AuthenticAMD", |target| {
            let host = host_of(AMD, FEATURES).encode();
            target.verdict_as(2, EncodingSet::ALL, host, digest());
        }),
        ("avx2", |target| {
            let host = host_of(INTEL, 0).encode();
            target.verdict_as(2, EncodingSet::ALL, host, digest());
        }),
        ("digest", |target| {
            target.verdict_as(2, EncodingSet::ALL, test_host().encode(), !digest());
        }),
        ("host's processor can't be read", |target| {
            target.verdict_as(2, EncodingSet::ALL, vec![0x55; 4000], digest());
        }),
        ("host's processor can't be read", |target| {
            target.verdict_as(2, EncodingSet::ALL, vec![], digest());
        }),
        ("protocol version 1, this host 3", |target| {
            // As a target of the version in which only targets judged.
            let mut bytes = Message::Verdict(Verdict::Refused { reasons: vec![] })
                .encode()
                .unwrap();
            bytes[4] = 1;
            let crc = limosa_wire::checksum(&[&bytes[..12], &bytes[16..20]].concat());
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            target.control.bytes(&bytes);
        }),
    ];
    let mut guest = TestGuest::running();
    for (words, lie) in lies {
        let error = attempt(&mut guest, |listener| {
            let mut target = RawTarget::accept(listener);
            target.go(Until::OfferHeard)?;
            lie(&mut target);
            // Whatever the source says now: it opens nothing.
            let said = target.control.hear()?;
            let (refuses, aborts) = (
                matches!(said, Message::Refuse(_)),
                matches!(said, Message::Abort(_)),
            );
            assert!(refuses || aborts, "{said:?}");
            no_stream_came(&target.listener);
            Ok(())
        });
        assert!(error.to_string().contains(words), "wanted {words}: {error}");
        assert_eq!(guest.script.counts(), (0, 0, 0), "never paused: {error}");
        assert_kept(&mut guest, &error);
    }
    assert_movable(&mut guest);
}

/// The source tells such a target every reason.
#[test]
fn a_target_that_lies_is_told_every_reason() {
    let mut guest = TestGuest::running();
    let error = attempt(&mut guest, |listener| {
        let mut target = RawTarget::accept(listener);
        target.go(Until::OfferHeard)?;
        let host = host_of(INTEL, 0).encode();
        target.verdict_as(2, EncodingSet::ALL, host, digest());
        let Message::Refuse(refuse) = target.control.hear()? else {
            return Err(RawError);
        };
        assert_eq!(refuse.reasons.len(), 3, "{:?}", refuse.reasons);
        assert!(
            refuse
                .reasons
                .iter()
                .all(|reason| !reason.remedy.is_empty())
        );
        Ok(())
    });
    assert_names(&error, &["bmi1", "avx2", "bmi2"]);
    assert_eq!(error.custody, Custody::Source);
    assert_movable(&mut guest);
}

/// A source that was not told that it may, and goes on as if: with `deed`, after its offer.
fn suffer(host: &mut TestHost, words: &str, deed: fn(RawSource) -> Result<(), RawError>) {
    let config = quick();
    let mut listener = listen(&config);
    let endpoint = listener.endpoint().clone();
    let inbound: Inbound = std::thread::scope(|scope| {
        let client = scope.spawn(move || deed(RawSource::connect(&endpoint)));
        let token = CancelToken::new();
        let inbound = migrate_in(host, &mut listener, &config, &token, &mut ());
        client.join().unwrap().unwrap();
        inbound
    });
    let error = inbound.map(drop).unwrap_err();
    assert!(error.to_string().contains(words), "wanted {words}: {error}");
    assert_eq!(error.custody, Custody::Source);
    assert!(!host.keeps_memory(), "guest memory is left");
}

/// A source of an Intel guest that says it has judged an AMD host, and sends pages unasked.
#[test]
fn a_source_that_lies_about_having_judged_is_refused() {
    let mut host = TestHost::of(host_of(AMD, FEATURES));
    suffer(&mut host, "AuthenticAMD", |mut source| {
        source.hello()?;
        let offer = source.offer();
        source.control.say(&Message::Offer(offer));
        source.agree(digest());
        for stream in 0..2 {
            source.open_as(source.id, source.secret, stream);
            let frame = source.frame().sealed();
            source.streams[usize::from(stream)].bytes(&frame);
        }
        let Message::Verdict(Verdict::Refused { reasons }) = source.control.hear()? else {
            return Err(RawError);
        };
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        source.control.drain();
        Ok(())
    });
    assert_eq!(host.prepares.load(Ordering::SeqCst), 0, "no memory is made");
}

/// Streams of a source that was accepted and has not agreed are not let in.
#[test]
fn streams_without_an_agreement_are_not_let_in() {
    let mut host = TestHost::default();
    suffer(&mut host, "the source's judgement did not come", |source| {
        let mut source = source.accepted()?;
        for stream in 0..2 {
            source.open_as(source.id, source.secret, stream);
        }
        let frame = source.frame().sealed();
        source.streams[0].bytes(&frame);
        source.control.only_live(Duration::from_secs(2));
        Ok(())
    });
}

#[test]
fn words_of_another_processor_are_blamed() {
    let mut host = TestHost::default();
    suffer(&mut host, "digest", |source| {
        let mut source = source.accepted()?;
        source.agree(digest() ^ 4);
        source.control.drain();
        Ok(())
    });
    let mut host = TestHost::default();
    suffer(&mut host, "digest", |source| {
        let mut source = source.agreed()?;
        for stream in 0..2 {
            source.open_as(source.id, source.secret, stream);
        }
        source.control.hear()?;
        source.round_start(0, limosa::RoundKind::Full);
        source.empty_round()?;
        source.round_start(1, limosa::RoundKind::Final);
        source.state_of(digest() ^ 4);
        source.control.drain();
        Ok(())
    });
}

/// The source says no to a host that the target would take: the target lets everything go.
#[test]
fn a_refusal_of_the_source_leaves_nothing_at_the_target() {
    let mut host = TestHost::default();
    suffer(&mut host, "no avx2", |source| {
        let mut source = source.accepted()?;
        let reason = limosa_wire::Reason {
            kind: limosa_wire::ReasonKind::Cpu,
            what: "no avx2".into(),
            remedy: "choose another".into(),
        };
        let reasons = vec![reason];
        source
            .control
            .say(&Message::Refuse(limosa_wire::Refuse { reasons }));
        source.control.drain();
        Ok(())
    });
    assert_eq!(host.prepares.load(Ordering::SeqCst), 1);
}

/// What is forgiven is in both reports, and so is the length of the handshake.
#[test]
fn reports_tell_what_was_forgiven_and_how_long_the_handshake_took() {
    let config = quick();
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::of(unaffected_host()));
    let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
    let (out, landed) = (out.unwrap(), landed.unwrap().report);
    assert_eq!(out.warnings, landed.warnings);
    let names: Vec<&str> = out.warnings.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["md-clear"]);
    assert!(!out.warnings[0].forgiven.is_empty());
    for (handshake, elapsed) in [
        (out.handshake, out.elapsed),
        (landed.handshake, landed.elapsed),
    ] {
        assert!(handshake > Duration::ZERO && handshake < elapsed);
    }
    assert!(landed.prepare > Duration::ZERO && landed.prepare <= landed.handshake);
}

/// A guest whose processor is another one by the time of the pause is not paused.
#[test]
fn a_guest_that_changes_is_not_paused() {
    let config = quick();
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    guest.script.change_cpu.store(true, Ordering::SeqCst);
    let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
    let error = out.unwrap_err();
    let words = "not the one that was offered";
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(error.stage, Stage::Rounds, "{error}");
    let inbound = landed.map(drop).unwrap_err();
    assert!(inbound.to_string().contains(words), "{inbound}");
    assert_eq!(guest.script.counts().0, 0, "never paused");
    assert_kept(&mut guest, &error);
    assert!(!host.keeps_memory());
}

/// What judging and agreeing cost on one host, without the making of the guest: the best of some,
/// because the machine may be busy.
#[test]
fn a_handshake_takes_less_than_two_milliseconds() {
    let config = quick();
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    let handshakes = (0..20).map(|_| {
        let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
        let (out, landed) = (out.unwrap(), landed.unwrap());
        guest = landed.guest;
        guest.go();
        out.handshake.saturating_sub(landed.report.prepare)
    });
    let best = handshakes.min().unwrap();
    println!("a handshake takes {best:?}");
    assert!(best < Duration::from_millis(2), "{best:?}");
}
