//! What the engine asks of an embedder's guest: memory, pause, state, resume. It names no
//! hypervisor.

use std::sync::Arc;

use limosa_dirty::DirtySource;
use limosa_pipeline::GuestMemory;
use limosa_session::{Rehearsal, Slowdown, TargetPolicy};
use limosa_wire::{Offer, StateSection};

/// A failure inside the embedder's guest, in words for an operator.
///
/// Built by the embedder; the engine adds the stage and who has custody.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct GuestError {
    /// What was tried and what came of it, with the remedy where there is one.
    pub text: String,
}

impl GuestError {
    /// Takes any error's own words.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "so that it can be handed to `map_err` as it is"
    )]
    pub fn new<E: ToString>(error: E) -> Self {
        Self {
            text: error.to_string(),
        }
    }
}

/// A guest that runs here and may be moved away.
///
/// Calls come from one thread, in this order: [`offer`](Self::offer), [`memory`](Self::memory),
/// [`dirty_source`](Self::dirty_source), [`rehearse`](Self::rehearse), any number of
/// [`slow`](Self::slow), [`offer`](Self::offer) once more, and then at most one
/// [`pause`](Self::pause). After the pause either [`resume`](Self::resume) (the migration failed,
/// the guest stays) or [`release`](Self::release) (the target runs it) follows; neither follows
/// when the outcome is `InTransit`: then the guest stays paused until an operator decides.
pub trait SourceGuest: Send {
    /// What the target must judge before anything moves.
    ///
    /// `stream_count` and `encodings` are overwritten by the engine from its own configuration. It
    /// is asked for again right before the pause, while the guest runs: a processor that has
    /// changed by then ends the migration, because it is not the one that both sides agreed on.
    ///
    /// # Errors
    /// When the guest can't describe itself, for instance because a register can't be read.
    fn offer(&self) -> Result<Offer, GuestError>;

    /// The guest's memory; read while the guest runs.
    fn memory(&self) -> Arc<dyn GuestMemory>;

    /// A fresh source of every write to the guest's memory, by vCPUs and by the embedder itself.
    ///
    /// # Errors
    /// When the kernel can't record writes.
    fn dirty_source(&mut self) -> Result<Box<dyn DirtySource>, GuestError>;

    /// Holds the guest back, or lets it go again: called while it runs, each call in place of the
    /// one before. After a [`pause`](Self::pause) it is not held back any more, whether it runs on
    /// here or there.
    ///
    /// # Errors
    /// When this guest can't be held back in this way; it then runs as before.
    fn slow(&mut self, slowdown: Slowdown) -> Result<(), GuestError> {
        match slowdown {
            Slowdown::None => Ok(()),
            other => Err(GuestError::new(format_args!(
                "this guest can't be held back ({other})"
            ))),
        }
    }

    /// Stops the guest, takes its state, throws that away, and lets the guest go on at once: so
    /// that it is known how long a true pause will be. Asked for once, after the first round.
    ///
    /// `None`, the default, where that can't be done: then
    /// [`switchover_cost`](crate::SessionConfig::switchover_cost) is taken for it.
    ///
    /// # Errors
    /// What would also end a true switchover; the guest runs on.
    fn rehearse(&mut self) -> Result<Option<Rehearsal>, GuestError> {
        Ok(None)
    }

    /// Stops every vCPU and everything else that writes guest memory, and returns when all stand
    /// still.
    ///
    /// # Errors
    /// When a vCPU can't be stopped; the guest then counts as paused and is resumed.
    fn pause(&mut self) -> Result<(), GuestError>;

    /// Everything that must travel besides memory. Called once, after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When the kernel refuses to hand a state over.
    fn export_state(&mut self) -> Result<Vec<StateSection>, GuestError>;

    /// Lets the guest run on here, as if nothing had happened.
    ///
    /// # Errors
    /// When a vCPU can't be started again.
    fn resume(&mut self) -> Result<(), GuestError>;

    /// The target runs the guest: it must never run here again.
    ///
    /// # Errors
    /// When what belonged to it can't be let go.
    fn release(&mut self) -> Result<(), GuestError>;
}

/// A host that can take guests in.
pub trait TargetHost: Send {
    /// The guest that [`prepare`](Self::prepare) makes.
    type Guest: TargetGuest;

    /// What this host may be asked to take in; judged against each offer, and its `host` once more
    /// at the switchover, when the guest is being stopped: look anew each time, and quickly. The
    /// second call comes from a thread of its own.
    ///
    /// # Errors
    /// When the host can't be asked, for instance because `/dev/kvm` is missing.
    fn policy(&self) -> Result<TargetPolicy, GuestError>;

    /// Makes an empty guest for an accepted offer: machine, vCPUs and (unpopulated) memory.
    ///
    /// # Errors
    /// When the host has no room or its kernel refuses; the source is told and keeps the guest.
    fn prepare(&mut self, offer: &Offer) -> Result<Self::Guest, GuestError>;
}

/// A guest that is arriving. Dropping it before [`resume`](Self::resume) leaves nothing behind.
pub trait TargetGuest: Send {
    /// The guest's memory, to be written while it does not run yet.
    fn memory(&self) -> Arc<dyn GuestMemory>;

    /// Puts the state in place. Called once; memory may still be arriving.
    ///
    /// # Errors
    /// A section that is missing, unreadable or refused by the kernel: the guest must not run.
    fn restore_state(&mut self, sections: Vec<StateSection>) -> Result<(), GuestError>;

    /// Lets the guest run. All its memory and state are in place, and the source has handed it
    /// over.
    ///
    /// # Errors
    /// When a vCPU can't be started. The source has let go by then, so the outcome is `InTransit`.
    fn resume(&mut self) -> Result<(), GuestError>;
}
