//! A source that breaks the protocol on the control link, or goes away: the target says one clear
//! thing, keeps nothing, and takes the next guest in.

mod common;

use std::time::{Duration, Instant};

use limosa::{CancelToken, Custody, Endpoint, RoundKind, migrate_in};
use limosa_wire::{
    ENVELOPE_BYTES, HandOver, Hello, Message, MigrationId, Offer, ProtocolVersion, StreamSecret,
    VersionRange,
};

use common::{
    Inbound, PATIENCE, RawError, RawSource, TestGuest, TestHost, listen, migrate_well, quick,
};

type Deed = fn(&Endpoint) -> Result<(), RawError>;

/// What a deed must come to: these words in the error, as the listener's client sees it.
fn suffer(cases: &[(&str, Deed)]) {
    let config = quick();
    let mut listener = listen(&config);
    let mut host = TestHost::default();
    for (words, deed) in cases {
        let endpoint = listener.endpoint().clone();
        let begun = Instant::now();
        let inbound: Inbound = std::thread::scope(|scope| {
            let client = scope.spawn(move || deed(&endpoint));
            let token = CancelToken::new();
            let inbound = migrate_in(&mut host, &mut listener, &config, &token, &mut ());
            client.join().unwrap().unwrap_or_else(|error| {
                panic!(
                    "{words}: came to {inbound:?} too early: {error:?}",
                    inbound = inbound.as_ref().map(|_| ()).map_err(ToString::to_string)
                )
            });
            inbound
        });
        let error = inbound.err().unwrap_or_else(|| panic!("{words}: taken in"));
        assert!(
            begun.elapsed() < PATIENCE,
            "{words}: after {:?}",
            begun.elapsed()
        );
        assert!(error.to_string().contains(words), "wanted {words}: {error}");
        assert!(!error.cause.is_cancelled(), "nobody cancelled: {error}");
        assert_eq!(error.custody, Custody::Source, "{words}");
        assert!(!host.keeps_memory(), "{words}: guest memory is left");
    }
    let mut guest = TestGuest::running();
    migrate_well(&mut guest, &mut host, &mut listener, &config);
}

fn drain(source: RawSource) -> Result<(), RawError> {
    source.control.drain();
    Ok(())
}

fn hello() -> Hello {
    Hello {
        versions: VersionRange::SUPPORTED,
        migration_id: MigrationId::new([7; 16]),
        agent: "by hand".into(),
    }
}

#[test]
fn wrong_words_in_the_handshake() {
    suffer(&[
        (
            "the peer broke the protocol: it sent what is no message: not a Limosa peer",
            |endpoint| {
                let mut source = RawSource::connect(endpoint);
                source.hello()?;
                source.control.bytes(&[0x55; 4096]);
                drain(source)
            },
        ),
        ("checksum", |endpoint| {
            let mut source = RawSource::connect(endpoint);
            source.hello()?;
            let mut bytes = Message::Offer(source.offer()).encode().unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            source.control.bytes(&bytes);
            drain(source)
        }),
        ("body", |endpoint| {
            // As large as no message may be, with an envelope that is right otherwise.
            let mut source = RawSource::connect(endpoint);
            source.hello()?;
            let mut bytes = Message::Offer(source.offer()).encode().unwrap();
            bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
            let crc = limosa_wire::checksum(&[&bytes[..12], &bytes[16..20]].concat());
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            source.control.bytes(&bytes[..ENVELOPE_BYTES]);
            drain(source)
        }),
    ]);
}

#[test]
fn hellos_and_offers_that_do_not_fit() {
    suffer(&[
        ("protocol versions", |endpoint| {
            let mut source = RawSource::connect(endpoint);
            let versions = VersionRange {
                oldest: ProtocolVersion::new(8),
                newest: ProtocolVersion::new(9),
            };
            source.control.say(&Message::Hello(Hello {
                versions,
                ..hello()
            }));
            drain(source)
        }),
        ("it sent Hello", |endpoint| {
            let mut source = RawSource::connect(endpoint);
            source.hello()?;
            source.control.say(&Message::Hello(hello()));
            drain(source)
        }),
        ("it sent HandOver", |endpoint| {
            let mut source = RawSource::connect(endpoint);
            source.hello()?;
            source.control.say(&Message::HandOver(HandOver {}));
            drain(source)
        }),
        ("processor can't be read", |endpoint| {
            let mut source = RawSource::connect(endpoint);
            source.hello()?;
            let cpu = vec![1, 2, 3];
            let offer = Offer {
                cpu,
                ..source.offer()
            };
            source.control.say(&Message::Offer(offer));
            drain(source)
        }),
        ("this target runs test", |endpoint| {
            let mut source = RawSource::connect(endpoint);
            source.hello()?;
            let machine = "other".into();
            let offer = Offer {
                machine,
                ..source.offer()
            };
            source.control.say(&Message::Offer(offer));
            drain(source)
        }),
    ]);
}

#[test]
fn hand_over_before_prepared() {
    suffer(&[
        ("it sent HandOver", |endpoint| {
            let mut source = RawSource::bound(endpoint)?;
            source.control.say(&Message::HandOver(HandOver {}));
            drain(source)
        }),
        ("it sent HandOver", |endpoint| {
            let mut source = RawSource::in_round(endpoint)?;
            source.control.say(&Message::HandOver(HandOver {}));
            drain(source)
        }),
        ("it spoke of round 5", |endpoint| {
            let mut source = RawSource::bound(endpoint)?;
            source.round_start(5, RoundKind::Live);
            drain(source)
        }),
        ("outside the last round", |endpoint| {
            let mut source = RawSource::in_round(endpoint)?;
            source.state();
            drain(source)
        }),
        ("after the last round", |endpoint| {
            let mut source = RawSource::prepared(endpoint)?;
            source.round_start(2, RoundKind::Live);
            drain(source)
        }),
    ]);
}

#[test]
fn a_source_that_goes_away() {
    suffer(&[
        ("closed the link", |endpoint| {
            let mut source = RawSource::connect(endpoint);
            source.hello()?;
            source.control.close();
            Ok(())
        }),
        ("closed the link", |endpoint| {
            RawSource::connect(endpoint).accepted()?.control.close();
            Ok(())
        }),
        ("closed the link", |endpoint| {
            let source = RawSource::bound(endpoint)?;
            source.control.close();
            drop(source.streams);
            Ok(())
        }),
        // Only a page stream is cut.
        ("page stream 0", |endpoint| {
            let mut source = RawSource::in_round(endpoint)?;
            drop(source.streams.remove(0));
            source.control.only_live(Duration::from_millis(400));
            Ok(())
        }),
        // In the midst of a frame.
        ("bytes short", |endpoint| {
            let mut source = RawSource::in_round(endpoint)?;
            let bytes = source.frame().sealed();
            source.streams[0].bytes(&bytes[..bytes.len() - 100]);
            drop(source.streams.remove(0));
            source.control.only_live(Duration::from_millis(400));
            Ok(())
        }),
        ("closed the link", |endpoint| {
            RawSource::prepared(endpoint)?.control.close();
            Ok(())
        }),
    ]);
}

#[test]
fn a_source_that_falls_silent() {
    suffer(&[
        ("the source's offer did not come", |endpoint| {
            let mut source = RawSource::connect(endpoint);
            source.hello()?;
            source.control.only_live(Duration::from_secs(2));
            Ok(())
        }),
        ("no word of the peer", |endpoint| {
            let source = RawSource::bound(endpoint)?;
            drain(source)
        }),
        ("no word of the peer", |endpoint| {
            let source = RawSource::in_round(endpoint)?;
            drain(source)
        }),
        // A stream that stalls inside a frame, while the control link lives.
        ("no byte moved", |endpoint| {
            let mut source = RawSource::in_round(endpoint)?;
            let bytes = source.frame().sealed();
            source.streams[0].bytes(&bytes[..bytes.len() - 100]);
            source.control.only_live(Duration::from_secs(2));
            Ok(())
        }),
        ("did not come", |endpoint| {
            let mut source = RawSource::prepared(endpoint)?;
            source.control.only_live(Duration::from_secs(2));
            Ok(())
        }),
    ]);
}

#[test]
fn streams_that_are_not_bound() {
    suffer(&[
        ("every page stream did not come", |endpoint| {
            let mut source = RawSource::connect(endpoint).agreed()?;
            source.open_as(source.id, StreamSecret::new([1; 16]), 0);
            source.open_as(source.id, source.secret, 1);
            drain(source)
        }),
        ("every page stream did not come", |endpoint| {
            let mut source = RawSource::connect(endpoint).agreed()?;
            source.open_as(MigrationId::new([8; 16]), source.secret, 0);
            source.open_as(source.id, source.secret, 1);
            drain(source)
        }),
        // Two streams of one number.
        ("every page stream did not come", |endpoint| {
            let mut source = RawSource::connect(endpoint).agreed()?;
            source.open_as(source.id, source.secret, 1);
            source.open_as(source.id, source.secret, 1);
            drain(source)
        }),
    ]);
}
