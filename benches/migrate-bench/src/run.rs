//! `run`: two worker processes of this host, one guest, and what came of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use limosa_shim::Room;

use crate::args::{RunArgs, Transport};
use crate::child::Worker;
use crate::compat::{HostJson, read_host};
use crate::conclude::{Move, Proofs, conclude};
use crate::link::{End, Link, LinkFacts};
use crate::orders::{cpu_order, guest_order, link_order, tracking_for};
use crate::progress::{Bar, Show};
use crate::protocol::{Answer, CpuOrder, GuestOrder, LinkOrder, Order, SourceSide, TargetSide};
use crate::reference::{Carriage, SocketSettings, SpeedSamples};
use crate::report::{Run, Tracking};
use crate::warm::WarmMemory;
use crate::worker::spec_of;

/// Longest time to boot a guest and fill its memory.
const BOOT_MAX: Duration = Duration::from_secs(300);
/// Longest time for a target to listen: its memory may have to be populated first.
const LISTENING_MAX: Duration = Duration::from_secs(120);
/// Longest time for a target to report a guest that its source knows to be there.
const LANDED_MAX: Duration = Duration::from_secs(60);
/// Longest time for a target to report a move that failed on its source.
const GIVEN_UP_MAX: Duration = Duration::from_secs(2);

/// What the guest is to see of its processor, and what the target pretends to be.
pub(crate) struct RunCpu {
    pub(crate) guest: CpuOrder,
    pub(crate) target: Option<HostJson>,
}

impl RunCpu {
    /// Reads the files of the command line; the error is one of usage.
    pub(crate) fn read(args: &RunArgs) -> Result<Self, String> {
        Ok(Self {
            guest: cpu_order(&args.cpu)?,
            target: args.as_target.as_deref().map(read_host).transpose()?,
        })
    }
}

/// One command's runs, one after the other.
pub(crate) struct Bench {
    guest: GuestOrder,
    link: LinkOrder,
    /// Through which it goes.
    wire: Link,
    threads: Option<u16>,
    transport: Transport,
    hops: u32,
    proofs: Proofs,
    show: Show,
    interrupted: Arc<AtomicBool>,
    scratch: PathBuf,
    sockets: u32,
    io: Option<String>,
    warmed_bytes: u64,
    /// What of the target's memory is populated before it listens; none of it unless asked.
    populated_bytes: Option<u64>,
    /// What the source pretends to be, which boots the guest, and the target.
    pretend: [Option<HostJson>; 2],
}

impl Bench {
    /// Ready to run `args`, with the guest kind settled and all files read.
    pub(crate) fn new(
        args: &RunArgs,
        (kind, cpu): (&str, RunCpu),
        interrupted: Arc<AtomicBool>,
    ) -> Result<Self> {
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
            pretend: [cpu.guest.pretend.clone(), cpu.target],
            guest: GuestOrder {
                cpu: cpu.guest,
                tracking: tracking_for(&args.guest, &args.link, kind)?.to_string(),
                ..guest_order(&args.guest, kind)
            },
            link: link_order(&args.link),
            wire: args.link_rate.map_or(Link::Unshaped, Link::shaped),
            threads: args.link.threads,
            transport: args.transport,
            hops: args.hops,
            proofs: Proofs {
                guest: args.guest.verify,
                digest: args.guest.verify_digest,
            },
            show,
            interrupted,
            scratch,
            sockets: 0,
            io: None,
            warmed_bytes: 0,
            populated_bytes: args.populated.then_some(args.guest.memory),
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

    /// What shapes the link, where it was asked for.
    pub(crate) fn link_facts(&self) -> Option<LinkFacts> {
        self.wire.facts()
    }

    /// How page streams reached the kernel, once a run has shown it.
    pub(crate) fn io(&self) -> Option<&str> {
        self.io.as_deref()
    }

    /// What the guest is to see of its processor.
    pub(crate) fn compat(&self) -> &str {
        &self.guest.cpu.mode
    }

    /// How much free memory was warmed before each move.
    pub(crate) fn warmed_bytes(&self) -> u64 {
        self.warmed_bytes
    }

    /// Boots a guest in a fresh process, moves it, and proves it.
    pub(crate) fn run(&mut self) -> Result<Run> {
        let bar = Bar::new(self.show, self.guest.memory_bytes);
        bar.say("booting the guest");
        let mut here = self.worker("source", End::Source)?;
        let mut there = self.worker("target", End::Target)?;
        here.order(&Order::Boot {
            guest: self.guest.clone(),
        })?;
        let stop = Arc::clone(&self.interrupted);
        let cpu = here.wait_unless(&stop, "guest", BOOT_MAX, |answer| match answer {
            Answer::Ready { cpu, .. } => cpu,
            _ => None,
        })?;
        let (mut hops, mut marks) = (0, Vec::new());
        let last = loop {
            bar.say("connecting");
            // What takes the guest in: the target, and every second time the source.
            let pretend = self.pretend[(hops as usize + 1) % 2].clone();
            let end = if hops % 2 == 0 {
                End::Target
            } else {
                End::Source
            };
            let moved = self.hop(&mut here, (&mut there, end, pretend), &bar)?;
            if !moved.source.completed() {
                break moved;
            }
            marks.push(moved.marks());
            std::mem::swap(&mut here, &mut there);
            hops += 1;
            if hops == self.hops {
                break moved;
            }
        };
        bar.say("checking the guest's memory");
        // `here` has the guest now, wherever it ended.
        let run = conclude(self.proofs, (&last, &marks), cpu, (&mut here, &mut there));
        bar.end();
        let (run, guest_bytes) = (run?, self.guest.memory_bytes);
        Ok(Run {
            hops,
            guest_bytes,
            throughput_gib_s: run.total_ms.map(|ms| gib_s(guest_bytes, ms)),
            work_share: match self.guest.dirty_rate_bytes {
                0 => None,
                asked => last.source.written_bytes_s.map(|done| done / asked as f64),
            },
            tracking: run.tracking.map(|tracking| Tracking {
                start_ms_per_gib: tracking.start_ms * f64::from(1 << 30) / guest_bytes as f64,
                ..tracking
            }),
            ..run
        })
    }

    fn hop(
        &mut self,
        here: &mut Worker,
        (there, end, pretend): (&mut Worker, End, Option<HostJson>),
        bar: &Bar,
    ) -> Result<Move> {
        let mut warm = WarmMemory::new(self.guest.touched_bytes);
        if self.hops == 1 {
            // The figures of a chain of moves are those of the last one: nobody compares them.
            warm.settle();
        }
        self.warmed_bytes = warm.bytes();
        if self.populated_bytes.is_some() {
            warm.release_ahead_of(there.id());
        }
        there.order(&Order::Listen {
            endpoint: self.endpoint(end),
            kind: self.guest.kind.clone(),
            backing: self.guest.backing.clone(),
            tracking: self.guest.tracking.clone(),
            io: self.link.io.clone(),
            staging: self.link.staging.clone(),
            digest: self.proofs.digest,
            memory_bytes_max: None,
            populated_bytes: self.populated_bytes,
            // What is held to keep it warm is freed as the target takes memory.
            room_bytes: Some(self.room_bytes().saturating_sub(warm.bytes())),
            pretend,
        })?;
        let endpoint = there.wait_for("address", LISTENING_MAX, |answer| match answer {
            Answer::Listening { endpoint } => Some(endpoint),
            _ => None,
        })?;
        let endpoint = self.wire.way_to(&endpoint)?;
        if self.populated_bytes.is_none() {
            warm.release_ahead_of(there.id());
        }
        here.order(&Order::Send {
            endpoint,
            link: self.link.clone(),
        })?;
        let source = self.wait_for_source(here, bar)?;
        drop(warm);
        if let Some(figures) = &source.figures {
            self.io = Some(figures.io.clone());
        }
        let target = wait_for_target(there, &source);
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

    /// Lets bare sockets carry `bytes` as the guest moves, into memory of the same kind, then
    /// measures memory for `speeds`, where that is wanted; returns the sockets' milliseconds.
    pub(crate) fn carry(
        &mut self,
        bytes: u64,
        settings: &SocketSettings,
        speeds: Option<&mut SpeedSamples>,
    ) -> Result<f64> {
        let carriage = Carriage {
            streams: self.link.streams,
            bytes,
            backing: self.guest.backing.clone(),
            populate: self.populated_bytes.is_some(),
            settings: settings.clone(),
        };
        let workers = Carriage::workers(&self.wire, self.threads)?;
        let endpoint = self.endpoint(End::Target);
        let stop = Arc::clone(&self.interrupted);
        carriage.carry(&mut self.wire, workers, endpoint, &stop, speeds)
    }

    /// How much memory the guest takes at the target.
    fn room_bytes(&self) -> u64 {
        let all = self.guest.memory_bytes;
        match spec_of(&self.guest).map(|spec| spec.room()) {
            Ok(Room::Bytes(bytes)) => bytes.min(all),
            _ => all,
        }
    }

    fn worker(&self, name: &'static str, end: End) -> Result<Worker> {
        Worker::start(name, self.wire.place(end), self.threads)
    }

    fn endpoint(&mut self, end: End) -> String {
        self.sockets += 1;
        match self.transport {
            Transport::Tcp => self.wire.listen_at(end),
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

/// The target's side of a move whose source has ended; none if it has no more to say.
fn wait_for_target(there: &mut Worker, source: &SourceSide) -> Option<TargetSide> {
    let patience = if source.completed() {
        LANDED_MAX
    } else {
        GIVEN_UP_MAX
    };
    let end = Instant::now() + patience;
    while Instant::now() < end {
        match there.answer_within(Duration::from_millis(50)) {
            Ok(Some(Answer::Landed { side })) => return Some(*side),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
    None
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

/// GiB a second; 0 for no time.
pub(crate) fn gib_s(bytes: u64, ms: f64) -> f64 {
    if ms > 0.0 {
        bytes as f64 / f64::from(1 << 30) / (ms / 1e3)
    } else {
        0.0
    }
}
