//! What may go wrong, and when: drawn from the plan and the seed before an attempt begins. How a
//! fault is carried out is `strikes.rs`.

use std::time::Duration;

use limosa_wire::MessageKind;
use serde::Deserialize;

use super::plan::Plan;
use super::rng::Rng;

/// Something that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The control link breaks, and both sides notice.
    CutControl,
    /// The control link breaks, and nobody notices.
    LoseControl,
    /// A page stream breaks, in the middle of a frame where one is under way.
    CutStream,
    /// The source's process ends; its sockets are closed.
    CrashSource,
    /// The target's process ends; its sockets are closed.
    CrashTarget,
    /// The source's host is gone without a word.
    VanishSource,
    /// The target's host is gone without a word.
    VanishTarget,
    /// The control link stands still for a while.
    StallControl,
    /// A page stream stands still for a while.
    StallStream,
    /// Everything between the hosts stands still for a while.
    StallAll,
    /// The target takes long for everything it does.
    SlowTarget,
    /// An operator cancels at the source.
    CancelSource,
    /// An operator cancels at the target.
    CancelTarget,
    /// The target finds out that it has no room while it makes the guest.
    RefusePrepare,
    /// The target is of another kind, and says no.
    RefuseOffer,
    /// The guest can't be paused.
    FailPause,
    /// The guest's state can't be taken.
    FailExport,
    /// The kernel does not say what was written.
    FailHarvest,
    /// The guest's state can't be put in place.
    FailRestore,
    /// The guest was handed over, and can't be made to run.
    FailResume,
    /// A frame with pages is lost inside a stream that goes on.
    DropFrame,
    /// A frame with pages comes twice.
    RepeatFrame,
    /// One bit of a frame is flipped.
    CorruptFrame,
    /// A frame of the attempt before comes in this one's stream.
    StaleFrame,
    /// A frame with pages is overtaken by the next one of its stream.
    SwapFrames,
    /// One bit of a control message is flipped.
    GarbleMessage,
    /// A control message comes twice.
    RepeatMessage,
    /// A page stream of the attempt before comes in late, and wants to be bound.
    StrayStream,
    /// A second copy of one of this attempt's page streams wants to be bound.
    TwinStream,
    /// The target accepts a guest that can't live on its host.
    AcceptAll,
    /// The target's host can't give the guest's processor any more when it is looked at again.
    ChangeHost,
    /// The target's host can't be looked at again.
    FailSurvey,
    /// The guest sees another processor than was offered.
    ChangeGuest,
    /// A side speaks of another processor than was judged.
    OtherDigest,
}

impl FaultKind {
    /// Every fault.
    pub const ALL: [Self; 34] = [
        Self::CutControl,
        Self::LoseControl,
        Self::CutStream,
        Self::CrashSource,
        Self::CrashTarget,
        Self::VanishSource,
        Self::VanishTarget,
        Self::StallControl,
        Self::StallStream,
        Self::StallAll,
        Self::SlowTarget,
        Self::CancelSource,
        Self::CancelTarget,
        Self::RefusePrepare,
        Self::RefuseOffer,
        Self::FailPause,
        Self::FailExport,
        Self::FailHarvest,
        Self::FailRestore,
        Self::FailResume,
        Self::DropFrame,
        Self::RepeatFrame,
        Self::CorruptFrame,
        Self::StaleFrame,
        Self::SwapFrames,
        Self::GarbleMessage,
        Self::RepeatMessage,
        Self::StrayStream,
        Self::TwinStream,
        Self::AcceptAll,
        Self::ChangeHost,
        Self::FailSurvey,
        Self::ChangeGuest,
        Self::OtherDigest,
    ];

    /// Must a migration complete all the same?
    pub(crate) const fn is_harmless(self) -> bool {
        matches!(self, Self::StrayStream | Self::TwinStream)
    }

    /// Does it wait for a certain piece of work, from the beginning on?
    const fn waits_for_work(self) -> bool {
        matches!(
            self,
            Self::RefusePrepare
                | Self::RefuseOffer
                | Self::FailPause
                | Self::FailExport
                | Self::FailRestore
                | Self::FailResume
                | Self::AcceptAll
                | Self::ChangeHost
                | Self::FailSurvey
                | Self::ChangeGuest
        )
    }
}

/// When a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// At a time drawn from the seed.
    Anytime,
    /// About when this message is sent or arrives.
    Hello,
    /// As above.
    Offer,
    /// As above.
    Verdict,
    /// As above.
    Agreed,
    /// As above.
    StreamsBound,
    /// As above.
    RoundStart,
    /// As above.
    RoundEnd,
    /// As above.
    RoundLanded,
    /// As above.
    State,
    /// As above.
    Prepared,
    /// As above.
    HandOver,
    /// As above.
    Running,
}

impl Moment {
    const ALL: [Self; 13] = [
        Self::Anytime,
        Self::Hello,
        Self::Offer,
        Self::Verdict,
        Self::Agreed,
        Self::StreamsBound,
        Self::RoundStart,
        Self::RoundEnd,
        Self::RoundLanded,
        Self::State,
        Self::Prepared,
        Self::HandOver,
        Self::Running,
    ];

    const fn message(self) -> Option<MessageKind> {
        Some(match self {
            Self::Anytime => return None,
            Self::Hello => MessageKind::Hello,
            Self::Offer => MessageKind::Offer,
            Self::Verdict => MessageKind::Verdict,
            Self::Agreed => MessageKind::Agreed,
            Self::StreamsBound => MessageKind::StreamsBound,
            Self::RoundStart => MessageKind::RoundStart,
            Self::RoundEnd => MessageKind::RoundEnd,
            Self::RoundLanded => MessageKind::RoundLanded,
            Self::State => MessageKind::State,
            Self::Prepared => MessageKind::Prepared,
            Self::HandOver => MessageKind::HandOver,
            Self::Running => MessageKind::Running,
        })
    }
}

/// The four moments in the life of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Edge {
    /// Before it is sent.
    Leaving,
    /// After it was sent.
    Left,
    /// Before its receiver has seen it.
    Arriving,
    /// After its receiver has dealt with it.
    Handled,
}

const EDGES: [Edge; 4] = [Edge::Leaving, Edge::Left, Edge::Arriving, Edge::Handled];

/// When a fault of an attempt strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// So long after the attempt has begun.
    After(Duration),
    /// At a moment of the first message of a kind.
    Message(MessageKind, Edge),
}

/// The faults of one attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    waiting: Vec<(FaultKind, When)>,
    armed: Vec<FaultKind>,
    struck: Vec<FaultKind>,
}

/// Attempts seldom take longer, so that most faults strike within them.
const SPAN_US: u64 = 150_000;

impl Faults {
    /// What goes wrong in one disturbed attempt.
    pub(crate) fn draw(plan: &Plan, rng: &mut Rng) -> Self {
        let mut faults = Self::default();
        let kinds = [&FaultKind::ALL[..], &plan.kinds][usize::from(!plan.kinds.is_empty())];
        let moments = [&Moment::ALL[..], &plan.moments][usize::from(!plan.moments.is_empty())];
        for _ in 0..plan.faults.draw(rng) {
            let Some(kind) = rng.pick(kinds) else { break };
            let moment = rng.pick(moments).and_then(Moment::message);
            let edge = rng.pick(&EDGES).unwrap_or(Edge::Left);
            let after = Duration::from_micros(rng.below(SPAN_US));
            match moment {
                _ if kind.waits_for_work() => faults.armed.push(kind),
                Some(message) => faults.waiting.push((kind, When::Message(message, edge))),
                None => faults.waiting.push((kind, When::After(after))),
            }
        }
        faults
    }

    /// The faults that strike at a time, with their numbers.
    pub(crate) fn timed(&self) -> impl Iterator<Item = (FaultKind, Duration)> + '_ {
        self.waiting.iter().filter_map(|(kind, when)| match when {
            When::After(after) => Some((*kind, *after)),
            _ => None,
        })
    }

    /// The faults that strike now, because a message is there; each does once.
    pub(crate) fn strike_at(&mut self, message: MessageKind, edge: Edge) -> Vec<FaultKind> {
        let now = When::Message(message, edge);
        let (due, waiting) = self.waiting.iter().partition(|(_, when)| *when == now);
        self.waiting = waiting;
        let due: Vec<(FaultKind, When)> = due;
        due.into_iter().map(|(kind, _)| kind).collect()
    }

    /// From now on `kind` happens at the next occasion.
    pub(crate) fn arm(&mut self, kind: FaultKind) {
        self.armed.push(kind);
    }

    /// Does `kind` happen on this occasion? It does once.
    pub(crate) fn takes(&mut self, kind: FaultKind) -> bool {
        let found = self.armed.iter().position(|armed| *armed == kind);
        if let Some(found) = found {
            self.armed.swap_remove(found);
            self.struck.push(kind);
        }
        found.is_some()
    }

    /// Takes down that `kind` has happened.
    pub(crate) fn happened(&mut self, kind: FaultKind) {
        self.struck.push(kind);
    }

    /// What has happened so far.
    pub(crate) fn struck(&self) -> &[FaultKind] {
        &self.struck
    }

    /// Has anything happened that may keep a migration from completing?
    pub(crate) fn have_harmed(&self) -> bool {
        self.struck.iter().any(|kind| !kind.is_harmless())
    }
}
