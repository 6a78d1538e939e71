//! Guests of either kind as a host of the benchmark handles them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use limosa_compat::GuestCpu;
use limosa_payload::protocol::{Fill, Pattern, Phase, Probe};
use limosa_payload::{GuestProbe, Histogram, VcpuReport};
use limosa_shim::{
    Backing, GuestKind, GuestSpec, HostView, HugePages, KvmGuest, ProcessGuest, Tracking, Workload,
    WorkloadSpec,
};

use crate::args::{GuestArgs, LinkArgs, TrackingChoice};
use crate::orders::{check_touched, guest_order, tracking_for};
use crate::protocol::{GuestOrder, GuestSight};
use crate::report::Quantiles;
use crate::units::ms;
use crate::worker::cpu;

/// Longest time for a guest's check of all its memory.
const CHECK_MAX: Duration = Duration::from_secs(240);
/// Longest wait for every vCPU to have noticed the switchover.
const NOTICE_MAX: Duration = Duration::from_secs(2);
/// What one write of the workload dirties.
const PAGE_BYTES: u64 = limosa_pages::PAGE_BYTES as u64;

/// A guest of either kind.
pub(crate) enum AnyGuest {
    Kvm(KvmGuest),
    Process(ProcessGuest),
}

impl From<KvmGuest> for AnyGuest {
    fn from(guest: KvmGuest) -> Self {
        Self::Kvm(guest)
    }
}

impl From<ProcessGuest> for AnyGuest {
    fn from(guest: ProcessGuest) -> Self {
        Self::Process(guest)
    }
}

impl AnyGuest {
    /// The guest as its workload sees it.
    pub(crate) fn workload(&self) -> &dyn Workload {
        match self {
            Self::Kvm(guest) => guest,
            Self::Process(guest) => guest,
        }
    }

    /// The processor that it was promised.
    pub(crate) fn cpu(&self) -> &GuestCpu {
        match self {
            Self::Kvm(guest) => guest.cpu(),
            Self::Process(guest) => guest.cpu(),
        }
    }

    /// CPU time of all vCPUs on this host.
    pub(crate) fn vcpu_cpu(&self) -> Duration {
        self.workload().vcpu_cpu_times().iter().sum()
    }

    /// Page writes that all vCPUs have done.
    pub(crate) fn writes(&self) -> Result<u64> {
        let vcpus = self.workload().stats()?;
        Ok(vcpus.iter().map(|vcpu| vcpu.writes).sum())
    }

    /// The stalls of all vCPUs while memory was being copied.
    pub(crate) fn precopy_stalls(&self) -> Result<Histogram> {
        let mut all = Histogram::EMPTY;
        for vcpu in self.workload().stats()? {
            all.merge(vcpu.stalls(Phase::Precopy));
        }
        Ok(all)
    }
}

/// Looks at what a guest notices while it moves.
pub(crate) struct StallMeter {
    probe: GuestProbe<HostView>,
    seen: Histogram,
}

impl StallMeter {
    /// From now on.
    pub(crate) fn new(guest: &AnyGuest) -> Result<Self> {
        Ok(Self {
            probe: guest.workload().probe()?,
            seen: guest.precopy_stalls()?,
        })
    }

    /// The longest gap that a vCPU saw since the last look while memory was being copied; none
    /// where there was none, or nothing can be read.
    pub(crate) fn longest(&mut self) -> Option<Duration> {
        let mut all = Histogram::EMPTY;
        for vcpu in self.probe.vcpus().ok()? {
            all.merge(vcpu.stalls(Phase::Precopy));
        }
        let fresh = all.since(&self.seen);
        self.seen = all;
        (fresh.count() > 0).then(|| fresh.longest())
    }
}

/// What a guest of the command line is, checked before a process is started for it.
pub(crate) fn check_guest(args: &GuestArgs, link: &LinkArgs, kind: &str) -> Result<()> {
    check_touched(args)?;
    let spec = spec_of(&guest_order(args, kind))?;
    match kind {
        "process" => spec.process_params(0)?,
        _ => spec.params(0)?,
    };
    let by = tracking_for(args, link, kind)?;
    let kind = match kind {
        "process" => GuestKind::Process,
        _ => GuestKind::Kvm,
    };
    if by != TrackingChoice::Auto {
        let chosen = tracking(&by.to_string()).choose(kind);
        chosen.with_context(|| format!("--tracking {by}"))?;
    }
    Ok(())
}

/// Boots what was ordered.
pub(crate) fn boot(order: &GuestOrder) -> Result<AnyGuest> {
    let spec = spec_of(order)?;
    let guest = match order.kind.as_str() {
        "kvm" => KvmGuest::boot(&spec).map(AnyGuest::from),
        "process" => ProcessGuest::boot(&spec).map(AnyGuest::from),
        other => bail!("there is no guest of kind `{other}`"),
    };
    let guest = guest.map_err(|error| cpu::why_not_started(error, &order.cpu))?;
    cpu::check_clock(&guest, &order.cpu)?;
    Ok(guest)
}

/// The backing of a name; anonymous memory for any other.
pub(crate) fn backing(name: &str) -> Backing {
    match name {
        "memfd" => Backing::Memfd,
        _ => Backing::Anonymous,
    }
}

/// The tracking of a name; what serves best for any other.
pub(crate) fn tracking(name: &str) -> Tracking {
    match name {
        "log" => Tracking::Log,
        "ring" => Tracking::Ring,
        "pagemap" => Tracking::Pagemap,
        _ => Tracking::Auto,
    }
}

/// What `order` means to a VMM.
pub(crate) fn spec_of(order: &GuestOrder) -> Result<GuestSpec> {
    Ok(GuestSpec {
        memory_bytes: order.memory_bytes,
        vcpu_count: order.vcpus,
        backing: backing(&order.backing),
        huge_pages: HugePages::Advised,
        workload: WorkloadSpec {
            fill: match order.fill.as_str() {
                "random" => Fill::Random,
                "zero" => Fill::Zero,
                "text" => Fill::Text,
                "mixed" => Fill::Mixed,
                "semi" => Fill::Semi,
                other => bail!("there is no fill `{other}`"),
            },
            touched_bytes: (order.touched_bytes < order.memory_bytes)
                .then_some(order.touched_bytes),
            working_set_bytes: order.working_set_bytes,
            dirty_pages_per_second: order.dirty_rate_bytes.div_ceil(PAGE_BYTES),
            pattern: match order.pattern.as_str() {
                "sequential" => Pattern::Sequential,
                "random" => Pattern::Random,
                "hot-cold" => Pattern::HotCold,
                other => bail!("there is no pattern `{other}`"),
            },
            probe: match order.probe.as_str() {
                "sleep" => Probe::Sleep,
                "spin" => Probe::Spin,
                other => bail!("there is no probe `{other}`"),
            },
            seed: order.seed,
            ..WorkloadSpec::default()
        },
        cpu: cpu::spec_of(&order.cpu)?,
        tracking: tracking(&order.tracking),
    })
}

/// A guest's own verdict on its memory and its processor.
pub(crate) struct Checked {
    /// All its memory is right.
    pub(crate) ok: bool,
    pub(crate) detail: String,
    /// In what the processor that it reads differs from what it was promised; none of a guest that
    /// reads none.
    pub(crate) processor: Option<Vec<String>>,
}

/// Lets the guest check all its memory, and read its processor anew.
pub(crate) fn check(guest: &AnyGuest) -> Result<Checked> {
    let report = guest.workload().check(CHECK_MAX)?;
    let first = report.first_bad.map_or_else(String::new, |address| {
        format!(", the first at {address:#x}")
    });
    Ok(Checked {
        processor: cpu::differences(guest)?,
        ok: report.intact(),
        detail: format!(
            "the guest found {} of {} pages wrong{first}; it had done {} writes and found {}",
            report.bad_pages, report.pages, report.writes_done, report.writes_found
        ),
    })
}

/// What the guest saw, once every vCPU has noticed the last switchover.
pub(crate) fn sight(guest: &AnyGuest) -> Result<GuestSight> {
    let end = Instant::now() + NOTICE_MAX;
    let last = guest.workload().probe()?.switchovers();
    let vcpus = loop {
        let vcpus = guest.workload().stats()?;
        let noticed = |vcpu: &VcpuReport| vcpu.downtime(last).is_some();
        if last == 0 || vcpus.iter().all(noticed) || Instant::now() > end {
            break vcpus;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let gap = |number| {
        let gaps = vcpus.iter().filter_map(|vcpu| vcpu.downtime(number));
        gaps.max().map(ms)
    };
    Ok(GuestSight {
        gap_ms: gap(last),
        gaps_ms: (1..=last).map(gap).collect(),
        writes: vcpus.iter().map(|vcpu| vcpu.writes).sum(),
        vcpu_cpu_s: guest.vcpu_cpu().as_secs_f64(),
    })
}

/// Stalls as the report has them; none where the guest took no time stamps.
pub(crate) fn quantiles(stalls: &Histogram) -> Option<Quantiles> {
    (stalls.count() > 0).then(|| Quantiles {
        p50: ms(stalls.percentile(0.5)),
        p99: ms(stalls.percentile(0.99)),
        max: ms(stalls.longest()),
    })
}
