//! How two peers agree on a version, against a look at every version.

use limosa_wire::codec::{Codec, Reader, Writer};
use limosa_wire::{
    DecodeFault, ENVELOPE_BYTES, Envelope, Hello, KeepAlive, Message, MigrationId, ProtocolVersion,
    VersionRange,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn versions(oldest: u16, newest: u16) -> VersionRange {
    VersionRange {
        oldest: ProtocolVersion::new(oldest),
        newest: ProtocolVersion::new(newest),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn the_newest_common_version_wins(a in 0..9u16, b in 0..9u16, c in 0..9u16, d in 0..9u16) {
        let (ours, theirs) = (versions(a, b), versions(c, d));
        let both = |version: &ProtocolVersion| ours.contains(*version) && theirs.contains(*version);
        let newest = (0..9).rev().map(ProtocolVersion::new).find(both);
        prop_assert_eq!(ours.newest_common(theirs), newest);
        prop_assert_eq!(theirs.newest_common(ours), newest);
    }
}

#[test]
fn this_build_agrees_with_itself_on_the_newest() {
    let own = VersionRange::SUPPORTED;
    assert_eq!(own.newest_common(own), Some(ProtocolVersion::CURRENT));
}

#[test]
fn a_range_that_runs_backwards_is_refused() {
    assert!(versions(3, 2).encode(&mut Writer::new()).is_err());
    let refused = VersionRange::decode(&mut Reader::new(&[3, 0, 2, 0])).unwrap_err();
    assert!(matches!(
        refused.what,
        DecodeFault::OutOfBounds {
            found: 2,
            min: 3,
            ..
        }
    ));
    assert_eq!(refused.offset, 2);
}

fn envelope_of(message: &Message) -> [u8; ENVELOPE_BYTES] {
    let bytes = message.encode().unwrap();
    *bytes.first_chunk().unwrap()
}

fn hello() -> Message {
    Message::Hello(Hello {
        versions: VersionRange::SUPPORTED,
        migration_id: MigrationId::new([7; 16]),
        agent: "limosa".into(),
    })
}

/// A build of any version reads every hello, so that both can say why they don't go on.
#[test]
fn a_hello_is_written_in_the_version_of_hellos_and_in_no_other() {
    let mut front = envelope_of(&hello());
    assert_eq!(front[4..6], [1, 0]);
    assert_eq!(
        Envelope::decode(&front).unwrap().version,
        ProtocolVersion::HELLO
    );
    for version in [0, 2, 3] {
        front[4] = version;
        let covered = [&front[..12], &front[16..]].concat();
        front[12..16].copy_from_slice(&limosa_wire::checksum(&covered).to_le_bytes());
        let found = version.into();
        let refused = Envelope::decode(&front).unwrap_err();
        assert_eq!(refused.what, DecodeFault::Version { found });
    }
    let keep_alive = Message::KeepAlive(KeepAlive { sequence: 1 });
    assert_eq!(envelope_of(&keep_alive)[4..6], [3, 0]);
}

/// Builds of version 1 trust the target's judgement alone, and those of version 2 refuse chunks by
/// their number.
#[test]
fn versions_1_and_2_are_spoken_no_more() {
    let own = VersionRange::SUPPORTED;
    assert_eq!(own.newest_common(versions(1, 1)), None);
    assert_eq!(own.newest_common(versions(1, 2)), None);
    assert_eq!(
        own.newest_common(versions(1, 3)),
        Some(ProtocolVersion::CURRENT)
    );
    assert_eq!(versions(1, 1).to_string(), "1");
    assert_eq!(versions(1, 3).to_string(), "1 to 3");
}
