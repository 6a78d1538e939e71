//! Control messages and page frames as bytes. It does no I/O, knows no clock, and decides nothing.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod checksum;
pub mod codec;
mod envelope;
mod error;
mod frame;
mod handshake;
mod id;
pub mod limits;
mod message;
mod progress;
mod record;
mod state;
mod version;

pub use checksum::checksum;
pub use envelope::{CONTROL_MAGIC, ENVELOPE_BYTES, Envelope, MessageKind};
pub use error::{DecodeError, DecodeFault, EncodeError};
pub use frame::{Barrier, Bind, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind};
pub use handshake::{Hello, Offer, Reason, ReasonKind, StreamsBound, Verdict};
pub use id::{MigrationId, Round, StreamIndex, StreamSecret};
pub use limits::STREAMS_MAX;
pub use message::Message;
pub use progress::{
    Abort, AbortReason, HandOver, KeepAlive, Prepared, RoundEnd, RoundKind, RoundLanded,
    RoundStart, Running,
};
pub use record::{
    EncodingCounts, EncodingSet, PageEncoding, PageRecord, RECORD_BYTES, decode_table, encode_table,
};
pub use state::{SectionKind, State, StateSection};
pub use version::{ProtocolVersion, VersionRange};
