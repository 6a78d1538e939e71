//! The names that tie streams and frames to one migration. Making them, which needs randomness, is
//! the caller's.

use core::fmt;

/// One migration: 16 random bytes, chosen by the source. Every frame carries it, so that a stream
/// which strays from another migration is known as a stranger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MigrationId([u8; 16]);

impl MigrationId {
    /// The migration named by `bytes`.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The name's bytes.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MigrationId({self})")
    }
}

/// What a page stream must show to be let in: 16 random bytes, chosen by the target and told to the
/// source with the accepted verdict. It keeps strangers out; it does not make the link private.
#[derive(Clone, Copy, Eq)]
pub struct StreamSecret([u8; 16]);

impl StreamSecret {
    /// The secret `bytes`.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The secret's bytes, to be written to the peer and nowhere else.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for StreamSecret {
    /// Looks at every byte, so that the time taken tells nothing about how many were right.
    fn eq(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .fold(0, |differences, (a, b)| differences | (a ^ b))
            == 0
    }
}

impl fmt::Debug for StreamSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamSecret(..)")
    }
}

/// One page stream of a migration, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct StreamIndex(u16);

impl StreamIndex {
    /// The stream numbered `index`.
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// The stream's number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for StreamIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One pass over pages, counted from 0. Round 0 is over every page, each later one over pages that
/// were written since.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Round(u32);

impl Round {
    /// The round over every page.
    pub const FIRST: Self = Self(0);

    /// The round numbered `round`.
    pub const fn new(round: u32) -> Self {
        Self(round)
    }

    /// The round's number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The round after this one. The last number stays itself: a migration ends long before.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
