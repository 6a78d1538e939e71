//! The source after the hand-over: the guest is not its own any more, and it awaits the word that
//! it runs.

use super::{State, Step};
use crate::outcome::Outcome;
use crate::source::Context;

/// The guest was given away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HandedOver;

impl HandedOver {
    pub(super) fn start(cx: &mut Context) -> Step<State> {
        // Custody changes before the message can leave.
        if let Some(message) = cx.hold.give_away() {
            cx.observe_custody();
            cx.outbox.send(message);
        }
        cx.outbox.wait_for(
            "the word that the guest runs at the target",
            cx.config.hand_over_max,
        );
        Step::To(State::HandedOver(Self))
    }

    pub(super) fn on_running(self, cx: &mut Context) -> Step<State> {
        cx.outbox.act(cx.hold.arrived());
        cx.observe_custody();
        Step::End(Outcome::Completed)
    }
}
