//! Who may run the guest: the only file that changes it.
//!
//! Custody moves `Source → InTransit → Target` and never back. The source gives it away by the
//! hand-over message and the target takes it by receiving that message; between the two the guest is
//! in transit. As long as custody is with the source, every failure leaves the guest running there.
//! In transit neither side decides alone: the source can't know whether the message arrived, so it
//! leaves the guest paused and says so.

use core::fmt;

/// Who may run the guest, as one side knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Custody {
    /// The source: the guest runs there, or will again.
    Source,
    /// Given away and not known to have arrived: an operator must find out which side has it.
    InTransit,
    /// The target.
    Target,
}

impl fmt::Display for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::InTransit => "in-transit",
            Self::Target => "target",
        })
    }
}

/// The source's hold on the guest.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SourceHold(Custody);

impl SourceHold {
    pub(crate) const fn new() -> Self {
        Self(Custody::Source)
    }

    pub(crate) const fn custody(&self) -> Custody {
        self.0
    }

    /// May the guest run here (again)?
    pub(crate) const fn may_run(&self) -> bool {
        matches!(self.0, Custody::Source)
    }

    /// The hand-over message is about to leave. There is no way back.
    pub(crate) const fn give_away(&mut self) {
        if matches!(self.0, Custody::Source) {
            self.0 = Custody::InTransit;
        }
    }

    /// The target said that the guest runs there.
    pub(crate) const fn know_arrived(&mut self) {
        if matches!(self.0, Custody::InTransit) {
            self.0 = Custody::Target;
        }
    }
}

/// The target's hold on the guest.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TargetHold(Custody);

impl TargetHold {
    pub(crate) const fn new() -> Self {
        Self(Custody::Source)
    }

    pub(crate) const fn custody(&self) -> Custody {
        self.0
    }

    /// May the guest run here?
    pub(crate) const fn may_run(&self) -> bool {
        matches!(self.0, Custody::Target)
    }

    /// The hand-over message arrived.
    pub(crate) const fn take(&mut self) {
        self.0 = Custody::Target;
    }

    /// The guest was taken and can't be made to run here, and the source doesn't know.
    pub(crate) const fn could_not_run(&mut self) {
        self.0 = Custody::InTransit;
    }
}
