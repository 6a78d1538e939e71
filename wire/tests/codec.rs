//! The reader and the writer by themselves: what goes in comes out, and a hostile length is refused
//! before a single item is made for it.

use std::cell::Cell;

use limosa_wire::codec::{Codec, Reader, Writer, readable};
use limosa_wire::{DecodeError, DecodeFault, EncodeError};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

thread_local! {
    static DECODED: Cell<usize> = const { Cell::new(0) };
}

/// A byte that tells how many of its kind were decoded.
#[derive(Clone, PartialEq, Debug)]
struct Counted(u8);

impl Codec for Counted {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u8(self.0);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        DECODED.set(DECODED.get() + 1);
        reader.u8().map(Self)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn fields_come_out_as_they_went_in(
        numbers in any::<(u8, u16, u32, u64)>(),
        bytes in prop::collection::vec(any::<u8>(), 0..50),
        name in "[ -~]{1,20}",
        text in "\\PC{0,20}",
        items in prop::collection::vec(any::<u8>().prop_map(Counted), 0..20),
    ) {
        let mut writer = Writer::new();
        writer.u8(numbers.0);
        writer.u16(numbers.1);
        writer.u32(numbers.2);
        writer.u64(numbers.3);
        writer.bytes("bytes", &bytes, 50).unwrap();
        writer.name("name", &name, 20).unwrap();
        writer.text(&text, 100);
        writer.list("items", &items, 20).unwrap();
        let written = writer.into_bytes();

        let mut reader = Reader::new(&written);
        let read = (reader.u8()?, reader.u16()?, reader.u32()?, reader.u64()?);
        prop_assert_eq!(read, numbers);
        prop_assert_eq!(reader.bytes("bytes", 50)?, bytes);
        prop_assert_eq!(reader.name("name", 20)?, name);
        prop_assert_eq!(reader.text("text", 100)?, readable(&text, 100));
        prop_assert_eq!(reader.list::<Counted>("items", 20, 1)?, items);
        prop_assert_eq!((reader.offset(), reader.remaining()), (written.len(), 0));
        prop_assert!(reader.finish().is_ok());
    }

    #[test]
    fn a_readable_text_fits_and_stays_so(text in any::<String>(), bytes_max in 0..40usize) {
        let once = readable(&text, bytes_max);
        prop_assert!(once.len() <= bytes_max);
        prop_assert!(!once.chars().any(char::is_control));
        prop_assert_eq!(readable(&once, bytes_max), once);
    }
}

#[test]
fn a_length_is_judged_before_its_items_are() {
    let count = |bytes: &[u8], max| {
        DECODED.set(0);
        let refused = Reader::new(bytes)
            .list::<Counted>("items", max, 1)
            .unwrap_err();
        assert_eq!(
            DECODED.get(),
            0,
            "items were decoded for a length that cannot be"
        );
        refused.what
    };
    let too_many = DecodeFault::OutOfBounds {
        field: "items",
        found: 65535,
        min: 0,
        max: 10,
    };
    assert_eq!(count(&[0xff, 0xff, 1, 2], 10), too_many);
    assert_eq!(
        count(&[0xff, 0xff, 1, 2], 65535),
        DecodeFault::Truncated { missing: 65533 }
    );
    assert_eq!(
        count(&[3, 0, 1, 2], 10),
        DecodeFault::Truncated { missing: 1 }
    );

    let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]);
    let found = u32::MAX.into();
    let too_long = DecodeFault::OutOfBounds {
        field: "bytes",
        found,
        min: 0,
        max: 8,
    };
    assert_eq!(
        reader.bytes("bytes", 8).unwrap_err(),
        DecodeError {
            what: too_long,
            offset: 0
        }
    );
}

#[test]
fn a_reader_neither_reads_too_far_nor_leaves_a_tail() {
    let mut reader = Reader::new(&[1, 2, 3]);
    assert_eq!(reader.u16(), Ok(0x0201));
    let refused = reader.u32().unwrap_err();
    assert_eq!(
        refused,
        DecodeError {
            what: DecodeFault::Truncated { missing: 3 },
            offset: 2
        }
    );
    assert!(reader.take(usize::MAX).is_err());
    assert_eq!(reader.remaining(), 1, "a refused field takes nothing");
    let refused = reader.finish().unwrap_err();
    assert_eq!(
        refused,
        DecodeError {
            what: DecodeFault::Tail { bytes: 1 },
            offset: 2
        }
    );
}

#[test]
fn a_writer_refuses_what_a_reader_would() {
    let mut writer = Writer::new();
    assert!(writer.bytes("bytes", &[0; 9], 8).is_err());
    assert!(writer.name("name", "", 8).is_err());
    assert!(writer.name("name", "123456789", 8).is_err());
    assert!(writer.name("name", "tab\t", 8).is_err());
    assert!(writer.name("name", "é", 8).is_err());
    assert!(writer.list("items", &[Counted(1), Counted(2)], 1).is_err());
    assert!(
        writer
            .count("items", usize::from(u16::MAX) + 1, usize::MAX)
            .is_err()
    );
    assert!(writer.u16_within("number", 5, 6, 7).is_err());
    assert_eq!(writer.offset(), 0, "a refused field leaves nothing behind");
}
