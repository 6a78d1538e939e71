//! What `run` and its worker processes say to each other: one JSON object a line.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::compat::{HostJson, ProcessorJson};
use crate::convergence::ConvergenceFigures;
use crate::reference::{SocketSettings, Speeds};
use crate::refusal::{self, Reason};
use crate::report::{Pages, Quantiles, RoundFigures};
use crate::timeline::Timeline;

/// The guest that a worker boots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GuestOrder {
    pub(crate) kind: String,
    pub(crate) memory_bytes: u64,
    pub(crate) vcpus: u16,
    pub(crate) fill: String,
    pub(crate) touched_bytes: u64,
    pub(crate) working_set_bytes: u64,
    pub(crate) dirty_rate_bytes: u64,
    pub(crate) pattern: String,
    pub(crate) probe: String,
    pub(crate) backing: String,
    #[serde(default)]
    pub(crate) tracking: String,
    pub(crate) seed: u64,
    #[serde(default)]
    pub(crate) cpu: CpuOrder,
}

/// What that guest is to see of its processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CpuOrder {
    /// `off`, `minimum`, `named:NAME` or `common`.
    pub(crate) mode: String,
    /// The other hosts, for `common`.
    pub(crate) pool: Vec<ProcessorJson>,
    /// How time runs on those; unknown of some.
    pub(crate) clocks: Vec<Option<ClockOrder>>,
    /// What to call this host and those.
    pub(crate) names: Vec<String>,
    /// What this side pretends to be.
    pub(crate) pretend: Option<HostJson>,
    pub(crate) enforcement: EnforcementOrder,
}

impl Default for CpuOrder {
    fn default() -> Self {
        Self {
            mode: "off".into(),
            pool: Vec::new(),
            clocks: Vec::new(),
            names: Vec::new(),
            pretend: None,
            enforcement: EnforcementOrder::Strict,
        }
    }
}

/// The time-stamp counter of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClockOrder {
    /// Its frequency.
    pub(crate) khz: u32,
    /// Whether guests may have another.
    pub(crate) scaling: ScalingOrder,
}

/// [`limosa_compat::TscScaling`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScalingOrder {
    /// They may.
    Yes,
    /// They run at the host's.
    No,
}

/// What to do where KVM shows a guest more than it was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EnforcementOrder {
    /// Not to start it.
    Strict,
    /// To promise what it really sees.
    Unenforced,
}

/// What a guest sees of its processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CpuFacts {
    pub(crate) mode: String,
    pub(crate) baseline: String,
    /// By which both sides name it.
    pub(crate) digest: String,
    pub(crate) features: Vec<String>,
    /// What the host would give a new guest besides.
    pub(crate) hidden: Vec<String>,
}

/// How a worker moves its guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinkOrder {
    pub(crate) streams: u16,
    pub(crate) codec: String,
    pub(crate) downtime: Duration,
    pub(crate) on_stall: String,
    pub(crate) io: String,
    #[serde(default)]
    pub(crate) staging: String,
    #[serde(default)]
    pub(crate) splice: String,
    /// Most bytes a second while the guest runs.
    #[serde(default)]
    pub(crate) bandwidth: Option<NonZeroU64>,
}

impl CpuFacts {
    /// In one line, for people.
    pub(crate) fn words(&self) -> String {
        let (mode, baseline, count) = (&self.mode, &self.baseline, self.features.len());
        let name = if mode == baseline {
            String::new()
        } else {
            format!(" ({baseline})")
        };
        let hidden = match self.hidden.len() {
            0 => String::new(),
            hidden => format!(", {hidden} of its host's hidden"),
        };
        format!("processor mode {mode}{name}: {count} features{hidden}")
    }
}

/// From `run` to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Boot a guest and answer `Ready` once its memory is filled.
    Boot { guest: GuestOrder },
    /// Answer `Listening`, take one guest in, answer `Landed`.
    Listen {
        endpoint: String,
        kind: String,
        backing: String,
        #[serde(default)]
        tracking: String,
        io: String,
        #[serde(default)]
        staging: String,
        digest: bool,
        #[serde(default)]
        memory_bytes_max: Option<u64>,
        /// Populate memory for a guest of this size first; none to populate as pages arrive.
        #[serde(default)]
        populated_bytes: Option<u64>,
        #[serde(default)]
        room_bytes: Option<u64>,
        #[serde(default)]
        pretend: Option<HostJson>,
    },
    /// Move the guest, answer `Progress` now and then, `Sent` at the end.
    Send { endpoint: String, link: LinkOrder },
    /// Digest of the memory of the guest that stands still here; answered by `Digest`.
    Digest,
    /// Let the guest check all its memory; answered by `Checked`.
    Check,
    /// What the guest saw; answered by `Guest`.
    Guest,
    /// Carry bytes on bare sockets: the receiving end; `Listening`, then `Sunk`.
    Sink {
        endpoint: String,
        streams: u16,
        bytes: u64,
        backing: String,
        /// Before `Listening`.
        populate: bool,
        settings: SocketSettings,
    },
    /// Make memory to send from and write to all of it; answered by `Ready`.
    Fill { bytes: u64, backing: String },
    /// Carry that memory on bare sockets: the sending end; answered by `Blasted`.
    Blast {
        endpoint: String,
        streams: u16,
        settings: SocketSettings,
    },
    /// What memory can do; answered by `Speeds`.
    Speeds,
    /// Stop a move that is under way.
    Cancel,
    /// End.
    Quit,
}

/// From a worker to `run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The guest runs and has filled its memory.
    Ready {
        guest_bytes: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu: Option<CpuFacts>,
    },
    /// The address that a peer can reach.
    Listening { endpoint: String },
    /// How far a move is.
    Progress {
        round: u32,
        sent_bytes: u64,
        remaining_bytes: u64,
        send_rate: f64,
        dirty_rate: f64,
        #[serde(default)]
        forecast: Option<ForecastNow>,
    },
    /// The source's side of a move has ended.
    Sent { side: Box<SourceSide> },
    /// The target's side of a move has ended.
    Landed { side: Box<TargetSide> },
    /// FNV or CRC of all guest memory.
    Digest { digest: u64 },
    /// The guest's own verdict on its memory, and in what the processor that it reads differs from
    /// the one that it was promised; none of a guest that reads none.
    Checked {
        ok: bool,
        detail: String,
        #[serde(default)]
        processor: Option<Vec<String>>,
    },
    /// What the guest saw.
    Guest { sight: Box<GuestSight> },
    /// The receiving end of bare sockets has everything.
    Sunk { ms: f64 },
    /// The sending end has had the other's word that everything arrived.
    Blasted { ms: f64 },
    /// What memory can do.
    Speeds { speeds: Speeds },
    /// No host gives the processor that the guest was to have.
    NotStarted { text: String },
    /// An order could not be carried out.
    Failed { text: String },
}

/// What is foretold, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct ForecastNow {
    /// Until the guest runs at the target: at least, likely, at most.
    pub(crate) left_s: [f64; 3],
    /// The pause, likewise.
    pub(crate) downtime_ms: [f64; 3],
}

/// How a side of a move ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ending {
    /// `completed`, `refused`, `failed` or `cancelled`.
    pub(crate) outcome: String,
    /// `source`, `in-transit` or `target`.
    pub(crate) custody: String,
    /// All of it in one line.
    pub(crate) error: Option<String>,
    /// Of a refusal: how far the session was, and every reason.
    #[serde(default)]
    pub(crate) refused_at: Option<String>,
    #[serde(default)]
    pub(crate) reasons: Vec<Reason>,
}

impl Ending {
    /// What went wrong and who has the guest, then every reason of a refusal; none of a move that
    /// completed.
    pub(crate) fn words(&self, target_file: Option<&str>) -> Option<String> {
        let (error, custody) = (self.error.as_ref()?, &self.custody);
        let headline = match &self.refused_at {
            Some(stage) => format!("the guest can't live on the target ({stage})"),
            None => error.clone(),
        };
        let reasons = refusal::lines(&self.reasons);
        let how_to = refusal::how_to(&self.reasons, target_file);
        Some(format!(
            "{headline} (the guest is with: {custody})\n{reasons}{how_to}"
        ))
    }
}

/// Moments by name, in nanoseconds on this host's monotonic clock: those of two processes of one
/// host can be compared.
pub(crate) type MarksNs = BTreeMap<String, u64>;

/// What the source measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceSide {
    pub(crate) ending: Ending,
    /// None of a move that did not complete.
    pub(crate) figures: Option<MoveFigures>,
    pub(crate) cpu_s: f64,
    pub(crate) vcpu_cpu_s: f64,
    /// What share of the guest's memory was in huge pages before it moved; none where the kernel
    /// can't tell.
    #[serde(default)]
    pub(crate) huge_share: Option<f64>,
    /// Stalls that the guest saw during the copy.
    pub(crate) stall_ms: Option<Quantiles>,
    /// What the guest wrote a second from the order until it was to stand still, in bytes of whole
    /// pages; none where it was not.
    #[serde(default)]
    pub(crate) written_bytes_s: Option<f64>,
    pub(crate) timeline: Timeline,
}

impl SourceSide {
    /// The guest runs on the target.
    pub(crate) fn completed(&self) -> bool {
        self.ending.outcome == "completed"
    }
}

/// What a completed move took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MoveFigures {
    pub(crate) total_ms: f64,
    pub(crate) downtime_ms: f64,
    pub(crate) wire_bytes: u64,
    /// How many of them went over each stream.
    pub(crate) stream_bytes: Vec<u64>,
    pub(crate) pages: Pages,
    /// What the first round found that was neither absent nor zero.
    pub(crate) content_bytes: u64,
    pub(crate) rounds: Vec<RoundFigures>,
    pub(crate) overhead_bytes: u64,
    pub(crate) io: String,
    /// How the guest's writes were recorded, and why so.
    pub(crate) tracking: String,
    /// What it took to begin to follow writes.
    #[serde(default)]
    pub(crate) tracking_start_ms: f64,
    /// The longest that rearming a chunk took.
    #[serde(default)]
    pub(crate) rearm_longest_ms: f64,
    /// The moments of the switchover on the source.
    #[serde(default)]
    pub(crate) switchover_ns: MarksNs,
    /// From the connect until both sides had agreed on the guest's processor.
    pub(crate) handshake_ms: f64,
    /// What differed of the processors and was forgiven, with the reasons.
    pub(crate) warnings: Vec<String>,
    pub(crate) convergence: ConvergenceFigures,
}

/// What the target measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetSide {
    pub(crate) ending: Ending,
    pub(crate) cpu_s: f64,
    /// None of a move that did not complete.
    pub(crate) overhead_bytes: Option<u64>,
    pub(crate) io: Option<String>,
    /// What share of the guest's memory is in huge pages once it runs here.
    #[serde(default)]
    pub(crate) huge_share: Option<f64>,
    pub(crate) digest: Option<u64>,
    /// The moments of the switchover on the target.
    #[serde(default)]
    pub(crate) switchover_ns: MarksNs,
    /// What of the handshake it took to make machine and memory.
    pub(crate) prepare_ms: Option<f64>,
    /// The move that followed from there, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) onward: Option<SourceSide>,
}

/// What the guest itself saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GuestSight {
    /// Gap across the last switchover, the largest of all vCPUs.
    pub(crate) gap_ms: Option<f64>,
    /// The same of each switchover, from the first one of its life; none of those that it has
    /// forgotten.
    #[serde(default)]
    pub(crate) gaps_ms: Vec<Option<f64>>,
    pub(crate) writes: u64,
    pub(crate) vcpu_cpu_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_as_it_went() {
        let order = Order::Listen {
            endpoint: "tcp://127.0.0.1:0".into(),
            kind: "kvm".into(),
            backing: "anonymous".into(),
            tracking: "auto".into(),
            io: "auto".into(),
            staging: "auto".into(),
            digest: false,
            memory_bytes_max: None,
            populated_bytes: None,
            room_bytes: None,
            pretend: None,
        };
        let line = serde_json::to_string(&order).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
    }
}
