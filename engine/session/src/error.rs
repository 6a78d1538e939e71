//! How a session fails: the variant says whose fault it was, and the text what to do.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use limosa_wire::{AbortReason, DecodeError, DecodeFault, MessageKind, Reason, Round, RoundKind};

use crate::judge::other_version;
use crate::slowdown::Slowdown;

/// What the peer did that it must not.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Misdeed {
    /// A message that has no place at this stage.
    #[error("it sent {message:?} {stage}")]
    OutOfPlace {
        /// The message.
        message: MessageKind,
        /// The stage.
        stage: Stage,
    },
    /// Bytes that are no message.
    #[error("it sent what is no message: {0}")]
    Garbage(DecodeError),
    /// An answer that names another migration.
    #[error("it answered for another migration")]
    OtherMigration,
    /// Accepted, or bound, more or other than was offered.
    #[error("it accepted {what} that were not offered")]
    AcceptedUnoffered {
        /// What.
        what: &'static str,
    },
    /// A first round that is not over everything, or a later one that is.
    #[error("it began round {round} as a {kind:?} one")]
    WrongRoundKind {
        /// The round.
        round: Round,
        /// What it was to be.
        kind: RoundKind,
    },
    /// A round out of turn.
    #[error("it spoke of round {found} where {expected} was due")]
    WrongRound {
        /// The round that was due.
        expected: Round,
        /// The round it spoke of.
        found: Round,
    },
    /// Totals of a round that differ from the own count.
    #[error("its totals of round {round} differ from what was counted here: {what}")]
    TotalsDiffer {
        /// The round.
        round: Round,
        /// Which ones.
        what: &'static str,
    },
    /// A host description that can't be read.
    #[error("its host's processor can't be read: {text}")]
    UnreadableHost {
        /// Why.
        text: String,
    },
    /// Another processor than the guest's.
    #[error(
        "it speaks of a processor with the digest {found:#018x}, the guest's is {expected:#018x}"
    )]
    OtherCpu {
        /// The digest of the guest's processor, as this side knows it.
        expected: u64,
        /// The digest that the peer named.
        found: u64,
    },
    /// A processor description that can't be read.
    #[error("its guest's processor can't be read: {text}")]
    UnreadableCpu {
        /// Why.
        text: String,
    },
    /// Rounds or state after the last round.
    #[error("it went on after the last round")]
    AfterLastRound,
    /// Pages that can't be placed.
    #[error("its pages can't be placed: {text}")]
    BadPages {
        /// Why.
        text: String,
    },
    /// Pages that never came, though every round's totals agreed.
    #[error("it did not send all pages: {text}")]
    PagesMissing {
        /// Which.
        text: String,
    },
    /// State of a kind that was not offered.
    #[error("it sent the state {name}, which was not offered")]
    StateUnoffered {
        /// The section's name.
        name: String,
    },
    /// State for a guest whose last round never began.
    #[error("it sent the guest's state outside the last round")]
    StateOutOfTurn,
}

/// What failed on this side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FaultKind {
    /// The kernel's record of writes.
    Kernel,
    /// The guest or its hypervisor.
    Guest,
    /// The network or a socket.
    Transport,
    /// Guest memory.
    Memory,
    /// This host ran out of something.
    Capacity,
}

impl FaultKind {
    pub(crate) const fn abort_reason(self) -> AbortReason {
        match self {
            Self::Kernel => AbortReason::Kernel,
            Self::Guest | Self::Memory => AbortReason::Guest,
            Self::Transport => AbortReason::Transport,
            Self::Capacity => AbortReason::Capacity,
        }
    }
}

/// A failure of this side's own, as the driver reports it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct LocalFault {
    /// What failed.
    pub kind: FaultKind,
    /// What happened, for an operator.
    pub text: String,
}

/// A guest that writes faster than its pages can be sent, or nearly so.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error(
    "after {rounds} rounds the guest still writes {} MiB/s and {} MiB/s are sent: the pause would \
     take {} ms, and {} ms are allowed{}; allow a longer one, stop it all the same (on-stall \
     stop), hold it back (on-stall throttle or limit), or move it when it is less busy",
    .dirty_bytes_per_second >> 20,
    .send_bytes_per_second >> 20,
    .expected.as_millis(),
    .budget.as_millis(),
    Although(*.slowdown)
)]
pub struct NotConverging {
    /// Rounds so far.
    pub rounds: u32,
    /// Bytes of guest pages that the guest dirties a second.
    pub dirty_bytes_per_second: u64,
    /// Bytes that reach the target a second.
    pub send_bytes_per_second: u64,
    /// What the pause would take now.
    pub expected: Duration,
    /// What it may take.
    pub budget: Duration,
    /// How much the guest was held back already.
    pub slowdown: Slowdown,
}

/// What was done already.
struct Although(Slowdown);

impl fmt::Display for Although {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Slowdown::None => Ok(()),
            slowdown => write!(f, ", although {slowdown}"),
        }
    }
}

/// Why a session did not complete.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(Misdeed),
    /// The guest can't live on the target.
    #[error("the guest can't live on the target: {}", ReasonList(.0))]
    PeerIncompatible(Vec<Reason>),
    /// The peer gave up, and said why.
    #[error("the peer gave up ({reason:?}): {text}")]
    PeerFailed {
        /// The kind of failure.
        reason: AbortReason,
        /// The peer's words.
        text: String,
    },
    /// No word of the peer for too long.
    #[error("no word of the peer for {longest:?}: its process hangs, or host or network are gone")]
    PeerSilent {
        /// How long.
        longest: Duration,
    },
    /// Something awaited did not come.
    #[error("{what} did not come within {longest:?}")]
    TimedOut {
        /// What.
        what: &'static str,
        /// How long was waited.
        longest: Duration,
    },
    /// A link ended.
    #[error("{0}")]
    LinkLost(String),
    /// This side failed.
    #[error("{0}")]
    Local(LocalFault),
    /// The guest is too busy.
    #[error("{0}")]
    NotConverging(NotConverging),
    /// An operator wished it.
    #[error("cancelled")]
    Cancelled,
}

impl SessionError {
    /// What the peer is told; none when there is nobody to tell.
    pub(crate) fn abort_reason(&self) -> Option<AbortReason> {
        Some(match self {
            Self::PeerMisbehaved(Misdeed::PagesMissing { .. }) => AbortReason::Ledger,
            Self::PeerMisbehaved(_) => AbortReason::Protocol,
            Self::PeerIncompatible(_) => AbortReason::Incompatible,
            Self::PeerFailed { .. } => return None,
            Self::PeerSilent { .. } | Self::TimedOut { .. } => AbortReason::Timeout,
            Self::LinkLost(_) => AbortReason::Transport,
            Self::Local(fault) => fault.kind.abort_reason(),
            Self::NotConverging(_) => AbortReason::NotConverging,
            Self::Cancelled => AbortReason::Cancelled,
        })
    }
}

impl SessionError {
    /// What bytes that are no message say of a peer `stage` of the session.
    pub(crate) fn of_garbage(error: DecodeError, stage: Stage) -> Self {
        match error.what {
            // Peers that have not met yet may be of different builds.
            DecodeFault::Version { found } if stage == Stage::Handshake => {
                Self::PeerIncompatible(vec![other_version(found)])
            }
            _ => Self::PeerMisbehaved(Misdeed::Garbage(error)),
        }
    }
}

/// Reasons as one text.
struct ReasonList<'a>(&'a [Reason]);

impl fmt::Display for ReasonList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, reason) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{}", reason.what)?;
            if !reason.remedy.is_empty() {
                write!(f, " ({})", reason.remedy)?;
            }
        }
        Ok(())
    }
}

/// An input that the driver must not give at this stage; the session is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{input} was reported {stage}, where nobody asked for it")]
pub struct ApiMisuse {
    /// The input's name.
    pub input: &'static str,
    /// The stage.
    pub stage: Stage,
}

/// How far a session is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// Before the connection.
    Connect,
    /// Until the verdict.
    Handshake,
    /// Between the verdict and the first round.
    Prepare,
    /// While the guest runs and its memory is copied.
    Rounds,
    /// From the pause to the hand-over.
    Switchover,
    /// From the hand-over to the word that the guest runs.
    HandOver,
    /// Afterwards.
    Finished,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "while connecting",
            Self::Handshake => "during the handshake",
            Self::Prepare => "while streams and memory were made ready",
            Self::Rounds => "while memory was copied",
            Self::Switchover => "during the switchover",
            Self::HandOver => "after the hand-over",
            Self::Finished => "after the end",
        })
    }
}
