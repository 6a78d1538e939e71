//! What can go wrong with a link, which link it was, and what to do. Whose fault it was in the eyes
//! of a migration, the session says.

use std::fmt;
use std::io;
use std::time::Duration;

use limosa_wire::{DecodeError, StreamIndex};

use crate::endpoint::Endpoint;

/// What a link is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkRole {
    /// Control messages.
    Control,
    /// The frames of one page stream.
    Stream(StreamIndex),
    /// Waiting for newcomers.
    Listener,
}

/// A link as errors name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkName {
    /// What it is for.
    pub role: LinkRole,
    /// The other side's address; a listener's own.
    pub peer: Endpoint,
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            LinkRole::Control => write!(f, "control link to {}", self.peer),
            LinkRole::Stream(index) => write!(f, "page stream {index} to {}", self.peer),
            LinkRole::Listener => write!(f, "listener on {}", self.peer),
        }
    }
}

/// A link that failed. It is of no more use, but for a listener's after
/// [`TransportFault::TimedOut`] or [`TransportFault::Cancelled`].
#[derive(Debug, thiserror::Error)]
#[error("{link}: {fault}")]
pub struct TransportError {
    /// Which link.
    pub link: LinkName,
    /// What happened to it.
    #[source]
    pub fault: TransportFault,
}

/// What happened to a link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportFault {
    /// The peer closed the link where a message or frame could have begun.
    #[error("the peer closed the link; its log says why")]
    Closed,
    /// The peer closed the link inside a message or frame.
    #[error("the peer closed the link {missing_bytes} bytes short; its log says why")]
    ClosedMidway {
        /// How many bytes of the piece that was being received did not come.
        missing_bytes: usize,
    },
    /// The peer, or its kernel, broke the link off: a process that ended or gave up, a firewall.
    #[error("the peer broke the link off; see whether its process still runs")]
    Reset,
    /// The peer took or gave no byte for longer than [`LinkConfig::io_silence_max`] in the midst of
    /// a message or frame.
    ///
    /// [`LinkConfig::io_silence_max`]: crate::LinkConfig::io_silence_max
    #[error("no byte moved for {silence:?}; see whether the peer hangs or the network is down")]
    Silent {
        /// How long no byte moved, at least.
        silence: Duration,
    },
    /// The peer's kernel answers no more: host or network are gone.
    #[error("the peer's host answers no more; see whether it and the network are up")]
    Vanished,
    /// [`StopHandle::stop`](crate::StopHandle::stop) was called here.
    #[error("stopped on this side")]
    Stopped,
    /// The wait's flag was raised.
    #[error("cancelled on this side")]
    Cancelled,
    /// What was waited for did not come in time.
    #[error("{what} did not come within {longest:?}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        longest: Duration,
    },
    /// Nobody listens at the address.
    #[error("nobody listens there; start the target first, and check address and port")]
    Refused,
    /// The address can't be reached.
    #[error("can't be reached ({source}); check address, routes and firewalls")]
    Unreachable {
        /// The kernel's or resolver's word.
        source: io::Error,
    },
    /// The address to listen on is in use.
    #[error("the address is taken, by another process or by a file; free it or choose another")]
    AddressInUse,
    /// The address to listen on is not one of this host, or its file can't be made.
    #[error("can't listen there ({source}); it must be an address or folder of this host")]
    AddressUnusable {
        /// The kernel's or resolver's word.
        source: io::Error,
    },
    /// The peer's bytes are no message.
    #[error("the peer sent no valid message: {0}")]
    Garbage(#[source] DecodeError),
    /// io_uring was demanded and can't be had.
    #[error("io_uring was demanded but can't be had: {reason}")]
    NoUring {
        /// Why not.
        reason: crate::probe::IoReason,
    },
    /// The kernel refused a call for another reason.
    #[error("the kernel refused to {deed}: {source}")]
    Kernel {
        /// What was tried.
        deed: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

impl TransportFault {
    /// The fault behind an error of a call on a connected socket.
    pub(crate) fn of_socket(error: io::Error, deed: &'static str) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => Self::Vanished,
            _ => Self::Kernel {
                deed,
                source: error,
            },
        }
    }

    /// This fault, of the link `link`.
    pub(crate) fn of(self, link: LinkName) -> TransportError {
        TransportError { link, fault: self }
    }
}
