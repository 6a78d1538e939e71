//! Page work on all logical processors: from a guest's memory into frames, and back. It knows no
//! socket, decides nothing about rounds, and names no hypervisor.
//!
//! ```text
//!  source                                        target
//!  scan ── PageSet → work lists, one per stream
//!    │                                           ledger ── may the guest resume?
//!    ▼  Corridor (one thread, one stream)          ▲  Lander (one thread, one stream)
//!  rearm → present? → lift → pack → seal         open → check → receive / unpack → place
//!    │     guest      ────────────► frame          ▲             frame ────────────► guest
//!    ▼                                             │
//!  sink  ═════════════ the engine's link ════════► FrameSource
//! ```
//!
//! A page is read once out of the guest, straight to its place in the frame that is sent, and the
//! same pass finds out whether it is zero. On its way it crosses no thread, takes no lock and
//! allocates nothing; buffers are made before the first round by a [`BufferPool`].
//!
//! A chunk belongs to one stream for the whole migration, the first that sends it
//! ([`ChunkOwners`]): the versions of a page arrive in order.
//!
//! `unsafe` lives in `kernels/` only.

mod buffers;
mod chunk_bits;
pub mod classify;
mod codec;
mod config;
mod copy;
mod corridor;
mod encode;
mod frame_buf;
mod heat;
pub mod kernels;
mod land;
mod ledger;
mod memory;
mod owners;
mod pack;
mod scan;
mod seal;

pub use buffers::BufferPool;
pub use codec::{UnpackFault, ZstdLevel};
pub use config::{Codec, PackConfig, Staging, UnknownCodec};
pub use corridor::{Corridor, PackError, StreamReport};
pub use frame_buf::{FrameBuf, Piece};
pub use heat::{Heat, Held};
pub use land::{FrameSource, LandError, Landed, Lander, POPULATE_PAGES_MIN};
pub use ledger::{Gap, Ledger, RoundTotals};
pub use memory::{GuestMemory, MemoryError};
pub use owners::ChunkOwners;
pub use scan::{ChunkWork, FreeChunks, Shares, clear_set, scan, share_out, work_of};
pub use seal::OpenError;
