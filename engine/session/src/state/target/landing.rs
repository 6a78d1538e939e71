//! The target while pages arrive: between two rounds, in a round, and in the last one, with which
//! the guest's state comes.

use limosa_compat::HostCpu;
use limosa_wire::{Round, RoundEnd, RoundKind, RoundStart, State as StateMessage};

use super::completing::{Completing, Restore, Survey};
use super::tally::{Settled, Tally, Totals, confirm};
use super::{State, Step, Terms};
use crate::error::Misdeed;
use crate::event::Event;
use crate::io::TargetAction as Action;
use crate::target::Context;

/// Between two rounds. The streams run beside the control link, so that the next one may have
/// landed before its start is heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AwaitRound {
    terms: Terms,
    next: Round,
    tally: Tally,
}

impl AwaitRound {
    pub(super) const fn new(next: Round, terms: Terms) -> Self {
        let tally = Tally::Nothing;
        Self { terms, next, tally }
    }

    pub(super) fn on_landed(self, round: Round, totals: Totals) -> Step<State> {
        if round > self.next {
            return wrong_round(self.next, round);
        }
        if round < self.next || self.tally != Tally::Nothing {
            return Step::Refused(State::AwaitRound(self));
        }
        let tally = Tally::Landed(totals);
        Step::To(State::AwaitRound(Self { tally, ..self }))
    }

    pub(super) fn on_start(self, start: RoundStart, cx: &mut Context) -> Step<State> {
        let Self { terms, next, tally } = self;
        let RoundStart { round, kind } = start;
        if round != next {
            return wrong_round(next, round);
        }
        if (round == Round::FIRST) != (kind == RoundKind::Full) {
            return Step::blame(Misdeed::WrongRoundKind { round, kind });
        }
        cx.outbox.observe(Event::RoundSeen(kind));
        Step::To(match kind {
            RoundKind::Full | RoundKind::Live => State::Landing(Landing {
                terms,
                round,
                tally,
            }),
            RoundKind::Final => {
                cx.outbox.act([Action::SurveyHost]);
                State::LastLanding(LastLanding {
                    terms,
                    round,
                    tally,
                    restore: Restore::Awaited,
                    survey: Survey::Asked,
                })
            }
        })
    }
}

/// A round while the guest runs at the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Landing {
    terms: Terms,
    round: Round,
    tally: Tally,
}

impl Landing {
    pub(super) fn on_end(self, end: RoundEnd, cx: &mut Context) -> Step<State> {
        let Self {
            terms,
            round,
            tally,
        } = self;
        Self::settle(terms, round, tally.said(round, end), cx)
    }

    pub(super) fn on_landed(self, found: Round, totals: Totals, cx: &mut Context) -> Step<State> {
        if found > self.round {
            return wrong_round(self.round, found);
        }
        if found < self.round {
            return Step::Refused(State::Landing(self));
        }
        let Self {
            terms,
            round,
            tally,
        } = self;
        Self::settle(terms, round, tally.landed(round, totals), cx)
    }

    fn settle(
        terms: Terms,
        round: Round,
        settled: Result<Settled, Misdeed>,
        cx: &mut Context,
    ) -> Step<State> {
        let with = |tally, terms| {
            State::Landing(Self {
                terms,
                round,
                tally,
            })
        };
        match settled {
            Err(misdeed) => Step::blame(misdeed),
            Ok(Settled::Open(tally)) => Step::To(with(tally, terms)),
            Ok(Settled::Twice(tally)) => Step::Refused(with(tally, terms)),
            Ok(Settled::Agreed(totals)) => {
                confirm(round, totals, cx);
                Step::To(State::AwaitRound(AwaitRound::new(round.next(), terms)))
            }
        }
    }
}

/// The last round, while the guest stands still; its state comes at any time in it, and what the
/// host can give is found out anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LastLanding {
    terms: Terms,
    round: Round,
    tally: Tally,
    restore: Restore,
    survey: Survey,
}

impl LastLanding {
    pub(super) fn on_end(mut self, end: RoundEnd, cx: &mut Context) -> Step<State> {
        let settled = self.take_tally().said(self.round, end);
        self.settle(settled, cx)
    }

    pub(super) fn on_landed(
        mut self,
        found: Round,
        totals: Totals,
        cx: &mut Context,
    ) -> Step<State> {
        if found > self.round {
            return Step::blame(Misdeed::AfterLastRound);
        }
        if found < self.round {
            return Step::Refused(State::LastLanding(self));
        }
        let settled = self.take_tally().landed(found, totals);
        self.settle(settled, cx)
    }

    const fn take_tally(&mut self) -> Tally {
        core::mem::replace(&mut self.tally, Tally::Nothing)
    }

    pub(super) fn on_state(self, said: StateMessage, cx: &mut Context) -> Step<State> {
        if self.restore != Restore::Awaited {
            return Step::Refused(State::LastLanding(self));
        }
        match Restore::start(said, &self.terms, cx) {
            Ok(restore) => Step::To(State::LastLanding(Self { restore, ..self })),
            Err(misdeed) => Step::blame(misdeed),
        }
    }

    pub(super) fn on_restored(self) -> Step<State> {
        if self.restore != Restore::Restoring {
            return Step::Refused(State::LastLanding(self));
        }
        let restore = Restore::Restored;
        Step::To(State::LastLanding(Self { restore, ..self }))
    }

    pub(super) fn on_surveyed(self, host: &HostCpu, cx: &mut Context) -> Step<State> {
        if self.survey != Survey::Asked {
            return Step::Refused(State::LastLanding(self));
        }
        match Survey::judge(host, &self.terms, cx) {
            Ok(survey) => Step::To(State::LastLanding(Self { survey, ..self })),
            Err(reasons) => Step::Incompatible(reasons),
        }
    }

    fn settle(self, settled: Result<Settled, Misdeed>, cx: &mut Context) -> Step<State> {
        match settled {
            Err(misdeed) => Step::blame(misdeed),
            Ok(Settled::Open(tally)) => Step::To(State::LastLanding(Self { tally, ..self })),
            Ok(Settled::Twice(tally)) => Step::Refused(State::LastLanding(Self { tally, ..self })),
            Ok(Settled::Agreed(totals)) => {
                confirm(self.round, totals, cx);
                cx.outbox.act([Action::CheckLedger]);
                let Self {
                    terms,
                    restore,
                    survey,
                    ..
                } = self;
                Step::To(State::Completing(Completing::new(terms, restore, survey)))
            }
        }
    }
}

const fn wrong_round(expected: Round, found: Round) -> Step<State> {
    Step::blame(Misdeed::WrongRound { expected, found })
}
