//! The source after the verdict: it opens the page streams, and begins to record writes.

use limosa_wire::{Round, StreamsBound};

use super::{Harvesting, State, Step};
use crate::error::Misdeed;
use crate::io::SourceAction as Action;
use crate::source::Context;

/// The streams are being opened here, and bound there; the two end in any order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Binding {
    stream_count: u16,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Neither,
    /// Here all streams are open.
    Opened,
    /// The target said that all are bound.
    Bound,
}

impl Binding {
    pub(super) const fn new(stream_count: u16) -> Self {
        let progress = Progress::Neither;
        Self {
            stream_count,
            progress,
        }
    }

    pub(super) fn on_opened(self, cx: &mut Context) -> Step<State> {
        match self.progress {
            Progress::Neither => self.after(Progress::Opened),
            Progress::Bound => track(cx),
            Progress::Opened => Step::Refused(State::Binding(self)),
        }
    }

    pub(super) fn on_bound(self, bound: StreamsBound, cx: &mut Context) -> Step<State> {
        match self.progress {
            Progress::Bound => Step::Refused(State::Binding(self)),
            _ if bound.stream_count != self.stream_count => {
                let what = "page streams";
                Step::blame(Misdeed::AcceptedUnoffered { what })
            }
            Progress::Neither => self.after(Progress::Bound),
            Progress::Opened => track(cx),
        }
    }

    const fn after(self, progress: Progress) -> Step<State> {
        Step::To(State::Binding(Self { progress, ..self }))
    }
}

fn track(cx: &mut Context) -> Step<State> {
    cx.outbox.timers.wait_no_more();
    cx.convergence.bound(cx.outbox.now());
    cx.tracking = true;
    cx.outbox.act([Action::StartTracking]);
    Step::To(State::StartingTracking(StartingTracking))
}

/// The record of writes is being begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StartingTracking;

impl StartingTracking {
    pub(super) fn on_started(self, cx: &mut Context) -> Step<State> {
        cx.outbox.act([Action::Harvest]);
        Step::To(State::Harvesting(Harvesting { next: Round::FIRST }))
    }
}
