//! How two peers agree on a version, against a look at every version.

use limosa_wire::codec::{Codec, Reader, Writer};
use limosa_wire::{DecodeFault, ProtocolVersion, VersionRange};
use proptest::prelude::*;

fn versions(oldest: u16, newest: u16) -> VersionRange {
    VersionRange {
        oldest: ProtocolVersion::new(oldest),
        newest: ProtocolVersion::new(newest),
    }
}

proptest! {
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
