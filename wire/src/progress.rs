//! The messages while a guest moves: rounds, hand-over, abort and keep-alive. Who has custody of
//! the guest after each is the session's.

use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Codec, Reader, Writer, numbered};
use crate::error::{DecodeError, DecodeFault, EncodeError};
use crate::id::Round;
use crate::limits::{ABORT_TEXT_BYTES_MAX, STREAMS_MAX};

numbered! {
    /// Which pages a round is over.
    pub enum RoundKind: u8 {
        /// Every page of the guest; round 0.
        Full = 1,
        /// Pages written while the round before was sent; the guest runs.
        Live = 2,
        /// The last pages; the guest stands still.
        Final = 3,
    }
}

/// The source's word that pages of a round follow on the streams. Of the final round it says so
/// before it stops the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundStart {
    /// Which round.
    pub round: Round,
    /// Which pages it is over.
    pub kind: RoundKind,
}

impl Codec for RoundStart {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u32(self.round.get());
        writer.u8(self.kind.number());
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let round = Round::new(reader.u32()?);
        let offset = reader.offset();
        let number = reader.u8()?;
        let what = DecodeFault::Unknown {
            field: "kind of round",
            found: number.into(),
        };
        let kind = RoundKind::from_number(number).ok_or(DecodeError::new(what, offset))?;
        Ok(Self { round, kind })
    }
}

/// The source's totals of a round, all of which was sent. The target must have counted the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoundEnd {
    /// Which round.
    pub round: Round,
    /// How many frames went on each stream in this round: at most [`STREAMS_MAX`] streams.
    pub frames: Vec<u64>,
    /// How many pages the round had, in every encoding together.
    pub pages: u64,
}

impl Codec for RoundEnd {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u32(self.round.get());
        writer.count("streams", self.frames.len(), STREAMS_MAX.into())?;
        self.frames.iter().for_each(|frames| writer.u64(*frames));
        writer.u64(self.pages);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let round = Round::new(reader.u32()?);
        let count = reader.count("streams", STREAMS_MAX.into(), 8)?;
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            frames.push(reader.u64()?);
        }
        Ok(Self {
            round,
            frames,
            pages: reader.u64()?,
        })
    }
}

/// The target's word that all of a round has arrived and lies in the guest's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundLanded {
    /// Which round.
    pub round: Round,
    /// How many pages the target counted.
    pub pages: u64,
}

impl Codec for RoundLanded {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u32(self.round.get());
        writer.u64(self.pages);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            round: Round::new(reader.u32()?),
            pages: reader.u64()?,
        })
    }
}

/// Declares messages that say all by being sent.
macro_rules! without_fields {
    ($($(#[$about:meta])* $name:ident)*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name {}

        impl Codec for $name {
            fn encode(&self, _: &mut Writer) -> Result<(), EncodeError> {
                Ok(())
            }

            fn decode(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self {})
            }
        }
    )*};
}

/// The target's word that memory and state are whole, that its host can still give the guest's
/// processor, and that nothing but the guest's custody is missing for it to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// The digest of the guest's processor as the target has judged it again.
    pub cpu_digest: u64,
}

impl Codec for Prepared {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u64(self.cpu_digest);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            cpu_digest: reader.u64()?,
        })
    }
}

without_fields! {
    /// The source's word that it gives the guest away. From here on it never resumes the guest by
    /// itself.
    HandOver
    /// The target's word that the guest runs there.
    Running
}

numbered! {
    /// Why a peer ends a migration.
    pub enum AbortReason: u8 {
        /// An operator wished it.
        Cancelled = 1,
        /// The sender's kernel failed it.
        Kernel = 2,
        /// The sender's guest failed it.
        Guest = 3,
        /// A stream broke.
        Transport = 4,
        /// The receiver broke the protocol.
        Protocol = 5,
        /// The guest does not fit the host after all.
        Incompatible = 6,
        /// The receiver was silent for too long.
        Timeout = 7,
        /// Pages are missing at the target.
        Ledger = 8,
        /// The sender's host ran out of something.
        Capacity = 9,
        /// The sender failed in a way that it cannot name.
        Internal = 10,
        /// The guest writes faster than its pages can be sent.
        NotConverging = 11,
    }
}

/// A peer's word that this migration ends here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Abort {
    /// Why.
    pub reason: AbortReason,
    /// What happened, for an operator: one line, of which at most [`ABORT_TEXT_BYTES_MAX`] bytes
    /// are sent.
    pub text: String,
}

impl Codec for Abort {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u8(self.reason.number());
        writer.text(&self.text, ABORT_TEXT_BYTES_MAX);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        let number = reader.u8()?;
        let what = DecodeFault::Unknown {
            field: "reason of an abort",
            found: number.into(),
        };
        Ok(Self {
            reason: AbortReason::from_number(number).ok_or(DecodeError::new(what, offset))?,
            text: reader.text("text of an abort", ABORT_TEXT_BYTES_MAX)?,
        })
    }
}

/// A peer's word that it is still there, when it has nothing else to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeepAlive {
    /// Counts the sender's keep-alives, from 0.
    pub sequence: u64,
}

impl Codec for KeepAlive {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u64(self.sequence);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            sequence: reader.u64()?,
        })
    }
}
