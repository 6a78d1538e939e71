//! What a finished migration measured.

use std::time::Duration;

use limosa_session::{Forecast, OnStall, Rehearsal, Slowdown, Warning};
use limosa_wire::{EncodingCounts, Round, RoundKind};

use crate::switchover::{Marks, SourceMark, TargetMark};

/// One round as the source saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundFigures {
    /// Its number; 0 sends everything.
    pub round: Round,
    /// Whether the guest ran meanwhile.
    pub kind: RoundKind,
    /// Pages dealt with, by encoding.
    pub pages: EncodingCounts,
    /// Bytes given to the page streams: headers, tables and payloads.
    pub wire_bytes: u64,
    /// How many of them each stream was given.
    pub stream_bytes: Vec<u64>,
    /// Pages that were held back from it, to be sent in a later one.
    pub held_pages: u64,
    /// From its start until every stream had taken its last byte, without rests.
    pub elapsed: Duration,
}

/// What was foretold between two rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foretold {
    /// When, since the connect.
    pub at: Duration,
    /// What; none where no end was in sight.
    pub forecast: Option<Forecast>,
}

/// The guest was held back from a time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowedFrom {
    /// When, since the connect.
    pub at: Duration,
    /// How much; [`Slowdown::None`] where it was let go.
    pub slowdown: Slowdown,
}

/// The pause, step by step, on the source's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwitchoverFigures {
    /// From the request to pause until every vCPU stood still.
    pub pause: Duration,
    /// Taking the last dirty pages.
    pub harvest: Duration,
    /// Exporting the guest's state; beside the last round.
    pub export: Duration,
    /// Sending the last pages; beside the export.
    pub last_round: Duration,
    /// From there until the target said that everything is in place.
    pub prepare: Duration,
    /// From the hand-over until the source knew that the guest runs on the target.
    pub hand_over: Duration,
    /// All of it: from the request to pause until the source knew that the guest runs on the
    /// target.
    pub total: Duration,
}

/// A migration that has completed, as the source saw it; partly filled when it has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// From the connect until the end.
    pub elapsed: Duration,
    /// From the connect until the target had accepted and this side had judged its host, too. The
    /// target makes machine and memory meanwhile.
    pub handshake: Duration,
    /// What differs between guest and target and is forgiven, as this side judges.
    pub warnings: Vec<Warning>,
    /// The pause.
    pub switchover: SwitchoverFigures,
    /// The same by the clock.
    pub marks: Marks<SourceMark>,
    /// Each round.
    pub rounds: Vec<RoundFigures>,
    /// What a pause took that was tried out; none where that can't be done.
    pub rehearsal: Option<Rehearsal>,
    /// What was foretold after each round.
    pub foretold: Vec<Foretold>,
    /// The policy that was needed, where the guest was too busy.
    pub stalled: Option<OnStall>,
    /// How the guest was held back, in turn.
    pub slowed: Vec<SlowedFrom>,
    /// How long an operator let the migration rest.
    pub rested: Duration,
    /// Streams in use.
    pub stream_count: u16,
    /// Buffers, bitmaps and work lists held beyond guest memory, at most, in bytes.
    pub overhead_bytes: u64,
    /// How page streams reached the kernel, and why so.
    pub io: String,
    /// How writes were followed.
    pub tracking: String,
    /// What it took to begin to follow them: the guest ran, and may have been slowed down.
    pub tracking_start: Duration,
    /// The longest that rearming a chunk took while the guest ran: so long its vCPUs may have
    /// waited for the kernel's lock. Zero where the guest stood still all along.
    pub rearm_longest: Duration,
}

impl SourceReport {
    /// Pages of all rounds, by encoding.
    #[must_use]
    pub fn pages(&self) -> EncodingCounts {
        self.rounds.iter().map(|round| round.pages).sum()
    }

    /// Bytes of all rounds on the page streams.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.rounds.iter().map(|round| round.wire_bytes).sum()
    }

    /// Bytes of all rounds on each page stream.
    #[must_use]
    pub fn stream_bytes(&self) -> Vec<u64> {
        let mut bytes = vec![0; self.stream_count.into()];
        for round in &self.rounds {
            for (all, own) in bytes.iter_mut().zip(&round.stream_bytes) {
                *all += own;
            }
        }
        bytes
    }
}

/// A migration that has completed, as the target saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetReport {
    /// From the accepted connection until the guest ran.
    pub elapsed: Duration,
    /// From the accepted connection until both sides had agreed, with the making of the guest.
    pub handshake: Duration,
    /// Making machine, vCPUs and unpopulated memory: a part of the handshake.
    pub prepare: Duration,
    /// What differs between guest and host and is forgiven, as this side judges.
    pub warnings: Vec<Warning>,
    /// Streams in use.
    pub stream_count: u16,
    /// Buffers and ledgers held beyond guest memory, at most, in bytes.
    pub overhead_bytes: u64,
    /// How page streams reached the kernel, and why so.
    pub io: String,
    /// The switchover by the clock.
    pub marks: Marks<TargetMark>,
}
