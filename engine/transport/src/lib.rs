//! Moves bytes of a live migration between hosts: one control link and up to 64 page streams. It
//! never looks inside the body of a message or frame, and decides nothing.
//!
//! # Who opens what
//!
//! ```text
//! source                                       target
//! connect_control ───── Hello ──────────────►  Listener::accept_control
//! ControlWriter, ControlReader  ◄───────────►  ControlWriter, ControlReader
//! connect_stream  ───── Bind (× streams) ───►  Listener::accept_streams
//! PageSender      ───── frames ─────────────►  PageReceiver
//! ```
//!
//! A newcomer is known by its first message: a whole, unbroken `Hello` makes it a control link; a
//! `Bind` frame with the right migration and secret makes it a page stream. Anything else is a
//! stranger: it is dropped within [`LinkConfig::newcomer_max`] and is only counted
//! ([`Listener::strangers`]). `connect_stream` writes the `Bind` frame and `accept_streams` reads
//! it, so the first frame that a [`PageSender`] sends has sequence 1.
//!
//! # What a page stream promises
//!
//! Bytes arrive in order, whole, once; or the stream ends with a [`TransportError`] that says
//! which stream it was, who the peer is and what happened. After an error a stream is of no more
//! use. Sender and receiver stay on the thread that made them, because an io_uring belongs to one
//! thread: move the [`PageLink`], which is `Send`, to that thread and open it there.
//!
//! # How a blocked thread is freed
//!
//! [`StopHandle::stop`] may be called from any thread; whoever is blocked on that link returns with
//! [`TransportFault::Stopped`]. Waits for connections take a [`Wait`], which names a flag.

mod blocking;
mod config;
mod connect;
mod control;
mod endpoint;
mod error;
mod link;
mod listener;
mod newcomer;
mod options;
mod page;
mod probe;
mod splice;
mod sys;
mod unix_path;
mod uring;
mod wait;

pub use config::{Congestion, IoChoice, LinkConfig, Splice};
pub use connect::{connect_control, connect_stream};
pub use control::{ControlLink, ControlReader, ControlWriter};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{LinkName, LinkRole, TransportError, TransportFault};
pub use link::StopHandle;
pub use listener::{Listener, StreamsExpected};
pub use newcomer::Strangers;
pub use options::LinkFacts;
pub use page::{FrameBytes, PageLink, PageReceiver, PageSender, Piece};
pub use probe::{IoPlan, IoReason, PageIo, probe_io};
pub use splice::Splicer;
pub use wait::Wait;
