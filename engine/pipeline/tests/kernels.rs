//! Every kind of processor's loops against a naive oracle.

use limosa_pages::PAGE_BYTES;
use limosa_pipeline::kernels::{Checksum, Content, Kernels};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use vm_memory::mmap::MmapRegion;
use vm_memory::{VolatileMemory, VolatileSlice};

fn check(bytes: &[u8]) {
    let region: MmapRegion = MmapRegion::new(PAGE_BYTES).unwrap();
    let page = region.get_slice(0, PAGE_BYTES).unwrap();
    page.copy_from(bytes);
    let expected = if bytes.iter().all(|byte| *byte == 0) {
        Content::Zero
    } else {
        Content::Data
    };
    for kernels in Kernels::available() {
        let mut copy = [0xaa; PAGE_BYTES];
        let content = kernels.copy_and_test_zero(&page, &mut copy);
        assert_eq!(content, expected, "{}", kernels.name());
        assert_eq!(copy[..], bytes[..], "{}", kernels.name());
        assert_eq!(kernels.test_zero(&page), expected, "{}", kernels.name());
    }
}

#[test]
fn one_bit_anywhere_makes_a_page_data() {
    check(&[0; PAGE_BYTES]);
    check(&[0xff; PAGE_BYTES]);
    for at in 0..PAGE_BYTES {
        let mut bytes = [0; PAGE_BYTES];
        bytes[at] = 1 << (at % 8);
        check(&bytes);
    }
}

#[test]
fn the_fastest_kind_is_one_of_those_available() {
    let names: Vec<_> = Kernels::available().map(Kernels::name).collect();
    assert_eq!(names.first(), Some(&"portable"));
    assert_eq!(names.last(), Some(&Kernels::detect().name()));
}

#[test]
fn a_source_that_lies_askew_is_copied_too() {
    let mut room = vec![0; 2 * PAGE_BYTES];
    for skew in [1, 7, 8, 33] {
        room.fill(0);
        let slice = |room: &mut [u8]| -> [u8; PAGE_BYTES] {
            let mut copy = [1; PAGE_BYTES];
            let page = VolatileSlice::from(&mut room[skew..skew + PAGE_BYTES]);
            let content = Kernels::detect().copy_and_test_zero(&page, &mut copy);
            assert_eq!(content == Content::Zero, copy == [0; PAGE_BYTES]);
            copy
        };
        assert_eq!(slice(&mut room), [0; PAGE_BYTES]);
        room[skew + PAGE_BYTES - 1] = 5;
        assert_eq!(slice(&mut room)[PAGE_BYTES - 1], 5);
    }
    // Shorter than a page: the rest of the copy is zero.
    let mut copy = [1; PAGE_BYTES];
    let short = VolatileSlice::from(&mut room[..0]);
    assert_eq!(
        Kernels::detect().copy_and_test_zero(&short, &mut copy),
        Content::Zero
    );
    assert_eq!(copy, [0; PAGE_BYTES]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn copies_and_answers_are_the_oracles(bytes in prop::collection::vec(any::<u8>(), PAGE_BYTES)) {
        check(&bytes);
    }

    #[test]
    fn the_checksum_is_that_of_the_wire(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..6)
    ) {
        let mut checksum = Checksum::new(Kernels::detect());
        let mut all = Vec::new();
        for part in parts {
            all.extend_from_slice(&part);
            let mut part = part;
            checksum.update(&VolatileSlice::from(&mut part[..]));
        }
        prop_assert_eq!(checksum.finish(), limosa_wire::checksum(&all));
    }
}
