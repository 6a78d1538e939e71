//! The target's states in the order of the protocol, and which input each has a use for. What they
//! make of it is in their own files.

mod completing;
mod greeting;
mod landing;
mod preparing;
mod resuming;
mod tally;

use limosa_wire::{Message, Refuse, Round};

use self::completing::{AwaitHandOver, Completing};
use self::greeting::{AwaitHello, AwaitOffer};
use self::landing::{AwaitRound, Landing, LastLanding};
use self::preparing::{Accepting, AwaitAgreed, Preparing};
use self::resuming::Resuming;
use self::tally::Totals;
use super::{Step, Terms};
use crate::error::{Misdeed, Stage};
use crate::io::TargetInput as Input;
use crate::target::Context;

/// Where a target is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum State {
    AwaitHello(AwaitHello),
    AwaitOffer(AwaitOffer),
    Preparing(Preparing),
    AwaitAgreed(AwaitAgreed),
    Accepting(Accepting),
    AwaitRound(AwaitRound),
    Landing(Landing),
    LastLanding(LastLanding),
    Completing(Completing),
    AwaitHandOver(AwaitHandOver),
    Resuming(Resuming),
    Finished,
}

impl State {
    pub(crate) const fn begin() -> Self {
        Self::AwaitHello(AwaitHello)
    }

    pub(crate) const fn stage(&self) -> Stage {
        match self {
            Self::AwaitHello(_) | Self::AwaitOffer(_) => Stage::Handshake,
            Self::Preparing(_) | Self::AwaitAgreed(_) | Self::Accepting(_) => Stage::Prepare,
            Self::AwaitRound(_) | Self::Landing(_) => Stage::Rounds,
            Self::LastLanding(_) | Self::Completing(_) | Self::AwaitHandOver(_) => {
                Stage::Switchover
            }
            Self::Resuming(_) => Stage::HandOver,
            Self::Finished => Stage::Finished,
        }
    }

    /// Would the loss of a page stream lose pages?
    pub(crate) const fn needs_streams(&self) -> bool {
        matches!(
            self,
            Self::Accepting(_) | Self::AwaitRound(_) | Self::Landing(_) | Self::LastLanding(_)
        )
    }

    /// The source said something.
    pub(crate) fn on_message(self, message: Message, cx: &mut Context) -> Step<Self> {
        use Message as M;
        match (self, message) {
            (Self::AwaitHello(state), M::Hello(hello)) => state.on_hello(&hello, cx),
            (Self::AwaitOffer(state), M::Offer(offer)) => state.on_offer(offer, cx),
            (Self::AwaitAgreed(state), M::Agreed(agreed)) => state.on_agreed(agreed, cx),
            (Self::AwaitAgreed(_), M::Refuse(Refuse { reasons })) => Step::Incompatible(reasons),
            (Self::AwaitRound(state), M::RoundStart(start)) => state.on_start(start, cx),
            (Self::Landing(state), M::RoundEnd(end)) => state.on_end(end, cx),
            (Self::LastLanding(state), M::RoundEnd(end)) => state.on_end(end, cx),
            (Self::LastLanding(state), M::State(said)) => state.on_state(said, cx),
            (Self::Completing(state), M::State(said)) => state.on_state(said, cx),
            (Self::AwaitHandOver(state), M::HandOver(message)) => state.on_hand_over(message, cx),
            (Self::Landing(_) | Self::AwaitRound(_), M::State(_)) => {
                Step::blame(Misdeed::StateOutOfTurn)
            }
            (
                Self::LastLanding(_) | Self::Completing(_) | Self::AwaitHandOver(_),
                M::RoundStart(_),
            ) => Step::blame(Misdeed::AfterLastRound),
            (state, _) => Step::Refused(state),
        }
    }

    /// A piece of work is done.
    pub(crate) fn on_done(self, done: Input, cx: &mut Context) -> Step<Self> {
        match (self, done) {
            (Self::Preparing(state), Input::GuestPrepared) => state.on_prepared(cx),
            (Self::Accepting(state), Input::StreamsAccepted) => state.on_accepted(cx),
            (
                state,
                Input::RoundLanded {
                    round,
                    frames,
                    pages,
                },
            ) => state.on_landed(round, Totals { frames, pages }, cx),
            (Self::LastLanding(state), Input::HostSurveyed(host)) => state.on_surveyed(&host, cx),
            (Self::Completing(state), Input::HostSurveyed(host)) => state.on_surveyed(&host, cx),
            (Self::LastLanding(state), Input::StateRestored) => state.on_restored(),
            (Self::Completing(state), Input::StateRestored) => state.on_restored(cx),
            (Self::Completing(state), Input::LedgerComplete) => state.on_complete(cx),
            (Self::Completing(state), Input::LedgerGap(text)) => state.on_gap(text),
            (Self::Resuming(state), Input::GuestResumed) => state.on_resumed(cx),
            (state, _) => Step::Refused(state),
        }
    }

    /// The streams have passed the barriers of a round. Which round that is, the source's streams
    /// decide, so that a round out of turn is its deed.
    fn on_landed(self, round: Round, totals: Totals, cx: &mut Context) -> Step<Self> {
        match self {
            Self::AwaitRound(state) => state.on_landed(round, totals),
            Self::Landing(state) => state.on_landed(round, totals, cx),
            Self::LastLanding(state) => state.on_landed(round, totals, cx),
            Self::Completing(_) | Self::AwaitHandOver(_) => Step::blame(Misdeed::AfterLastRound),
            Self::Resuming(state) => Step::To(Self::Resuming(state)),
            state => Step::Refused(state),
        }
    }
}
