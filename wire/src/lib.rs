//! The protocol: control messages and page frames as bytes. It does no I/O, knows no clock, and
//! decides nothing.
//!
//! A migration is one *link*: a control connection, which carries messages both ways, and some page
//! *streams*, which carry frames from the source to the target and nothing back. A stream begins
//! with a `Bind` frame, a control connection with a [`Hello`], so that the first four bytes
//! tell which it is ([`CONTROL_MAGIC`], [`FRAME_MAGIC`]).
//!
//! # The order of things
//!
//! ```text
//!      source                   control                    target
//!        │ Hello ───────────────────────────────────────────▶ │
//!        │ ◀─────────────────────────────────────────── Hello │  the same migration id
//!        │ Offer ───────────────────────────────────────────▶ │  judged; if accepted, room is made
//!        │ ◀───────────────────────────────────────── Verdict │  if refused: every reason;
//!        │                                                    │  if accepted: what the host gives
//!        │ Agreed, or Refuse with every reason ─────────────▶ │  the source has judged, too
//!        │                                                    │
//!        │ ═ Bind, once on each page stream ════════════════▶ │  with the verdict's secret
//!        │ ◀──────────────────────────────────── StreamsBound │
//!        │                                                    │
//!     ┌─ │ RoundStart ──────────────────────────────────────▶ │
//!     │  │ ═ Pages, Absent (round 0 only) ... ══════════════▶ │  on the stream that owns the chunk
//!     │  │ ═ Barrier, once on each page stream ═════════════▶ │
//!     │  │ RoundEnd ────────────────────────────────────────▶ │  the source's totals
//!     └─ │ ◀───────────────────────────────────── RoundLanded │  the target's; they must agree
//!        │     ... until little enough is left to write       │
//!        │                                                    │
//!        │ RoundStart of the final round ───────────────────▶ │  the host is judged again
//!  pause │ Pages, Barrier, RoundEnd as above ───────────────▶ │
//!        │ State ───────────────────────────────────────────▶ │
//!        │ ◀───────────────────────────────────── RoundLanded │
//!        │ ◀────────── Prepared, or Refuse with every reason  │  whole, but not its own yet
//!        │ HandOver ────────────────────────────────────────▶ │  from here on not the source's
//!        │ ◀───────────────────────────────────────── Running │
//! ```
//!
//! `KeepAlive` may come from either side at any time, and `Abort` ends the migration from either
//! side. Only control messages go backwards; nothing waits for a reply per page or per frame.
//! `Verdict`, `Agreed`, `State` and `Prepared` name the guest's processor by one digest, and a side
//! that reads another one than its own ends the migration.
//!
//! # A control message
//!
//! ```text
//! ┌──────────────────────────── Envelope, 20 bytes ────────────────────────────┬──────┐
//! │ LMSC 4 │ version 2 │ kind 2 │ body bytes 4 │ header crc 4 │ body crc 4 ────┼▶ body│
//! └────────────────────────────────────────────────────────────────────────────┴──────┘
//! ```
//!
//! [`Envelope::decode`] comes first. It refuses a length beyond the bound of its kind, so that the
//! receiver may make room for the body before it reads it; [`Message::decode`] then reads the body.
//!
//! # A page frame
//!
//! ```text
//! ┌────────────── FrameHeader, 64 bytes ───────────────┬─────────── table ────────────┬─────────┐
//! │ LMSF 4 │ version 2 │ kind 1 │ flags 1 (zero)       │ PageRecord, 16 bytes each:   │ payload │
//! │ migration 16 │ stream 2 │ records 2 │ round 4      │ first 4 │ count 4            │ of each │
//! │ sequence 8 │ chunk 8 │ payload bytes 4             │ encoding 1 │ zero 3          │ record  │
//! │ table crc 4 │ payload crc 4 │ header crc 4         │ payload bytes 4              │ in turn │
//! └────────────────────────────────────────────────────┴──────────────────────────────┴─────────┘
//! ```
//!
//! A `Pages` frame holds pages of one chunk, and a chunk belongs to the stream that first brings
//! one of it, for the whole migration: so the versions of a page arrive in order. A receiver
//! decodes the header ([`FrameHeader::decode`]), then the table ([`decode_table`]), and by then
//! knows where each byte of the payload belongs before it takes one. Pages are not checked against
//! the guest's memory map here: the receiver has it.
//!
//! # Rules for both
//!
//! Numbers are little-endian. Checksums are CRC-32 ([`checksum`]), and come before the fields that
//! they cover are believed. Each bound is in [`limits`], and a length is compared with its bound,
//! and with the bytes that are there, before anything is allocated. A thing has one form in bytes:
//! what decodes is exactly what would be encoded. A receiver ends the connection at the first
//! [`DecodeError`].
//!
//! # Versions
//!
//! Each peer says in its `Hello` which versions it speaks, and both use the newest that they have
//! in common ([`VersionRange::newest_common`]). A `Hello` is always written in
//! [`ProtocolVersion::HELLO`], whose envelope and fields never change, and is answered by one even
//! where there is no common version, so that both can say why. Anything else in a version that is
//! not spoken here is refused. Version 1, in which only the target judged, is spoken no more.
//!
//! # Example
//!
//! ```
//! use limosa_wire::{ENVELOPE_BYTES, Envelope, Message, Round, RoundKind, RoundStart};
//!
//! let sent = Message::RoundStart(RoundStart { round: Round::FIRST, kind: RoundKind::Full });
//! let bytes = sent.encode()?;
//!
//! // The receiver reads an envelope, and then as many bytes as it says.
//! let (front, rest) = bytes.split_first_chunk::<ENVELOPE_BYTES>().unwrap();
//! let envelope = Envelope::decode(front)?;
//! let body = &rest[..envelope.body_bytes as usize];
//! assert_eq!(Message::decode(&envelope, body)?, sent);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
pub use handshake::{Agreed, Hello, Offer, Reason, ReasonKind, Refuse, StreamsBound, Verdict};
pub use id::{MigrationId, Round, StreamIndex, StreamSecret};
pub use limits::STREAMS_MAX;
pub use message::Message;
pub use progress::{
    Abort, AbortReason, HandOver, KeepAlive, Prepared, RoundEnd, RoundKind, RoundLanded,
    RoundStart, Running,
};
pub use record::{
    CONSTANT_BYTES, DELTA_CHECKSUM_BYTES, EncodingCounts, EncodingSet, PageEncoding, PageRecord,
    RECORD_BYTES, decode_table, encode_table,
};
pub use state::{SectionKind, State, StateSection};
pub use version::{ProtocolVersion, VersionRange};
