//! Everything that can come into a machine or go out of it: the inputs and actions of both sides.

use alloc::string::String;
use alloc::vec::Vec;

use limosa_compat::HostCpu;
use limosa_wire::{
    DecodeError, EncodingSet, Message, MigrationId, Offer, Round, StateSection, StreamIndex,
    StreamSecret,
};

use crate::config::Terms;
use crate::error::LocalFault;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::round::{Harvest, Rehearsal, RoundPlan, RoundReport};
use crate::slowdown::Slowdown;

/// What can happen to a source.
#[derive(Clone, PartialEq, Debug)]
pub enum SourceInput {
    /// The target said something.
    Message(Message),
    /// The target's bytes are no message.
    Garbage(DecodeError),
    /// The control link ended.
    ControlLost(String),
    /// A page stream ended.
    StreamLost(StreamIndex, String),
    /// [`SourceAction::OpenStreams`] is done on this side.
    StreamsOpened,
    /// [`SourceAction::StartTracking`] is done.
    TrackingStarted,
    /// [`SourceAction::Rehearse`] is done; none where the guest can't be paused on trial.
    Rehearsed(Option<Rehearsal>),
    /// [`SourceAction::Harvest`] is done; what waits for the next round.
    Harvested(Harvest),
    /// [`SourceAction::StartRound`] is done: the streams have taken the last byte.
    RoundDone(RoundReport),
    /// [`SourceAction::DescribeGuest`] is done: the guest's processor, sealed as in an offer.
    GuestDescribed(Vec<u8>),
    /// [`SourceAction::PauseGuest`] is done.
    GuestPaused,
    /// [`SourceAction::ExportState`] is done.
    StateExported(Vec<StateSection>),
    /// Work of this side failed. After the hand-over it changes nothing.
    LocalFailure(LocalFault),
    /// An operator has changed budget or policy.
    Renegotiated(Terms),
    /// An operator wants the migration to end.
    Cancelled,
    /// [`Source::poll_timeout`](crate::Source::poll_timeout) has come. What the target has said by
    /// then is to be given first: a driver that was busy may find its words beside the time-out.
    Timeout,
}

impl SourceInput {
    /// The input, as a misuse is told.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::StreamsOpened => "opened streams",
            Self::TrackingStarted => "started tracking",
            Self::Rehearsed(_) => "a rehearsed pause",
            Self::Harvested(_) => "a harvest",
            Self::RoundDone(_) => "a sent round",
            Self::GuestDescribed(_) => "a described guest",
            Self::GuestPaused => "a paused guest",
            Self::StateExported(_) => "exported state",
            Self::Message(_)
            | Self::Garbage(_)
            | Self::ControlLost(_)
            | Self::StreamLost(..)
            | Self::LocalFailure(_)
            | Self::Renegotiated(_)
            | Self::Cancelled
            | Self::Timeout => "an event",
        }
    }
}

/// What a source wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum SourceAction {
    /// Send a message. A link that does not take it is told as [`SourceInput::ControlLost`].
    Send(Message),
    /// Open and bind the page streams; answered by [`SourceInput::StreamsOpened`].
    OpenStreams {
        /// How many.
        stream_count: u16,
        /// The encodings that both sides know.
        encodings: EncodingSet,
        /// What each stream shows.
        secret: StreamSecret,
    },
    /// Begin to record the guest's writes; answered by [`SourceInput::TrackingStarted`].
    StartTracking,
    /// Pause the guest and let it go on at once, so that it is known what a pause takes; answered
    /// by [`SourceInput::Rehearsed`].
    Rehearse,
    /// Hold the guest back, or let it go again; a pause lets it go, too. Nothing answers it.
    Slow(Slowdown),
    /// Take what was written since the last time; answered by [`SourceInput::Harvested`].
    Harvest,
    /// Send a round; answered by [`SourceInput::RoundDone`]. The driver need not wait for it.
    StartRound(RoundPlan),
    /// Say once more which processor the guest sees; answered by [`SourceInput::GuestDescribed`].
    /// The guest runs meanwhile.
    DescribeGuest,
    /// Stop the guest; answered by [`SourceInput::GuestPaused`].
    PauseGuest,
    /// Take the guest's state; answered by [`SourceInput::StateExported`]. A round may be on its
    /// way meanwhile.
    ExportState,
    /// The migration failed: let the guest run on here. Nothing answers it.
    ResumeGuest,
    /// The target runs the guest: it must never run here again. Nothing answers it.
    ReleaseGuest,
    /// End the record of writes. Nothing answers it.
    StopTracking,
    /// Close all links, once what was sent has left. Nothing answers it.
    CloseLink,
    /// For an observer.
    Observe(Event),
    /// The end; nothing follows.
    Finished(Outcome),
}

impl From<Message> for SourceAction {
    fn from(message: Message) -> Self {
        Self::Send(message)
    }
}

impl From<Event> for SourceAction {
    fn from(event: Event) -> Self {
        Self::Observe(event)
    }
}

/// What can happen to a target.
#[derive(Clone, PartialEq, Debug)]
pub enum TargetInput {
    /// The source said something.
    Message(Message),
    /// The source's bytes are no message.
    Garbage(DecodeError),
    /// The control link ended.
    ControlLost(String),
    /// A page stream ended.
    StreamLost(StreamIndex, String),
    /// A page stream brought what can't be placed.
    BadPages(String),
    /// [`TargetAction::PrepareGuest`] is done.
    GuestPrepared,
    /// [`TargetAction::AcceptStreams`] is done: all are bound.
    StreamsAccepted,
    /// Every stream has passed the barrier of a round; what was counted here.
    RoundLanded {
        /// The round.
        round: Round,
        /// Frames of each stream, without barriers.
        frames: Vec<u64>,
        /// Pages of all streams.
        pages: u64,
    },
    /// [`TargetAction::SurveyHost`] is done: what the host can give now.
    HostSurveyed(HostCpu),
    /// [`TargetAction::CheckLedger`] found nothing missing.
    LedgerComplete,
    /// [`TargetAction::CheckLedger`] found a gap: the guest must not run here.
    LedgerGap(String),
    /// [`TargetAction::RestoreState`] is done.
    StateRestored,
    /// [`TargetAction::ResumeGuest`] is done: the guest runs.
    GuestResumed,
    /// Work of this side failed. After [`TargetAction::ResumeGuest`] this says that the guest could
    /// not be let run, and nothing else: it is dropped then.
    LocalFailure(LocalFault),
    /// An operator wants the migration to end.
    Cancelled,
    /// [`Target::poll_timeout`](crate::Target::poll_timeout) has come. What the source has said by
    /// then is to be given first.
    Timeout,
}

impl TargetInput {
    /// The input, as a misuse is told.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::GuestPrepared => "a prepared guest",
            Self::StreamsAccepted => "accepted streams",
            Self::RoundLanded { .. } => "a landed round",
            Self::HostSurveyed(_) => "a surveyed host",
            Self::LedgerComplete | Self::LedgerGap(_) => "a checked ledger",
            Self::StateRestored => "restored state",
            Self::GuestResumed => "a resumed guest",
            Self::Message(_)
            | Self::Garbage(_)
            | Self::ControlLost(_)
            | Self::StreamLost(..)
            | Self::BadPages(_)
            | Self::LocalFailure(_)
            | Self::Cancelled
            | Self::Timeout => "an event",
        }
    }
}

/// What a target wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum TargetAction {
    /// Send a message. A link that does not take it is told as [`TargetInput::ControlLost`].
    Send(Message),
    /// Make machine, vCPUs and unpopulated memory; answered by [`TargetInput::GuestPrepared`].
    PrepareGuest(Offer),
    /// Let the page streams in; answered by [`TargetInput::StreamsAccepted`].
    AcceptStreams {
        /// The migration that they must name.
        migration_id: MigrationId,
        /// What each must show.
        secret: StreamSecret,
        /// How many there are.
        stream_count: u16,
        /// Page encodings that may come.
        encodings: EncodingSet,
    },
    /// The source's totals of a round that has landed, which equal the own count: for the ledger.
    ConfirmRound {
        /// The round.
        round: Round,
        /// Frames of each stream.
        frames: Vec<u64>,
        /// Pages of all streams.
        pages: u64,
    },
    /// Find out anew what the host can give a guest; answered by [`TargetInput::HostSurveyed`]. The
    /// guest is stopped meanwhile, and then pages and state come: it need not be waited for.
    SurveyHost,
    /// Put the state in place; answered by [`TargetInput::StateRestored`]. Pages may be landing
    /// meanwhile.
    RestoreState(Vec<StateSection>),
    /// Ask the ledger whether the guest may run; answered by [`TargetInput::LedgerComplete`] or
    /// [`TargetInput::LedgerGap`].
    CheckLedger,
    /// Let the guest run; answered by [`TargetInput::GuestResumed`].
    ResumeGuest,
    /// The guest must not run here: give everything back. Nothing answers it.
    DropGuest,
    /// Close all links, once what was sent has left. Nothing answers it.
    CloseLink,
    /// For an observer.
    Observe(Event),
    /// The end; nothing follows.
    Finished(Outcome),
}

impl From<Message> for TargetAction {
    fn from(message: Message) -> Self {
        Self::Send(message)
    }
}

impl From<Event> for TargetAction {
    fn from(event: Event) -> Self {
        Self::Observe(event)
    }
}
