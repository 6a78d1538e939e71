//! Every kernel works, again and again, and a planted slow-down is more work.

use limosa_kernels::{Amount, KERNELS, Kernel, KernelError, Load, Unit};

const ONE_CHUNK: Amount = Amount {
    chunk_count: 1,
    load: Load::Plain,
};

#[test]
fn every_kernel_works_again_and_again() {
    for kernel in KERNELS {
        let mut prepared = kernel.prepare(ONE_CHUNK).unwrap();
        for _ in 0..3 {
            prepared.pass().unwrap();
        }
        let expected = match kernel.unit() {
            Unit::Page | Unit::Record => 512,
            Unit::Chunk => 2048,
        };
        assert_eq!(prepared.units(), expected, "{kernel}");
    }
}

#[test]
fn names_find_their_kernels() {
    for kernel in KERNELS {
        assert_eq!(Kernel::named(kernel.name()), Some(*kernel));
    }
    assert_eq!(Kernel::named("pack"), None);
}

#[test]
fn a_planted_slow_down_works() {
    let planted = Amount {
        chunk_count: 2,
        load: Load::Planted,
    };
    for kernel in KERNELS {
        let mut prepared = kernel.prepare(planted).unwrap();
        prepared.pass().unwrap();
        assert_eq!(prepared.units() % 512, 0);
    }
}

#[test]
fn a_guest_too_large_is_an_error() {
    let amount = Amount {
        chunk_count: 1 << 40,
        load: Load::Plain,
    };
    let refused = Kernel::named("pack-raw").unwrap().prepare(amount);
    let error = refused.err().unwrap();
    assert!(matches!(error, KernelError::NoMemory { .. }));
    assert!(error.to_string().contains("chunks"), "{error}");
}

#[test]
fn streams_of_one_guest_work_on_their_own_threads() {
    for name in [
        "pack-raw",
        "pack-lz4",
        "land-mixed",
        "land-raw-copied",
        "checksum",
    ] {
        let each = Kernel::named(name).unwrap();
        let mut each = each.prepare_streams(ONE_CHUNK, 64).unwrap();
        assert_eq!(each.len(), 64);
        std::thread::scope(|scope| {
            for prepared in &mut each {
                assert_eq!(prepared.units(), 512);
                scope.spawn(|| (0..3).for_each(|_| prepared.pass().unwrap()));
            }
        });
    }
}
