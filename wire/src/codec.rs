//! Numbers, texts and lists as little-endian bytes: a reader that can neither read too far nor
//! leave a tail, and the writer beside it. What the fields mean is not known here.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{DecodeError, DecodeFault, EncodeError};

/// A thing that has one form in bytes.
///
/// `decode(encode(x)) == x`, and `decode` accepts nothing that `encode` would not have written.
pub trait Codec: Sized {
    /// Appends the thing's bytes.
    ///
    /// # Errors
    ///
    /// Where a receiver would refuse the thing: a field beyond its bounds.
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError>;

    /// Takes the thing off the front of the bytes.
    ///
    /// # Errors
    ///
    /// The first rule that the bytes break.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// Reads fields off the front of some bytes.
///
/// Lengths are compared with their bound, and with the bytes that are there, before anything is
/// allocated. End with [`finish`](Self::finish), which refuses bytes that nobody read.
///
/// ```
/// use limosa_wire::codec::{Reader, Writer};
///
/// let mut writer = Writer::new();
/// writer.u32(4);
/// writer.name("vendor", "GenuineIntel", 12)?;
/// let bytes = writer.into_bytes();
///
/// let mut reader = Reader::new(&bytes);
/// assert_eq!(reader.u32()?, 4);
/// assert_eq!(reader.name("vendor", 12)?, "GenuineIntel");
/// reader.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            offset: 0,
        }
    }

    /// How many bytes were read.
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// An error at the place where the reader stands.
    pub const fn error(&self, what: DecodeFault) -> DecodeError {
        DecodeError::new(what, self.offset)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`].
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.error(DecodeFault::Truncated {
                missing: count - self.rest.len(),
            }));
        };
        self.rest = rest;
        self.offset += count;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.error(DecodeFault::Truncated {
                missing: N - self.rest.len(),
            }));
        };
        self.rest = rest;
        self.offset += N;
        Ok(*taken)
    }

    /// The next byte.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next two bytes as a number.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`].
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes as a number.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of 16 bits within `min..=max`.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`], [`DecodeFault::OutOfBounds`].
    pub fn u16_within(
        &mut self,
        field: &'static str,
        min: u16,
        max: u16,
    ) -> Result<u16, DecodeError> {
        let offset = self.offset;
        let found = self.u16()?;
        within(field, found.into(), min.into(), max.into(), offset)?;
        Ok(found)
    }

    /// The length of a list of at most `max` items, each of at least `item_bytes_min` bytes: two
    /// bytes. A length that the bytes left cannot hold is refused here, so that the list may be
    /// allocated at once.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`], [`DecodeFault::OutOfBounds`].
    pub fn count(
        &mut self,
        field: &'static str,
        max: usize,
        item_bytes_min: usize,
    ) -> Result<usize, DecodeError> {
        let offset = self.offset;
        let count = usize::from(self.u16()?);
        within(field, count as u64, 0, max as u64, offset)?;
        self.check_left(count.saturating_mul(item_bytes_min))?;
        Ok(count)
    }

    /// A list of at most `max` items, each of at least `item_bytes_min` bytes.
    ///
    /// # Errors
    ///
    /// Those of [`count`](Self::count), and those of an item.
    pub fn list<T: Codec>(
        &mut self,
        field: &'static str,
        max: usize,
        item_bytes_min: usize,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(field, max, item_bytes_min)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::decode(self)?);
        }
        Ok(items)
    }

    /// At most `max` bytes, behind their number in four bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`], [`DecodeFault::OutOfBounds`].
    pub fn bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let offset = self.offset;
        let count = self.u32()?;
        within(field, count.into(), 0, max as u64, offset)?;
        self.take(count as usize)
    }

    /// A name of 1 to `max` bytes of printable ASCII, behind its length in two bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`], [`DecodeFault::OutOfBounds`], [`DecodeFault::Unreadable`].
    pub fn name(&mut self, field: &'static str, max: usize) -> Result<String, DecodeError> {
        self.string(field, 1, max, is_in_name)
    }

    /// A text for an operator, of at most `max` bytes, behind its length in two bytes. Control
    /// characters are refused: the text will be seen on a terminal.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Truncated`], [`DecodeFault::OutOfBounds`], [`DecodeFault::Unreadable`].
    pub fn text(&mut self, field: &'static str, max: usize) -> Result<String, DecodeError> {
        self.string(field, 0, max, is_in_text)
    }

    fn string(
        &mut self,
        field: &'static str,
        min: usize,
        max: usize,
        is_allowed: impl Fn(char) -> bool,
    ) -> Result<String, DecodeError> {
        let offset = self.offset;
        let count = self.u16()?;
        within(field, count.into(), min as u64, max as u64, offset)?;
        let offset = self.offset;
        match core::str::from_utf8(self.take(count.into())?) {
            Ok(text) if text.chars().all(is_allowed) => Ok(text.into()),
            _ => Err(DecodeError::new(DecodeFault::Unreadable { field }, offset)),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// [`DecodeFault::Tail`] where bytes are left.
    pub const fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(self.error(DecodeFault::Tail { bytes })),
        }
    }

    fn check_left(&self, bytes: usize) -> Result<(), DecodeError> {
        match bytes.checked_sub(self.rest.len()) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(self.error(DecodeFault::Truncated { missing })),
        }
    }
}

fn within(
    field: &'static str,
    found: u64,
    min: u64,
    max: u64,
    offset: usize,
) -> Result<(), DecodeError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(DecodeError::new(
        DecodeFault::OutOfBounds {
            field,
            found,
            min,
            max,
        },
        offset,
    ))
}

const fn is_in_name(character: char) -> bool {
    matches!(character, ' '..='~')
}

fn is_in_text(character: char) -> bool {
    !character.is_control()
}

/// Appends fields to a vector of bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A writer without bytes.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Everything that was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many bytes were written.
    pub const fn offset(&self) -> usize {
        self.bytes.len()
    }

    /// Appends bytes as they are, without their number.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a byte.
    pub fn u8(&mut self, number: u8) {
        self.put(&number.to_le_bytes());
    }

    /// Appends a number of two bytes.
    pub fn u16(&mut self, number: u16) {
        self.put(&number.to_le_bytes());
    }

    /// Appends a number of four bytes.
    pub fn u32(&mut self, number: u32) {
        self.put(&number.to_le_bytes());
    }

    /// Appends a number of eight bytes.
    pub fn u64(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    /// Appends a number of 16 bits that must be within `min..=max`.
    ///
    /// # Errors
    ///
    /// [`EncodeError::OutOfBounds`].
    pub fn u16_within(
        &mut self,
        field: &'static str,
        number: u16,
        min: u16,
        max: u16,
    ) -> Result<(), EncodeError> {
        self.check(field, number.into(), min.into(), max.into())?;
        self.u16(number);
        Ok(())
    }

    /// Appends the length of a list of at most `max` items.
    ///
    /// # Errors
    ///
    /// [`EncodeError::OutOfBounds`].
    pub fn count(
        &mut self,
        field: &'static str,
        count: usize,
        max: usize,
    ) -> Result<(), EncodeError> {
        self.check(field, count, 0, max.min(u16::MAX.into()))?;
        self.u16(count as u16);
        Ok(())
    }

    /// Appends a list of at most `max` items.
    ///
    /// # Errors
    ///
    /// [`EncodeError::OutOfBounds`], and those of an item.
    pub fn list<T: Codec>(
        &mut self,
        field: &'static str,
        items: &[T],
        max: usize,
    ) -> Result<(), EncodeError> {
        self.count(field, items.len(), max)?;
        items.iter().try_for_each(|item| item.encode(self))
    }

    /// Appends at most `max` bytes, behind their number.
    ///
    /// # Errors
    ///
    /// [`EncodeError::OutOfBounds`].
    pub fn bytes(
        &mut self,
        field: &'static str,
        bytes: &[u8],
        max: usize,
    ) -> Result<(), EncodeError> {
        self.check(field, bytes.len(), 0, max.min(u32::MAX as usize))?;
        self.u32(bytes.len() as u32);
        self.put(bytes);
        Ok(())
    }

    /// Appends a name: 1 to `max` bytes of printable ASCII.
    ///
    /// # Errors
    ///
    /// [`EncodeError::OutOfBounds`], [`EncodeError::Unreadable`].
    pub fn name(&mut self, field: &'static str, name: &str, max: usize) -> Result<(), EncodeError> {
        self.check(field, name.len(), 1, max.min(u16::MAX.into()))?;
        if !name.chars().all(is_in_name) {
            return Err(EncodeError::Unreadable { field });
        }
        self.u16(name.len() as u16);
        self.put(name.as_bytes());
        Ok(())
    }

    /// Appends as much of `text` as `max` bytes hold, with spaces for its control characters: a
    /// reason that is too long must still reach the peer. See [`readable`].
    pub fn text(&mut self, text: &str, max: usize) {
        let text = readable(text, max.min(u16::MAX.into()));
        self.u16(text.len() as u16);
        self.put(text.as_bytes());
    }

    fn check(
        &self,
        field: &'static str,
        found: usize,
        min: usize,
        max: usize,
    ) -> Result<(), EncodeError> {
        if (min..=max).contains(&found) {
            return Ok(());
        }
        let (found, min, max) = (found as u64, min as u64, max as u64);
        Err(EncodeError::OutOfBounds {
            field,
            found,
            min,
            max,
        })
    }
}

/// The text that a peer will see for `text`: its control characters become spaces, and what does
/// not fit in `bytes_max` bytes is left off.
pub fn readable(text: &str, bytes_max: usize) -> String {
    let mut readable = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let character = if is_in_text(character) {
            character
        } else {
            ' '
        };
        if readable.len() + character.len_utf8() > bytes_max {
            break;
        }
        readable.push(character);
    }
    readable
}

/// Declares an enumeration whose members have numbers on the wire: the one table of them.
macro_rules! numbered {
    (
        $(#[$about:meta])*
        pub enum $name:ident: $number_type:ident {
            $($(#[$about_member:meta])* $member:ident = $number:literal,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name {
            $($(#[$about_member])* $member,)*
        }

        impl $name {
            /// Every member, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$member),*];

            /// The member's number on the wire.
            pub const fn number(self) -> $number_type {
                match self { $(Self::$member => $number,)* }
            }

            /// The member with this number on the wire, if there is one.
            pub const fn from_number(number: $number_type) -> Option<Self> {
                match number {
                    $($number => Some(Self::$member),)*
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use numbered;
