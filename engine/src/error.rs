//! Why a migration did not end as asked: at which stage, whose fault, and who has the guest.

use limosa_dirty::HarvestError;
use limosa_pipeline::{LandError, MemoryError};
use limosa_session::{Custody, FaultKind, LocalFault, Misdeed, SessionError, Stage};
use limosa_transport::{TransportError, TransportFault};
use limosa_wire::Reason;

use crate::guest::GuestError;

/// A migration that did not complete.
///
/// `custody` is what an operator asks first: with [`Custody::Source`] the guest runs on the source
/// as if nothing had happened; with [`Custody::InTransit`] it stands still on the source and may or
/// may not run on the target, and the operator must find out before anything else.
#[derive(Debug, thiserror::Error)]
#[error("{cause} ({stage})")]
pub struct MigrationError {
    /// How far the session was.
    pub stage: Stage,
    /// Who may run the guest.
    pub custody: Custody,
    /// What happened.
    #[source]
    pub cause: Cause,
}

/// What happened. The variant says whose fault it was.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The peer, or the session with it: refused, misbehaved, failed, fell silent, or was
    /// cancelled.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The network, or a socket of this host.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The kernel's record of writes.
    #[error("writes to guest memory can't be followed: {0}")]
    Kernel(#[from] HarvestError),
    /// This host's guest.
    #[error("the guest: {0}")]
    Guest(#[from] GuestError),
    /// This host's guest memory.
    #[error("guest memory: {0}")]
    Memory(#[from] MemoryError),
    /// What arrived can't be placed.
    #[error("what arrived can't be placed: {0}")]
    Landing(#[from] LandError),
    /// This host has no threads left, or one of the engine's ended by itself.
    #[error("this host: {0}")]
    Host(String),
}

impl Cause {
    /// The failure behind the session's end: this side's own, where the session means that one,
    /// because it has more in it.
    pub(crate) fn of(error: SessionError, own: Option<Self>) -> Self {
        match own {
            Some(own) if is_own(&error) => own,
            _ => Self::Session(error),
        }
    }

    /// The guest was to go on after `failure`, and did not.
    pub(crate) fn stuck(stuck: &GuestError, failure: &Self) -> Self {
        let text =
            format!("it stands still, because it could not be resumed ({stuck}) after: {failure}");
        Self::Guest(GuestError { text })
    }

    pub(crate) fn refused(reasons: Vec<Reason>) -> Self {
        Self::Session(SessionError::PeerIncompatible(reasons))
    }

    /// The same as the session and the peer are told.
    pub(crate) fn fault(&self) -> LocalFault {
        let kind = match self {
            Self::Session(_) | Self::Transport(_) => FaultKind::Transport,
            Self::Kernel(_) => FaultKind::Kernel,
            Self::Guest(_) => FaultKind::Guest,
            Self::Memory(_) | Self::Landing(_) => FaultKind::Memory,
            Self::Host(_) => FaultKind::Capacity,
        };
        LocalFault {
            kind,
            text: self.to_string(),
        }
    }

    /// Did one of the sides find that the guest can't live on the target?
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Session(SessionError::PeerIncompatible(_)))
    }

    /// Did an operator wish it?
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Session(SessionError::Cancelled) => true,
            Self::Transport(error) => matches!(error.fault, TransportFault::Cancelled),
            _ => false,
        }
    }
}

/// Did the session end for what this side reported?
const fn is_own(error: &SessionError) -> bool {
    matches!(
        error,
        SessionError::Local(_) | SessionError::PeerMisbehaved(Misdeed::BadPages { .. })
    )
}
