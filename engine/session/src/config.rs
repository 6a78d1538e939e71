//! The knobs of a session, and what a target takes in.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use limosa_compat::HostCpu;
use limosa_wire::{EncodingSet, PageEncoding, STREAMS_MAX, SectionKind};

/// What to do with a guest that writes faster than its pages can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum OnStall {
    /// End the migration; the guest stays on the source, and the error tells both rates.
    #[default]
    Fail,
    /// Pause the guest all the same: the pause is longer than [`SessionConfig::downtime_max`].
    Stop,
    /// Let its vCPUs run for a share of the time only, as much less as is needed; its readers wait
    /// as well as its writers.
    Throttle,
    /// Let no vCPU dirty more than so much a second, as much less as is needed; a vCPU that only
    /// reads loses nothing. It needs a guest that can be held back so: on KVM, its dirty ring.
    Limit,
}

/// What an operator may change while a migration runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// See [`SessionConfig::downtime_max`].
    pub downtime_max: Duration,
    /// See [`SessionConfig::on_stall`].
    pub on_stall: OnStall,
}

/// How a session behaves; both sides may differ in each of these. Times are at least
/// [`WAIT_MIN`](Self::WAIT_MIN) and at most [`WAIT_MAX`](Self::WAIT_MAX) where nothing else is
/// said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionConfig {
    /// Longest time that the guest may stand still during switchover. Source only.
    ///
    /// The source pauses the guest once the pages left, divided by the rate of the last round, plus
    /// [`switchover_cost`](Self::switchover_cost), fit in. 1 ms to 60 s, default 300 ms: what
    /// applications commonly take for a hiccup. Smaller budgets need more rounds.
    pub downtime_max: Duration,
    /// Time that a switchover takes besides sending pages and waiting for words of the target:
    /// pause, state, resume. Source only.
    ///
    /// 0 and up, default 5 ms; more than two vCPUs take on one host. It is what counts only for
    /// guests in which a pause can't be [tried out](crate::Rehearsal).
    pub switchover_cost: Duration,
    /// Most rounds before the guest counts as too busy. Source only.
    ///
    /// 1 and up, default 30: each round of a converging guest is a fraction of the one before, so
    /// one that needs more is not converging.
    pub rounds_max: u32,
    /// What happens then. Source only; default [`OnStall::Fail`].
    pub on_stall: OnStall,
    /// Longest time without any word of the peer, before it counts as gone.
    ///
    /// Keep it above three times [`keep_alive_every`](Self::keep_alive_every); default 10 s. It is
    /// what notices a peer that vanished without closing its links.
    pub peer_silence_max: Duration,
    /// After how long without a word of its own a side says that it is still here; default 1 s. The
    /// peer's [`peer_silence_max`](Self::peer_silence_max) is to be above three times this, too.
    pub keep_alive_every: Duration,
    /// Longest wait for each step of the handshake. Default 10 s: what a person takes for "it
    /// hangs".
    pub handshake_max: Duration,
    /// Longest wait for the target to make machine and memory. Source only; default 60 s, which
    /// suits guests of some TiB.
    pub prepare_max: Duration,
    /// Longest wait, after the last byte of a round was sent, for the word that it landed. Source
    /// only; default 60 s, which leaves the target time to take memory from a host that is short
    /// of it.
    pub landing_max: Duration,
    /// Longest wait, from the pause on and on top of the time that the pause is estimated to take,
    /// until the target has everything; then the guest goes on at the source. Source only; default
    /// 10 s.
    pub switchover_max: Duration,
    /// Longest wait of the source for the word that the guest runs at the target, and of a target
    /// that is prepared for the hand-over. Default 10 s.
    ///
    /// At the source the outcome is in transit then, so a longer wait costs downtime and a shorter
    /// one certainty.
    pub hand_over_max: Duration,
    /// Page streams that the source proposes: 1 to 64, default 2, which fills a loopback link.
    pub stream_count: u16,
    /// Page encodings that this side can write and read; default all. Zero and raw pages are always
    /// among them.
    pub encodings: EncodingSet,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            downtime_max: Duration::from_millis(300),
            switchover_cost: Duration::from_millis(5),
            rounds_max: 30,
            on_stall: OnStall::default(),
            peer_silence_max: Duration::from_secs(10),
            keep_alive_every: Duration::from_secs(1),
            handshake_max: Duration::from_secs(10),
            prepare_max: Duration::from_secs(60),
            landing_max: Duration::from_secs(60),
            switchover_max: Duration::from_secs(10),
            hand_over_max: Duration::from_secs(10),
            stream_count: 2,
            encodings: EncodingSet::ALL,
        }
    }
}

impl SessionConfig {
    /// Shortest wait that can be set.
    pub const WAIT_MIN: Duration = Duration::from_millis(1);
    /// Longest wait that can be set, far beyond any use: so that sums of waits are times.
    pub const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
    /// Longest [`downtime_max`](Self::downtime_max).
    pub const DOWNTIME_MAX: Duration = Duration::from_secs(60);

    /// What of it may be changed on the way, within its range.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            downtime_max: self.downtime_max.clamp(Self::WAIT_MIN, Self::DOWNTIME_MAX),
            on_stall: self.on_stall,
        }
    }

    /// The same with every knob brought into its range.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for wait in [
            &mut self.keep_alive_every,
            &mut self.peer_silence_max,
            &mut self.handshake_max,
            &mut self.prepare_max,
            &mut self.landing_max,
            &mut self.switchover_max,
            &mut self.hand_over_max,
        ] {
            *wait = (*wait).clamp(Self::WAIT_MIN, Self::WAIT_MAX);
        }
        self.downtime_max = self.terms().downtime_max;
        self.switchover_cost = self.switchover_cost.min(Self::WAIT_MAX);
        self.peer_silence_max = self.peer_silence_max.max(self.keep_alive_every * 3);
        self.rounds_max = self.rounds_max.max(1);
        self.stream_count = self.stream_count.clamp(1, STREAMS_MAX);
        let needed = [PageEncoding::Raw, PageEncoding::Zero];
        self.encodings = needed.into_iter().fold(self.encodings, EncodingSet::with);
        self
    }
}

/// What a target takes in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetPolicy {
    /// What its processor and hypervisor can give a guest.
    pub host: HostCpu,
    /// The kind of guest that it can run, such as `kvm-x86`.
    pub machine: String,
    /// Largest guest memory, in bytes.
    pub memory_bytes_max: u64,
    /// Most vCPUs.
    pub vcpu_count_max: u16,
    /// Most page streams; a source that proposes more gets this many. 1 to 64.
    pub stream_count_max: u16,
    /// State sections that it can restore.
    pub sections: Vec<SectionKind>,
}
