//! The knobs of a session.

use core::time::Duration;

use limosa_compat::HostCpu;
use limosa_wire::{EncodingSet, STREAMS_MAX, SectionKind};

/// What to do with a guest that writes faster than its pages can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum OnStall {
    /// End the migration; the guest stays on the source, and the error tells both rates.
    #[default]
    Fail,
    /// Pause the guest all the same: the pause is longer than [`SessionConfig::downtime_max`].
    Stop,
}

/// How a session behaves; both sides may differ in each of these.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionConfig {
    /// Longest time that the guest may stand still during switchover. Source only.
    ///
    /// The source pauses the guest once the pages left, divided by the rate of the last round, plus
    /// [`switchover_cost`](Self::switchover_cost), fit in. 1 ms to 60 s, default 300 ms: what
    /// applications commonly take for a hiccup. Smaller budgets need more rounds.
    pub downtime_max: Duration,
    /// Time that a switchover takes besides sending pages: pause, state, hand-over, resume. Source
    /// only.
    ///
    /// 0 and up, default 5 ms; about what two vCPUs take on one host.
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
    /// After how long without a word of its own a side says that it is still here; default 1 s.
    pub keep_alive_every: Duration,
    /// Longest wait for each step of the handshake; default 10 s.
    pub handshake_max: Duration,
    /// Longest wait for the target to make machine and memory; default 60 s.
    pub prepare_max: Duration,
    /// Longest wait, with the guest paused, until the target has everything; then the guest goes on
    /// at the source. Default 10 s.
    pub switchover_max: Duration,
    /// Longest wait for the word that the guest runs at the target; then the outcome is in transit.
    /// Default 10 s.
    pub hand_over_max: Duration,
    /// Page streams that the source proposes: 1 to 64, default 2.
    pub stream_count: u16,
    /// Page encodings that this side can write and read; default all.
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
            switchover_max: Duration::from_secs(10),
            hand_over_max: Duration::from_secs(10),
            stream_count: 2,
            encodings: EncodingSet::ALL,
        }
    }
}

impl SessionConfig {
    /// The same with every bounded knob brought into its range.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let (least, most) = (Duration::from_millis(1), Duration::from_secs(60));
        self.downtime_max = self.downtime_max.clamp(least, most);
        self.rounds_max = self.rounds_max.max(1);
        self.stream_count = self.stream_count.clamp(1, STREAMS_MAX);
        self.keep_alive_every = self.keep_alive_every.max(least);
        self.peer_silence_max = self.peer_silence_max.max(self.keep_alive_every * 3);
        self
    }
}

/// What a target takes in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetPolicy {
    /// What its processor and hypervisor can give a guest.
    pub host: HostCpu,
    /// The kind of guest that it can run, such as `kvm-x86`.
    pub machine: alloc::string::String,
    /// Largest guest memory, in bytes.
    pub memory_bytes_max: u64,
    /// Most vCPUs.
    pub vcpu_count_max: u16,
    /// Most page streams; a source that proposes more gets this many. 1 to 64.
    pub stream_count_max: u16,
    /// State sections that it can restore.
    pub sections: alloc::vec::Vec<SectionKind>,
}
