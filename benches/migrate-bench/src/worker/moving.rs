//! One side of a move: send the guest, or take one in, and measure.

use std::time::{Duration, Instant};

use anyhow::Result;
use limosa::{
    CancelToken, Cause, Codec, EncodingCounts, Endpoint, Event, Forecast, GuestError, GuestMemory,
    IoChoice, LinkConfig, Listener, MigrationConfig, MigrationError, Moment, Offer, Progress,
    SessionError, SourceGuest, SourceReport, Splice, Staging, StateSection, Steering, TargetGuest,
    TargetHost, TargetPolicy, migrate_in, migrate_out,
};
use limosa_compat::HostCpu;
use limosa_payload::protocol::Phase;
use limosa_shim::{HostSpec, HugePages, KvmHost, Populate, ProcessHost, Room, Workload};
use rustix::time::{ClockId, clock_gettime};

use crate::convergence::ConvergenceFigures;
use crate::protocol::{
    Answer, Ending, ForecastNow, LinkOrder, MarksNs, MoveFigures, SourceSide, TargetSide,
};
use crate::refusal::Reason;
use crate::report::{Pages, RoundFigures};
use crate::timeline::Recorder;
use crate::units::ms;
use crate::worker::guest::{AnyGuest, StallMeter, backing, quantiles, tracking};
use crate::worker::steer::{Hands, policy_named};

/// Longest wait for a guest's vCPUs to go in once it was let run.
const ENTERED_MAX: Duration = Duration::from_secs(1);
/// What one write of the workload dirties.
const PAGE_BYTES: u64 = limosa_pages::PAGE_BYTES as u64;

/// The name of that moment, beside those of the engine's.
pub(crate) const ENTERED: &str = "entered";

/// How often progress is said.
const SAY_EVERY: Duration = Duration::from_millis(100);

/// CPU time of this process's threads, split into the guest's and the rest.
struct CpuClock {
    all: Duration,
    vcpus: Duration,
}

impl CpuClock {
    fn now(vcpus: Duration) -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let all = Duration::new(
            time.tv_sec.unsigned_abs(),
            time.tv_nsec.unsigned_abs() as u32,
        );
        Self { all, vcpus }
    }

    /// Seconds since `self` of everything but the vCPUs, and of the vCPUs.
    fn since(&self, now: &Self) -> (f64, f64) {
        let vcpus = now.vcpus.saturating_sub(self.vcpus);
        let all = now.all.saturating_sub(self.all);
        (all.saturating_sub(vcpus).as_secs_f64(), vcpus.as_secs_f64())
    }
}

/// Sends the guest to `endpoint`; `say` hears of progress.
pub(crate) fn send(
    guest: &mut AnyGuest,
    endpoint: &str,
    order: &LinkOrder,
    hands: &Hands,
    say: &mut dyn FnMut(&Answer),
) -> Result<SourceSide> {
    let target: Endpoint = endpoint.parse()?;
    let config = config_of(order, &hands.steering);
    let cancel = &hands.cancel;
    guest.workload().set_phase(Phase::Precopy)?;
    let stalls_before = guest.precopy_stalls()?;
    let huge_share = huge_share(guest);
    let begun = CpuClock::now(guest.vcpu_cpu());
    let mut recorder = Recorder::new();
    let mut meter = Some(StallMeter::new(guest)?);
    let (writes_before, mut ran) = (guest.writes()?, None);
    let ordered = Instant::now();
    let mut last_said = None;
    let mut told = None;
    let mut observer = |moment: &Moment| {
        recorder.on_moment(moment);
        if let Moment::Progress(Progress { elapsed, .. }) = moment
            && let Some(longest) = meter.as_mut().and_then(StallMeter::longest)
        {
            recorder.on_stall(*elapsed, longest);
        }
        if let Moment::Session(Event::Estimate { forecast, .. }) = moment {
            told = forecast.map(|forecast| (Instant::now(), forecast));
        }
        if let Moment::Guest { elapsed, .. } = moment {
            // Whoever hears of progress wants a processor, and the guest is waiting.
            last_said = Some(*elapsed);
            meter = None;
            ran.get_or_insert_with(|| ordered.elapsed());
        }
        if let Moment::Progress(progress) = moment
            && last_said.is_none_or(|last| progress.elapsed.saturating_sub(last) >= SAY_EVERY)
        {
            last_said = Some(progress.elapsed);
            let forecast = told.map(|(at, forecast)| now_of(&forecast, at.elapsed()));
            say(&progress_of(progress, forecast));
        }
    };
    let done = match guest {
        AnyGuest::Kvm(guest) => out(guest, &target, &config, cancel, &mut observer),
        AnyGuest::Process(guest) => out(guest, &target, &config, cancel, &mut observer),
    };
    let (cpu_s, vcpu_cpu_s) = begun.since(&CpuClock::now(guest.vcpu_cpu()));
    // What the guest had seen until it was paused: its memory here stands still from then on.
    let stalls = guest.precopy_stalls()?.since(&stalls_before);
    let written = guest.writes()?.saturating_sub(writes_before) * PAGE_BYTES;
    let done_there = done.is_ok();
    let (figures, ending) = match done {
        Ok(mut report) => {
            report.tracking = guest.workload().tracking().to_string();
            (Some(figures_of(report)), ending_of(None))
        }
        Err(error) => {
            guest.workload().set_phase(Phase::Quiet)?;
            (None, ending_of(Some(&error)))
        }
    };
    Ok(SourceSide {
        ending,
        figures,
        cpu_s,
        vcpu_cpu_s,
        huge_share,
        stall_ms: quantiles(&stalls),
        written_bytes_s: match done_there {
            true => ran.map(|ran| written as f64 / ran.as_secs_f64().max(1e-6)),
            false => None,
        },
        timeline: recorder.timeline(),
    })
}

fn progress_of(progress: &Progress, forecast: Option<ForecastNow>) -> Answer {
    Answer::Progress {
        round: progress.round.get(),
        sent_bytes: progress.wire_bytes,
        remaining_bytes: progress.remaining_bytes,
        send_rate: progress.bytes_per_second,
        dirty_rate: progress.dirty_bytes_per_second.unwrap_or(0.0),
        forecast,
    }
}

/// What was foretold so long ago.
fn now_of(forecast: &Forecast, ago: Duration) -> ForecastNow {
    let Forecast { left, downtime } = forecast;
    let left = [left.low, left.likely, left.high];
    ForecastNow {
        left_s: left.map(|time| time.saturating_sub(ago).as_secs_f64()),
        downtime_ms: [downtime.low, downtime.likely, downtime.high].map(ms),
    }
}

fn figures_of(report: SourceReport) -> MoveFigures {
    let rounds = report.rounds.iter().map(|round| RoundFigures {
        pages: round.pages.total(),
        wire_bytes: round.wire_bytes,
        ms: ms(round.elapsed),
    });
    MoveFigures {
        convergence: ConvergenceFigures::of(&report),
        total_ms: ms(report.elapsed),
        downtime_ms: ms(report.switchover.total),
        wire_bytes: report.wire_bytes(),
        stream_bytes: report.stream_bytes(),
        pages: pages_of(report.pages()),
        content_bytes: content_bytes(&report),
        rounds: rounds.collect(),
        overhead_bytes: report.overhead_bytes,
        io: report.io,
        tracking: report.tracking,
        tracking_start_ms: ms(report.tracking_start),
        rearm_longest_ms: ms(report.rearm_longest),
        switchover_ns: marks_ns(report.marks.iter().map(|(mark, at)| (mark.name(), at))),
        handshake_ms: ms(report.handshake),
        warnings: report.warnings.iter().map(ToString::to_string).collect(),
    }
}

/// What the guest's memory held besides zeros when the move began.
fn content_bytes(report: &SourceReport) -> u64 {
    let first = report.rounds.first().map(|round| round.pages);
    let counts = first.unwrap_or_default();
    let content = counts.total() - counts.absent - counts.zero;
    content * limosa_pages::PAGE_BYTES as u64
}

fn out<G: SourceGuest>(
    guest: &mut G,
    target: &Endpoint,
    config: &MigrationConfig,
    cancel: &CancelToken,
    observer: &mut impl FnMut(&Moment),
) -> Result<SourceReport, MigrationError> {
    migrate_out(guest, target, config, cancel, observer)
}

/// What a target is asked to do.
pub(crate) struct Listen {
    pub(crate) endpoint: String,
    pub(crate) kind: String,
    pub(crate) backing: String,
    /// How the guest's writes are recorded here, when it moves on.
    pub(crate) tracking: String,
    pub(crate) io: String,
    pub(crate) staging: String,
    pub(crate) digest: bool,
    /// Largest guest to accept, in bytes; none for as much as a host can have at all.
    pub(crate) memory_bytes_max: Option<u64>,
    /// Memory of the guest to come, to be populated first; none to populate as pages arrive.
    pub(crate) populated_bytes: Option<u64>,
    /// Memory that must be free, in bytes; none for all of the guest's.
    pub(crate) room_bytes: Option<u64>,
    /// What this host pretends to be.
    pub(crate) pretend: Option<HostCpu>,
}

/// Takes one guest in; `listening` is told where, once somebody can connect.
pub(crate) fn listen(
    wish: &Listen,
    cancel: &CancelToken,
    listening: impl FnOnce(String),
) -> Result<(Option<AnyGuest>, TargetSide)> {
    let spec = HostSpec::default();
    let spec = HostSpec {
        backing: backing(&wish.backing),
        tracking: tracking(&wish.tracking),
        huge_pages: HugePages::Advised,
        memory_bytes_max: wish.memory_bytes_max.unwrap_or(spec.memory_bytes_max),
        populate: match wish.populated_bytes {
            Some(memory_bytes) => Populate::Ahead { memory_bytes },
            None => Populate::OnArrival,
        },
        room: wish.room_bytes.map_or(Room::All, Room::Bytes),
        pretend: wish.pretend.clone(),
        ..spec
    };
    let link = LinkConfig {
        io: io_of(&wish.io),
        ..LinkConfig::default()
    };
    let mut listener = Listener::bind(&wish.endpoint.parse()?, &link)?;
    let config = MigrationConfig {
        link,
        staging: staging_of(&wish.staging),
        ..MigrationConfig::default()
    };
    let digest = if wish.digest {
        Digest::Wanted
    } else {
        Digest::Off
    };
    if wish.kind == "process" {
        let host = ProcessHost::new(spec)?;
        listening(listener.endpoint().to_string());
        take_in(host, digest, &mut listener, &config, cancel)
    } else {
        let host = KvmHost::new(spec)?;
        listening(listener.endpoint().to_string());
        take_in(host, digest, &mut listener, &config, cancel)
    }
}

fn take_in<H>(
    host: H,
    digest: Digest,
    listener: &mut Listener,
    config: &MigrationConfig,
    cancel: &CancelToken,
) -> Result<(Option<AnyGuest>, TargetSide)>
where
    H: TargetHost,
    H::Guest: Workload + Into<AnyGuest>,
{
    let begun = CpuClock::now(Duration::ZERO);
    let mut host = DigestHost { host, digest };
    let landed = migrate_in(&mut host, listener, config, cancel, &mut ());
    let (guest, report, ending, digest) = match landed {
        Ok(landed) => {
            let DigestGuest { guest, digest } = landed.guest;
            let guest: AnyGuest = guest.into();
            let report = Some(landed.report);
            (Some(guest), report, ending_of(None), digest.value())
        }
        Err(error) => (None, None, ending_of(Some(&error)), None),
    };
    let vcpus = guest.as_ref().map_or(Duration::ZERO, AnyGuest::vcpu_cpu);
    let (cpu_s, _) = begun.since(&CpuClock::now(vcpus));
    let mut switchover_ns = MarksNs::new();
    if let (Some(guest), Some(report)) = (&guest, &report) {
        let marks = report.marks.iter().map(|(mark, at)| (mark.name(), at));
        let entered = all_in_since(guest).map(|at| (ENTERED, at));
        switchover_ns = marks_ns(marks.chain(entered));
    }
    if let Some(guest) = &guest {
        guest.workload().set_phase(Phase::Quiet)?;
    }
    let side = TargetSide {
        ending,
        cpu_s,
        overhead_bytes: report.as_ref().map(|report| report.overhead_bytes),
        prepare_ms: report.as_ref().map(|report| ms(report.prepare)),
        io: report.map(|report| report.io),
        huge_share: guest.as_ref().and_then(huge_share),
        digest,
        switchover_ns,
        onward: None,
    };
    Ok((guest, side))
}

/// When the last vCPU of a guest that was let run went in; none where one did not within a second.
fn all_in_since(guest: &AnyGuest) -> Option<Instant> {
    let patience = Instant::now() + ENTERED_MAX;
    loop {
        let since = guest.workload().all_in_since();
        if since.is_some() || Instant::now() > patience {
            return since;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Moments on the monotonic clock, which the standard library keeps to itself.
fn marks_ns(marks: impl Iterator<Item = (&'static str, Instant)>) -> MarksNs {
    let now = clock_gettime(ClockId::Monotonic);
    let (now_ns, now) = (
        now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs(),
        Instant::now(),
    );
    let ns = |at: Instant| {
        let ago = now.saturating_duration_since(at).as_nanos();
        now_ns.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX))
    };
    marks.map(|(name, at)| (name.into(), ns(at))).collect()
}

/// The share of a guest's populated memory that lies in huge pages of this host; none where its
/// kernel can't tell.
fn huge_share(guest: &AnyGuest) -> Option<f64> {
    Some(guest.workload().huge_use()?.share())
}

/// Whether a digest of all memory is taken before the guest runs here.
#[derive(Debug, Clone, Copy)]
enum Digest {
    Off,
    Wanted,
    Taken(u64),
}

impl Digest {
    fn value(self) -> Option<u64> {
        match self {
            Self::Taken(digest) => Some(digest),
            Self::Off | Self::Wanted => None,
        }
    }
}

/// A host whose guests are digested between their arrival and their first step.
struct DigestHost<H> {
    host: H,
    digest: Digest,
}

struct DigestGuest<G> {
    guest: G,
    digest: Digest,
}

impl<H: TargetHost> TargetHost for DigestHost<H>
where
    H::Guest: Workload,
{
    type Guest = DigestGuest<H::Guest>;

    fn policy(&self) -> Result<TargetPolicy, GuestError> {
        self.host.policy()
    }

    fn prepare(&mut self, offer: &Offer) -> Result<Self::Guest, GuestError> {
        Ok(DigestGuest {
            guest: self.host.prepare(offer)?,
            digest: self.digest,
        })
    }
}

impl<G: TargetGuest + Workload> TargetGuest for DigestGuest<G> {
    fn memory(&self) -> std::sync::Arc<dyn GuestMemory> {
        TargetGuest::memory(&self.guest)
    }

    fn restore_state(&mut self, sections: Vec<StateSection>) -> Result<(), GuestError> {
        self.guest.restore_state(sections)
    }

    fn resume(&mut self) -> Result<(), GuestError> {
        if matches!(self.digest, Digest::Wanted) {
            let digest = self.guest.memory_digest().map_err(GuestError::new)?;
            self.digest = Digest::Taken(digest);
        }
        self.guest.resume()
    }
}

fn config_of(order: &LinkOrder, steering: &Steering) -> MigrationConfig {
    let mut config = MigrationConfig {
        steering: steering.clone(),
        ..MigrationConfig::default()
    };
    config.session.downtime_max = order.downtime;
    config.session.stream_count = order.streams;
    config.session.on_stall = policy_named(&order.on_stall);
    config.steering.set_bandwidth(order.bandwidth);
    config.link.io = io_of(&order.io);
    config.link.splice = match order.splice.as_str() {
        "never" => Splice::Never,
        _ => Splice::Auto,
    };
    config.staging = staging_of(&order.staging);
    config.codec = order.codec.parse().unwrap_or(Codec::Auto);
    config
}

fn staging_of(name: &str) -> Staging {
    match name {
        "always" => Staging::Always,
        "never" => Staging::Never,
        _ => Staging::Auto,
    }
}

fn io_of(name: &str) -> IoChoice {
    match name {
        "uring" => IoChoice::Uring,
        "blocking" => IoChoice::Blocking,
        _ => IoChoice::Auto,
    }
}

fn ending_of(error: Option<&MigrationError>) -> Ending {
    let Some(error) = error else {
        return Ending {
            outcome: "completed".into(),
            custody: "target".into(),
            error: None,
            refused_at: None,
            reasons: Vec::new(),
        };
    };
    let outcome = match &error.cause {
        cause if cause.is_refusal() => "refused",
        cause if cause.is_cancelled() => "cancelled",
        _ => "failed",
    };
    let reasons = match &error.cause {
        Cause::Session(SessionError::PeerIncompatible(reasons)) => reasons.as_slice(),
        _ => &[],
    };
    let reasons = reasons.iter().map(|reason| Reason {
        what: reason.what.clone(),
        remedy: reason.remedy.clone(),
    });
    Ending {
        outcome: outcome.into(),
        custody: error.custody.to_string(),
        error: Some(error.to_string()),
        refused_at: error.cause.is_refusal().then(|| error.stage.to_string()),
        reasons: reasons.collect(),
    }
}

fn pages_of(counts: EncodingCounts) -> Pages {
    Pages {
        absent: counts.absent,
        zero: counts.zero,
        raw: counts.raw,
        lz4: counts.lz4,
        live: counts.live,
        constant: counts.constant,
        zstd: counts.zstd,
        delta: counts.delta,
    }
}
