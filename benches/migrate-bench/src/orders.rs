//! From the command line to what a worker is told.

use anyhow::{Result, bail};

use crate::args::{GuestArgs, LinkArgs, OnStallChoice, TrackingChoice};
use crate::compat::CpuArgs;
use crate::protocol::{CpuOrder, EnforcementOrder, GuestOrder, LinkOrder};
use crate::units::{Part, Streams, show_bytes};

/// Most streams that are chosen without being asked for: as many as a migration can have.
const STREAMS_DEFAULT_MAX: usize = 64;

/// Largest working set that is chosen without being asked for.
const WORKING_SET_DEFAULT_MAX: u64 = 128 << 20;

/// Working sets are of whole pages.
const PAGE_BYTES: u64 = limosa_pages::PAGE_BYTES as u64;

/// The guest of the command line, of a kind that is settled by now.
pub(crate) fn guest_order(args: &GuestArgs, kind: &str) -> GuestOrder {
    let touched = args.touched.of(args.memory);
    let by_default = (touched / 4 / PAGE_BYTES * PAGE_BYTES).min(WORKING_SET_DEFAULT_MAX);
    let working_set = args.working_set.unwrap_or(by_default);
    let idle = working_set == 0 || args.dirty_rate == 0;
    GuestOrder {
        kind: kind.into(),
        memory_bytes: args.memory,
        vcpus: args.vcpus,
        fill: args.fill.to_string(),
        touched_bytes: touched,
        working_set_bytes: if idle { 0 } else { working_set },
        dirty_rate_bytes: if idle { 0 } else { args.dirty_rate },
        pattern: args.pattern.to_string(),
        probe: args.probe.to_string(),
        backing: args.backing.to_string(),
        tracking: args.tracking.to_string(),
        seed: args.seed,
        cpu: CpuOrder::default(),
    }
}

/// How writes are to be recorded of a guest whose writers may have to be limited; the error is one
/// of usage.
pub(crate) fn tracking_for(
    args: &GuestArgs,
    link: &LinkArgs,
    kind: &str,
) -> Result<TrackingChoice> {
    match (link.on_stall, args.tracking) {
        (OnStallChoice::Limit, _) if kind == "process" => bail!(
            "--on-stall limit needs to know what each vCPU writes, and nothing tells that of a \
             process guest: use --on-stall throttle"
        ),
        (OnStallChoice::Limit, TrackingChoice::Auto | TrackingChoice::Ring) => {
            Ok(TrackingChoice::Ring)
        }
        (OnStallChoice::Limit, other) => bail!(
            "--on-stall limit needs to know what each vCPU writes, which --tracking {other} does \
             not tell: leave that out, or use --on-stall throttle"
        ),
        (_, tracking) => Ok(tracking),
    }
}

/// Whether no more is to be touched than there is: a size may say so, a share can't.
pub(crate) fn check_touched(args: &GuestArgs) -> Result<()> {
    match args.touched {
        Part::Bytes(bytes) if bytes > args.memory => bail!(
            "{} touched of {} of guest memory: lower --touched, or give more --memory",
            show_bytes(bytes),
            show_bytes(args.memory)
        ),
        _ => Ok(()),
    }
}

/// What the guest is to see of its processor, with all files read; the error is one of usage.
pub(crate) fn cpu_order(args: &CpuArgs) -> Result<CpuOrder, String> {
    let wish = args.wish()?;
    let here = match &args.as_host {
        Some(file) => file.display().to_string(),
        None => "this host".into(),
    };
    Ok(CpuOrder {
        mode: wish.mode.to_string(),
        pool: wish.pool,
        clocks: wish.clocks,
        names: std::iter::once(here).chain(wish.pool_names).collect(),
        pretend: args.pretend()?,
        enforcement: if args.compat_unenforced {
            EnforcementOrder::Unenforced
        } else {
            EnforcementOrder::Strict
        },
    })
}

/// The count of streams: one for each logical processor, unless it was asked for.
pub(crate) fn stream_count(streams: Streams) -> u16 {
    let lps = std::thread::available_parallelism().map_or(1, usize::from);
    match streams {
        Streams::Auto => lps.min(STREAMS_DEFAULT_MAX) as u16,
        Streams::Count(count) => count,
    }
}

/// The link of the command line, with the stream count settled.
pub(crate) fn link_order(args: &LinkArgs) -> LinkOrder {
    LinkOrder {
        streams: stream_count(args.streams),
        codec: args.codec.to_string(),
        downtime: args.downtime,
        on_stall: args.on_stall.to_string(),
        bandwidth: args.bandwidth,
        io: args.io.to_string(),
        staging: args.staging.to_string(),
        splice: args.splice.to_string(),
    }
}
