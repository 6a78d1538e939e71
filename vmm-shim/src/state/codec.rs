//! KVM's structures as bytes: their own layout, which is little-endian, without hidden padding and
//! part of the kernel's stable interface. Lengths are exact; values are the kernel's to judge.

use limosa_wire::codec::{Reader, Writer};
use limosa_wire::{DecodeError, DecodeFault};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Appends a structure.
pub(super) fn put<T: IntoBytes + Immutable>(writer: &mut Writer, structure: &T) {
    writer.put(structure.as_bytes());
}

/// Takes a structure.
pub(super) fn take<T: FromBytes>(reader: &mut Reader<'_>) -> Result<T, DecodeError> {
    let missing = size_of::<T>();
    let truncated = reader.error(DecodeFault::Truncated { missing });
    T::read_from_bytes(reader.take(missing)?).map_err(|_| truncated)
}

/// Appends at most `max` structures behind their number.
pub(super) fn put_all<T: IntoBytes + Immutable>(
    writer: &mut Writer,
    field: &'static str,
    structures: &[T],
    max: usize,
) -> Result<(), limosa_wire::EncodeError> {
    writer.count(field, structures.len(), max)?;
    structures
        .iter()
        .for_each(|structure| put(writer, structure));
    Ok(())
}

/// Takes at most `max` structures behind their number.
pub(super) fn take_all<T: FromBytes>(
    reader: &mut Reader<'_>,
    field: &'static str,
    max: usize,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count(field, max, size_of::<T>())?;
    (0..count).map(|_| take(reader)).collect()
}

/// Appends a number that may be missing.
pub(super) fn put_maybe(writer: &mut Writer, number: Option<u64>) {
    writer.u8(number.is_some().into());
    writer.u64(number.unwrap_or(0));
}

/// Takes a number that may be missing.
pub(super) fn take_maybe(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<Option<u64>, DecodeError> {
    let there = match reader.u8()? {
        0 => false,
        1 => true,
        found => {
            let found = found.into();
            return Err(reader.error(DecodeFault::Unknown { field, found }));
        }
    };
    match (there, reader.u64()?) {
        (true, number) => Ok(Some(number)),
        (false, 0) => Ok(None),
        (false, found) => Err(reader.error(DecodeFault::Mismatch {
            field,
            found,
            expected: 0,
        })),
    }
}
