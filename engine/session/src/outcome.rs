//! How a session ended, and what that says about the guest.

use alloc::vec::Vec;

use limosa_wire::Reason;

use crate::custody::Custody;
use crate::error::SessionError;

/// How a session ended, as one side knows it.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// The guest runs at the target.
    Completed,
    /// The guest can't live on the target, as one side has found out and told the other: before
    /// anything moved, or at the switchover, where the target's host has changed. It runs at the
    /// source.
    Refused(Vec<Reason>),
    /// The guest is where it was.
    Failed(SessionError),
    /// The guest was given away, and is not known to run at the target: it stays paused at the
    /// source until an operator has made sure that it does not run at the target, and resumes it,
    /// or that it does, and drops it.
    InTransit(SessionError),
}

impl Outcome {
    /// Who may run the guest now.
    #[must_use]
    pub const fn custody(&self) -> Custody {
        match self {
            Self::Completed => Custody::Target,
            Self::Refused(_) | Self::Failed(_) => Custody::Source,
            Self::InTransit(_) => Custody::InTransit,
        }
    }
}
