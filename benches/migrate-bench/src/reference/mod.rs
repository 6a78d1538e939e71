//! The yardsticks beside each run: bare sockets that carry as many bytes into the same kind of
//! memory, and what memory itself can do. None of the engine's code is measured here, but for the
//! loop that reads memory and the two calls that splice.

mod measure;
mod memory;
mod search;
mod settings;
mod sockets;
mod speeds;

pub(crate) use self::measure::{Carriage, SpeedSamples};
pub(crate) use self::memory::{fresh_memory, touch};
pub(crate) use self::search::{SocketsArgs, run as search};
pub(crate) use self::settings::{Landing, Sending, SocketSettings};
pub(crate) use self::sockets::{Sink, Waiting, blast};
pub(crate) use self::speeds::{Speeds, speeds};
