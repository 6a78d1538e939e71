//! `run`: two worker processes of this host, one guest, and what came of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::{RunArgs, Transport};
use crate::child::Worker;
use crate::orders::{guest_order, link_order};
use crate::progress::{Bar, Show};
use crate::protocol::{Answer, GuestOrder, GuestSight, LinkOrder, Order, SourceSide, TargetSide};
use crate::report::{
    BothSides, Check, CpuSeconds, Downtime, Reference, Run, RunOutcome, Spread, Verified,
};
use crate::warm::WarmMemory;

/// Longest time to boot a guest and fill its memory.
const BOOT_MAX: Duration = Duration::from_secs(300);
/// Longest time for a guest's check of all its memory.
const CHECK_MAX: Duration = Duration::from_secs(300);
/// Longest time for one bare-socket reference.
const REFERENCE_MAX: Duration = Duration::from_secs(120);
/// Most bytes of the reference: beyond it a rate is a rate, and memory is better left to the guest.
const REFERENCE_BYTES_MAX: u64 = 2 << 30;

/// One command's runs, one after the other.
pub(crate) struct Bench {
    guest: GuestOrder,
    link: LinkOrder,
    transport: Transport,
    hops: u32,
    verify: bool,
    digest: bool,
    show: Show,
    interrupted: Arc<AtomicBool>,
    scratch: PathBuf,
    sockets: u32,
    io: String,
    warmed_bytes: u64,
}

/// The end of one move, both sides.
struct Move {
    source: SourceSide,
    target: Option<TargetSide>,
}

impl Bench {
    /// Ready to run `args`, with the guest kind settled.
    pub(crate) fn new(args: &RunArgs, kind: &str, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let show = if args.output.quiet {
            Show::Nothing
        } else {
            Show::Live
        };
        let scratch = std::env::temp_dir().join(format!("migrate-bench-{}", std::process::id()));
        if args.transport == Transport::Unix {
            std::fs::create_dir_all(&scratch).context("a folder for the sockets")?;
        }
        Ok(Self {
            guest: guest_order(&args.guest, kind),
            link: link_order(&args.link),
            transport: args.transport,
            hops: args.hops,
            verify: args.guest.verify,
            digest: args.guest.verify_digest,
            show,
            interrupted,
            scratch,
            sockets: 0,
            io: String::new(),
            warmed_bytes: 0,
        })
    }

    /// What the guest was asked to be.
    pub(crate) fn guest(&self) -> &GuestOrder {
        &self.guest
    }

    /// How it was asked to move.
    pub(crate) fn link(&self) -> &LinkOrder {
        &self.link
    }

    /// How page streams reached the kernel, once a run has shown it.
    pub(crate) fn io(&self) -> &str {
        &self.io
    }

    /// How much free memory was warmed before each move.
    pub(crate) fn warmed_bytes(&self) -> u64 {
        self.warmed_bytes
    }

    /// Boots a guest in a fresh process, moves it, and proves it.
    pub(crate) fn run(&mut self) -> Result<Run> {
        let bar = Bar::new(self.show, self.guest.memory_bytes);
        bar.say("booting the guest");
        let mut here = Worker::start("source")?;
        let mut there = Worker::start("target")?;
        here.order(&Order::Boot {
            guest: self.guest.clone(),
        })?;
        here.wait_for("guest", BOOT_MAX, |answer| {
            matches!(answer, Answer::Ready { .. }).then_some(())
        })?;
        let mut hop = 0;
        let last = loop {
            bar.say("connecting");
            let moved = self.hop(&mut here, &mut there, &bar)?;
            hop += 1;
            let completed = moved.source.ending.outcome == "completed";
            if completed {
                std::mem::swap(&mut here, &mut there);
            }
            if !completed || hop == self.hops {
                break moved;
            }
        };
        bar.say("checking the guest's memory");
        // `here` has the guest now, wherever it ended.
        let run = self.conclude(hop, &last, &mut here, &mut there);
        bar.end();
        run
    }

    fn hop(&mut self, here: &mut Worker, there: &mut Worker, bar: &Bar) -> Result<Move> {
        let mut warm = WarmMemory::new(self.guest.memory_bytes);
        there.order(&Order::Listen {
            endpoint: self.endpoint(),
            kind: self.guest.kind.clone(),
            backing: self.guest.backing.clone(),
            io: self.link.io.clone(),
            digest: self.digest,
        })?;
        let endpoint =
            there.wait_for("address", Duration::from_secs(20), |answer| match answer {
                Answer::Listening { endpoint } => Some(endpoint),
                _ => None,
            })?;
        self.warmed_bytes = warm.bytes();
        warm.release_ahead_of(there.id());
        here.order(&Order::Send {
            endpoint,
            link: self.link.clone(),
        })?;
        let source = self.wait_for_source(here, bar)?;
        drop(warm);
        if !source.io.is_empty() {
            self.io.clone_from(&source.io);
        }
        let target = self.wait_for_target(there, &source);
        Ok(Move { source, target })
    }

    fn wait_for_source(&self, here: &mut Worker, bar: &Bar) -> Result<SourceSide> {
        let mut cancelled = false;
        loop {
            if !cancelled && self.interrupted.load(Ordering::Acquire) {
                cancelled = true;
                here.order(&Order::Cancel)?;
            }
            match here.answer_within(Duration::from_millis(50))? {
                Some(Answer::Sent { side }) => return Ok(*side),
                Some(Answer::Failed { text }) => bail!("{text}"),
                Some(answer) => bar.on_progress(&answer),
                None => {}
            }
        }
    }

    fn wait_for_target(&self, there: &mut Worker, source: &SourceSide) -> Option<TargetSide> {
        let patience = if source.ending.outcome == "completed" {
            60
        } else {
            2
        };
        let end = Instant::now() + Duration::from_secs(patience);
        while Instant::now() < end {
            match there.answer_within(Duration::from_millis(50)) {
                Ok(Some(Answer::Landed { side })) => return Some(*side),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Asks the guest what it saw and whether all its memory is right, and puts everything together.
    fn conclude(
        &self,
        hops: u32,
        last: &Move,
        here: &mut Worker,
        there: &mut Worker,
    ) -> Result<Run> {
        let source = &last.source;
        let custody = source.ending.custody.as_str();
        let mut error = source.ending.error.clone();
        let sight = if custody == "in-transit" {
            GuestSight::default()
        } else {
            sight_of(here)?
        };
        let mut verified = Verified {
            guest: Check::Off,
            digest: Check::Off,
        };
        if self.verify && custody != "in-transit" {
            let (check, detail) = check_of(here)?;
            verified.guest = check;
            if check == Check::Failed {
                error.get_or_insert(detail);
            }
        }
        if let (true, Some(target)) = (self.digest, last.target.as_ref().and_then(|t| t.digest)) {
            let same = digest_of(there)? == target;
            verified.digest = if same { Check::Ok } else { Check::Failed };
            if !same {
                error.get_or_insert("the digests of source and target memory differ".into());
            }
        }
        let completed = source.ending.outcome == "completed";
        Ok(Run {
            outcome: outcome_of(&source.ending.outcome),
            custody: custody.into(),
            error,
            hops,
            total_ms: source.total_ms,
            downtime_ms: Downtime {
                engine: source.downtime_ms,
                guest: sight.gap_ms.filter(|_| completed),
            },
            stall_max_ms: source.stall_ms.as_ref().map(|stall| stall.max),
            stall_ms: source.stall_ms.clone(),
            guest_bytes: self.guest.memory_bytes,
            wire_bytes: source.wire_bytes,
            pages: source.pages,
            throughput_gib_s: gib_s(self.guest.memory_bytes, source.total_ms),
            cpu_s: CpuSeconds {
                source: source.cpu_s,
                target: last.target.as_ref().map_or(0.0, |target| target.cpu_s),
                vcpu_source: source.vcpu_cpu_s,
                vcpu_target: if completed { sight.vcpu_cpu_s } else { 0.0 },
            },
            overhead_bytes: BothSides {
                source: source.overhead_bytes,
                target: last
                    .target
                    .as_ref()
                    .map_or(0, |target| target.overhead_bytes),
            },
            rounds: source.rounds.clone(),
            verified,
        })
    }

    /// Bare sockets with as many streams, into fresh memory of the same kind, between two processes.
    pub(crate) fn reference(&mut self) -> Result<f64> {
        let bytes = self.reference_bytes();
        let (streams, backing) = (self.link.streams, self.guest.backing.clone());
        let mut blast = Worker::start("reference source")?;
        let mut sink = Worker::start("reference target")?;
        let endpoint = self.endpoint();
        sink.order(&Order::Sink {
            endpoint,
            streams,
            bytes,
            backing: backing.clone(),
        })?;
        let endpoint = sink.wait_for("address", REFERENCE_MAX, |answer| match answer {
            Answer::Listening { endpoint } => Some(endpoint),
            _ => None,
        })?;
        blast.order(&Order::Fill { bytes, backing })?;
        blast.wait_for("memory", REFERENCE_MAX, |answer| {
            matches!(answer, Answer::Ready { .. }).then_some(())
        })?;
        let mut warm = WarmMemory::new(bytes);
        warm.release_ahead_of(sink.id());
        blast.order(&Order::Blast { endpoint, streams })?;
        blast.wait_for("reference", REFERENCE_MAX, |answer| match answer {
            Answer::Blasted { ms } => Some(ms),
            _ => None,
        })
    }

    /// How much the reference carries.
    pub(crate) fn reference_bytes(&self) -> u64 {
        self.guest.memory_bytes.min(REFERENCE_BYTES_MAX)
    }

    fn endpoint(&mut self) -> String {
        self.sockets += 1;
        match self.transport {
            Transport::Tcp => "tcp://127.0.0.1:0".into(),
            Transport::Unix => {
                format!(
                    "unix:{}",
                    self.scratch
                        .join(format!("{}.sock", self.sockets))
                        .display()
                )
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

/// The reference's figures beside the runs'.
pub(crate) fn reference_of(
    bytes: u64,
    streams: u16,
    references: &[f64],
    runs: &[Run],
) -> Option<Reference> {
    let throughput_gib_s = Spread::of(references.iter().map(|ms| gib_s(bytes, *ms)))?;
    let ratios = runs
        .iter()
        .zip(references)
        .filter(|(run, _)| run.outcome == RunOutcome::Completed);
    let time_ratio = Spread::of(
        ratios.map(|(run, ms)| run.total_ms / (ms * run.guest_bytes as f64 / bytes as f64)),
    );
    Some(Reference {
        what: "bare sockets between two processes, into fresh memory of the same kind".into(),
        bytes,
        streams,
        total_ms: references.to_vec(),
        throughput_gib_s,
        time_ratio,
    })
}

fn gib_s(bytes: u64, ms: f64) -> f64 {
    if ms > 0.0 {
        bytes as f64 / f64::from(1 << 30) / (ms / 1e3)
    } else {
        0.0
    }
}

fn outcome_of(word: &str) -> RunOutcome {
    match word {
        "completed" => RunOutcome::Completed,
        "refused" => RunOutcome::Refused,
        "cancelled" => RunOutcome::Cancelled,
        _ => RunOutcome::Failed,
    }
}

fn sight_of(worker: &mut Worker) -> Result<GuestSight> {
    worker.order(&Order::Guest)?;
    worker.wait_for(
        "view of the guest",
        Duration::from_secs(20),
        |answer| match answer {
            Answer::Guest { sight } => Some(*sight),
            _ => None,
        },
    )
}

fn check_of(worker: &mut Worker) -> Result<(Check, String)> {
    worker.order(&Order::Check)?;
    worker.wait_for("check", CHECK_MAX, |answer| match answer {
        Answer::Checked { ok: true, detail } => Some((Check::Ok, detail)),
        Answer::Checked { ok: false, detail } => Some((Check::Failed, detail)),
        _ => None,
    })
}

fn digest_of(worker: &mut Worker) -> Result<u64> {
    worker.order(&Order::Digest)?;
    worker.wait_for("digest", CHECK_MAX, |answer| match answer {
        Answer::Digest { digest } => Some(digest),
        _ => None,
    })
}
