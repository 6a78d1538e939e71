//! What `run` and its worker processes say to each other: one JSON object a line.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report::{Pages, Quantiles, RoundFigures};

/// The guest that a worker boots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GuestOrder {
    pub(crate) kind: String,
    pub(crate) memory_bytes: u64,
    pub(crate) vcpus: u16,
    pub(crate) fill: String,
    pub(crate) touched_percent: u8,
    pub(crate) working_set_bytes: u64,
    pub(crate) dirty_rate_bytes: u64,
    pub(crate) pattern: String,
    pub(crate) probe: String,
    pub(crate) backing: String,
    pub(crate) seed: u64,
}

/// How a worker moves its guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinkOrder {
    pub(crate) streams: u16,
    pub(crate) codec: String,
    pub(crate) downtime: Duration,
    pub(crate) on_stall: String,
    pub(crate) io: String,
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
        io: String,
        digest: bool,
        #[serde(default)]
        memory_bytes_max: Option<u64>,
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
    },
    /// Make memory to send from and write to all of it; answered by `Ready`.
    Fill { bytes: u64, backing: String },
    /// Carry that memory on bare sockets: the sending end; answered by `Blasted`.
    Blast { endpoint: String, streams: u16 },
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
    Ready { guest_bytes: u64 },
    /// The address that a peer can reach.
    Listening { endpoint: String },
    /// How far a move is.
    Progress {
        round: u32,
        sent_bytes: u64,
        remaining_bytes: u64,
        send_rate: f64,
        dirty_rate: f64,
    },
    /// The source's side of a move has ended.
    Sent { side: Box<SourceSide> },
    /// The target's side of a move has ended.
    Landed { side: Box<TargetSide> },
    /// FNV or CRC of all guest memory.
    Digest { digest: u64 },
    /// The guest's own verdict on its memory.
    Checked { ok: bool, detail: String },
    /// What the guest saw.
    Guest { sight: Box<GuestSight> },
    /// The receiving end of bare sockets has everything.
    Sunk { ms: f64 },
    /// The sending end has had the other's word that everything arrived.
    Blasted { ms: f64 },
    /// An order could not be carried out.
    Failed { text: String },
}

/// How a side of a move ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ending {
    /// `completed`, `refused`, `failed` or `cancelled`.
    pub(crate) outcome: String,
    /// `source`, `in-transit` or `target`.
    pub(crate) custody: String,
    pub(crate) error: Option<String>,
}

/// What the source measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceSide {
    pub(crate) ending: Ending,
    /// None of a move that did not complete.
    pub(crate) figures: Option<MoveFigures>,
    pub(crate) cpu_s: f64,
    pub(crate) vcpu_cpu_s: f64,
    /// Stalls that the guest saw during the copy.
    pub(crate) stall_ms: Option<Quantiles>,
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
    pub(crate) pages: Pages,
    pub(crate) rounds: Vec<RoundFigures>,
    pub(crate) overhead_bytes: u64,
    pub(crate) io: String,
    pub(crate) tracking: String,
}

/// What the target measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetSide {
    pub(crate) ending: Ending,
    pub(crate) cpu_s: f64,
    /// None of a move that did not complete.
    pub(crate) overhead_bytes: Option<u64>,
    pub(crate) io: Option<String>,
    pub(crate) digest: Option<u64>,
    /// The move that followed from there, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) onward: Option<SourceSide>,
}

/// What the guest itself saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GuestSight {
    /// Gap across the last switchover, the largest of all vCPUs.
    pub(crate) gap_ms: Option<f64>,
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
            io: "auto".into(),
            digest: false,
            memory_bytes_max: None,
        };
        let line = serde_json::to_string(&order).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
    }
}
