//! The target once all pages have landed: ledger, state and host are still awaited, and then the
//! hand-over.

use alloc::string::String;
use alloc::vec::Vec;

use limosa_compat::HostCpu;
use limosa_wire::{HandOver, Message, Prepared, Reason, Refuse, State as StateMessage};

use super::{Resuming, State, Step, Terms};
use crate::error::Misdeed;
use crate::event::Event;
use crate::io::TargetAction as Action;
use crate::target::Context;

/// How far the guest's state is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Restore {
    Awaited,
    Restoring,
    Restored,
}

impl Restore {
    /// Orders the state to be put in place, if it is of the kinds that were offered. Whether all
    /// that the guest needs is there, only who restores it knows.
    pub(super) fn start(
        said: StateMessage,
        terms: &Terms,
        cx: &mut Context,
    ) -> Result<Self, Misdeed> {
        terms.cpu.check(said.cpu_digest)?;
        let mut kinds = said.sections.iter().map(|section| &section.kind);
        if let Some(kind) = kinds.find(|kind| !terms.sections.contains(kind)) {
            let name = kind.name.clone();
            return Err(Misdeed::StateUnoffered { name });
        }
        cx.outbox.act([Action::RestoreState(said.sections)]);
        Ok(Self::Restoring)
    }
}

/// Whether the host can still give what it promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Survey {
    Asked,
    Fits,
}

impl Survey {
    /// Judges the guest again, by what the host can give now. Where it does not fit any more the
    /// source is told every reason.
    pub(super) fn judge(
        host: &HostCpu,
        terms: &Terms,
        cx: &mut Context,
    ) -> Result<Self, Vec<Reason>> {
        match terms.cpu.judge(host) {
            Ok(mut warnings) => {
                warnings.retain(|warning| !terms.warnings.contains(warning));
                let warnings = warnings.into_iter().map(Event::Warning);
                warnings.for_each(|warning| cx.outbox.observe(warning));
                Ok(Self::Fits)
            }
            Err(reasons) => {
                let refuse = Refuse {
                    reasons: reasons.clone(),
                };
                cx.outbox.send(Message::Refuse(refuse));
                Err(reasons)
            }
        }
    }
}

/// The last round has landed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Completing {
    terms: Terms,
    ledger: Ledger,
    restore: Restore,
    survey: Survey,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ledger {
    Checking,
    Complete,
}

impl Completing {
    pub(super) const fn new(terms: Terms, restore: Restore, survey: Survey) -> Self {
        let ledger = Ledger::Checking;
        Self {
            terms,
            ledger,
            restore,
            survey,
        }
    }

    pub(super) fn on_surveyed(self, host: &HostCpu, cx: &mut Context) -> Step<State> {
        if self.survey != Survey::Asked {
            return Step::Refused(State::Completing(self));
        }
        match Survey::judge(host, &self.terms, cx) {
            Ok(survey) => Self { survey, ..self }.on(cx),
            Err(reasons) => Step::Incompatible(reasons),
        }
    }

    pub(super) fn on_state(self, said: StateMessage, cx: &mut Context) -> Step<State> {
        if self.restore != Restore::Awaited {
            return Step::Refused(State::Completing(self));
        }
        match Restore::start(said, &self.terms, cx) {
            Ok(restore) => Self { restore, ..self }.on(cx),
            Err(misdeed) => Step::blame(misdeed),
        }
    }

    pub(super) fn on_restored(self, cx: &mut Context) -> Step<State> {
        if self.restore != Restore::Restoring {
            return Step::Refused(State::Completing(self));
        }
        let restore = Restore::Restored;
        Self { restore, ..self }.on(cx)
    }

    pub(super) fn on_complete(self, cx: &mut Context) -> Step<State> {
        if self.ledger != Ledger::Checking {
            return Step::Refused(State::Completing(self));
        }
        let ledger = Ledger::Complete;
        Self { ledger, ..self }.on(cx)
    }

    pub(super) fn on_gap(self, text: String) -> Step<State> {
        match self.ledger {
            Ledger::Checking => Step::blame(Misdeed::PagesMissing { text }),
            Ledger::Complete => Step::Refused(State::Completing(self)),
        }
    }

    fn on(self, cx: &mut Context) -> Step<State> {
        let here = (self.ledger, self.restore, self.survey);
        if here != (Ledger::Complete, Restore::Restored, Survey::Fits) {
            return Step::To(State::Completing(self));
        }
        let cpu_digest = self.terms.cpu.digest();
        cx.outbox.send(Message::Prepared(Prepared { cpu_digest }));
        cx.outbox.wait_for("the hand-over", cx.config.hand_over_max);
        Step::To(State::AwaitHandOver(AwaitHandOver))
    }
}

/// Everything is in place; the guest is the source's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AwaitHandOver;

impl AwaitHandOver {
    pub(super) fn on_hand_over(self, message: HandOver, cx: &mut Context) -> Step<State> {
        Resuming::start(message, cx)
    }
}
