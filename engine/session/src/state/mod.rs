//! The states of both machines: one struct for each, with only what is true in it, moved by value
//! from step to step.

use alloc::vec::Vec;

use limosa_wire::{EncodingSet, MigrationId, Reason, SectionKind};

use crate::cpu::OfferedCpu;
use crate::error::{Misdeed, SessionError};
use crate::event::Warning;
use crate::outcome::Outcome;

pub(crate) mod source;
pub(crate) mod target;

/// What a state makes of an input.
#[derive(Debug)]
pub(crate) enum Step<S> {
    /// The session goes on in this state.
    To(S),
    /// The state has no use for the input, and remains.
    Refused(S),
    /// The session fails.
    Fail(SessionError),
    /// The guest can't live on the target, and the peer knows why.
    Incompatible(Vec<Reason>),
    /// The session ends as agreed.
    End(Outcome),
}

impl<S> Step<S> {
    pub(crate) const fn blame(misdeed: Misdeed) -> Self {
        Self::Fail(SessionError::PeerMisbehaved(misdeed))
    }
}

/// What an accepting target has agreed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Terms {
    pub(crate) migration_id: MigrationId,
    pub(crate) stream_count: u16,
    pub(crate) encodings: EncodingSet,
    pub(crate) sections: Vec<SectionKind>,
    /// The guest's processor, of which every message must speak.
    pub(crate) cpu: OfferedCpu,
    /// Differences that were forgiven, and told.
    pub(crate) warnings: Vec<Warning>,
}
