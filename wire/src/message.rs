//! Control messages as a whole: which there are, and their way into an envelope and out of it. The
//! messages themselves are in `handshake.rs`, `progress.rs` and `state.rs`.

use alloc::vec::Vec;

use crate::checksum::checksum;
use crate::codec::{Codec, Reader, Writer};
use crate::envelope::{ENVELOPE_BYTES, Envelope, MessageKind};
use crate::error::{DecodeError, DecodeFault, EncodeError};
use crate::handshake::{Agreed, Hello, Offer, Refuse, StreamsBound, Verdict};
use crate::progress::{
    Abort, HandOver, KeepAlive, Prepared, RoundEnd, RoundLanded, RoundStart, Running,
};
use crate::state::State;
use crate::version::ProtocolVersion;

/// A control message. The order in which they may come is drawn on the crate's front page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Both ways: who speaks, and in which versions.
    Hello(Hello),
    /// To the target: what the guest needs.
    Offer(Offer),
    /// To the source: whether the guest may come.
    Verdict(Verdict),
    /// To the target: the guest fits by the source's judgement, too; page streams follow.
    Agreed(Agreed),
    /// Both ways: the guest can't live on the target, though it was accepted.
    Refuse(Refuse),
    /// To the source: the page streams are open and known.
    StreamsBound(StreamsBound),
    /// To the target: pages of a round follow on the streams.
    RoundStart(RoundStart),
    /// To the target: all of a round was sent.
    RoundEnd(RoundEnd),
    /// To the source: all of a round has arrived.
    RoundLanded(RoundLanded),
    /// To the target: what the guest is besides its memory.
    State(State),
    /// To the source: the guest could run here now.
    Prepared(Prepared),
    /// To the target: the guest is yours.
    HandOver(HandOver),
    /// To the source: the guest runs here.
    Running(Running),
    /// Both ways: this migration ends here.
    Abort(Abort),
    /// Both ways: nothing to say, still here.
    KeepAlive(KeepAlive),
}

impl Message {
    /// Which message this is.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Hello(_) => MessageKind::Hello,
            Self::Offer(_) => MessageKind::Offer,
            Self::Verdict(_) => MessageKind::Verdict,
            Self::Agreed(_) => MessageKind::Agreed,
            Self::Refuse(_) => MessageKind::Refuse,
            Self::StreamsBound(_) => MessageKind::StreamsBound,
            Self::RoundStart(_) => MessageKind::RoundStart,
            Self::RoundEnd(_) => MessageKind::RoundEnd,
            Self::RoundLanded(_) => MessageKind::RoundLanded,
            Self::State(_) => MessageKind::State,
            Self::Prepared(_) => MessageKind::Prepared,
            Self::HandOver(_) => MessageKind::HandOver,
            Self::Running(_) => MessageKind::Running,
            Self::Abort(_) => MessageKind::Abort,
            Self::KeepAlive(_) => MessageKind::KeepAlive,
        }
    }

    /// The message's bytes: envelope and body.
    ///
    /// The texts of reasons and aborts always fit: see [`readable`](crate::codec::readable).
    ///
    /// # Errors
    ///
    /// Where a field is beyond its bound, so that the peer would refuse the message.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new();
        writer.put(&[0; ENVELOPE_BYTES]);
        self.encode_body(&mut writer)?;
        let mut bytes = writer.into_bytes();
        let (envelope, body) = bytes.split_at_mut(ENVELOPE_BYTES);
        let max = self.kind().body_bytes_max() as u64;
        let found = body.len() as u64;
        if found > max {
            return Err(EncodeError::OutOfBounds {
                field: "body",
                found,
                min: 0,
                max,
            });
        }
        let version = match self {
            Self::Hello(_) => ProtocolVersion::HELLO,
            _ => ProtocolVersion::CURRENT,
        };
        let body_crc = checksum(body);
        let front = Envelope {
            version,
            kind: self.kind(),
            body_bytes: found as u32,
            body_crc,
        };
        envelope.copy_from_slice(&front.encode());
        Ok(bytes)
    }

    fn encode_body(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Hello(message) => message.encode(writer),
            Self::Offer(message) => message.encode(writer),
            Self::Verdict(message) => message.encode(writer),
            Self::Agreed(message) => message.encode(writer),
            Self::Refuse(message) => message.encode(writer),
            Self::StreamsBound(message) => message.encode(writer),
            Self::RoundStart(message) => message.encode(writer),
            Self::RoundEnd(message) => message.encode(writer),
            Self::RoundLanded(message) => message.encode(writer),
            Self::State(message) => message.encode(writer),
            Self::Prepared(message) => message.encode(writer),
            Self::HandOver(message) => message.encode(writer),
            Self::Running(message) => message.encode(writer),
            Self::Abort(message) => message.encode(writer),
            Self::KeepAlive(message) => message.encode(writer),
        }
    }

    /// Reads the body that followed `envelope`: length, checksum, then every field.
    ///
    /// # Errors
    ///
    /// The first rule that the body breaks.
    pub fn decode(envelope: &Envelope, body: &[u8]) -> Result<Self, DecodeError> {
        if body.len() as u64 != u64::from(envelope.body_bytes) {
            let (found, expected) = (body.len() as u64, envelope.body_bytes.into());
            let what = DecodeFault::Mismatch {
                field: "length of the body",
                found,
                expected,
            };
            return Err(DecodeError::new(what, 0));
        }
        if checksum(body) != envelope.body_crc {
            return Err(DecodeError::new(DecodeFault::Checksum { of: "body" }, 0));
        }
        let mut reader = Reader::new(body);
        let message = Self::decode_body(envelope.kind, &mut reader)?;
        reader.finish()?;
        Ok(message)
    }

    fn decode_body(kind: MessageKind, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            MessageKind::Hello => Self::Hello(Codec::decode(reader)?),
            MessageKind::Offer => Self::Offer(Codec::decode(reader)?),
            MessageKind::Verdict => Self::Verdict(Codec::decode(reader)?),
            MessageKind::Agreed => Self::Agreed(Codec::decode(reader)?),
            MessageKind::Refuse => Self::Refuse(Codec::decode(reader)?),
            MessageKind::StreamsBound => Self::StreamsBound(Codec::decode(reader)?),
            MessageKind::RoundStart => Self::RoundStart(Codec::decode(reader)?),
            MessageKind::RoundEnd => Self::RoundEnd(Codec::decode(reader)?),
            MessageKind::RoundLanded => Self::RoundLanded(Codec::decode(reader)?),
            MessageKind::State => Self::State(Codec::decode(reader)?),
            MessageKind::Prepared => Self::Prepared(Codec::decode(reader)?),
            MessageKind::HandOver => Self::HandOver(Codec::decode(reader)?),
            MessageKind::Running => Self::Running(Codec::decode(reader)?),
            MessageKind::Abort => Self::Abort(Codec::decode(reader)?),
            MessageKind::KeepAlive => Self::KeepAlive(Codec::decode(reader)?),
        })
    }
}
