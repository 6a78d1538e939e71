//! The target after the hand-over: the guest is its own, and is being let run.

use limosa_wire::{HandOver, Message, Running};

use super::{State, Step};
use crate::outcome::Outcome;
use crate::target::Context;

/// The guest is being let run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Resuming;

impl Resuming {
    pub(super) fn start(message: HandOver, cx: &mut Context) -> Step<State> {
        let resume = cx.hold.take(message);
        // Nobody is waited for any more: the guest depends on this side alone.
        cx.outbox.timers.wait_for_nobody();
        cx.observe_custody();
        cx.outbox.act(resume);
        Step::To(State::Resuming(Self))
    }

    pub(super) fn on_resumed(self, cx: &mut Context) -> Step<State> {
        cx.outbox.send(Message::Running(Running {}));
        Step::End(Outcome::Completed)
    }
}
