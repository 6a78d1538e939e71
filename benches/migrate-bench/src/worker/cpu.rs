//! The processor of a guest as a host of the benchmark sees it: what it was promised, what it
//! reads, what is hidden from it.

use anyhow::{Context, Result};
use limosa_compat::{HostCpu, Processor, differences as compare, feature_names};
use limosa_shim::{CpuError, CpuSpec, Enforcement, HostSpec, KvmHost, ProcessHost, ShimError};

use crate::compat::clock::unreachable;
use crate::compat::{explain, mode_of};
use crate::protocol::{CpuFacts, CpuOrder, EnforcementOrder};
use crate::refusal::NotStarted;
use crate::worker::guest::AnyGuest;

/// What is said of a guest that was let down.
pub(crate) const READS_ANOTHER: &str = "the guest reads another processor than it was promised";

/// What `order` means to a VMM.
pub(crate) fn spec_of(order: &CpuOrder) -> Result<CpuSpec> {
    let mode = mode_of(&order.mode);
    Ok(CpuSpec {
        mode: mode.with_context(|| format!("there is no mode `{}`", order.mode))?,
        pool: order.pool.iter().map(|member| member.0.clone()).collect(),
        pretend: order.pretend.clone().map(|host| host.0),
        enforcement: match order.enforcement {
            EnforcementOrder::Strict => Enforcement::Strict,
            EnforcementOrder::Unenforced => Enforcement::Unenforced,
        },
    })
}

/// A guest that can't have its processor here is an error of its own, in words with the hosts'
/// names.
pub(crate) fn why_not_started(error: ShimError, order: &CpuOrder) -> anyhow::Error {
    let text = match &error {
        ShimError::Cpu(CpuError::Shape(error)) => explain(error, &order.names),
        ShimError::Cpu(error @ CpuError::Pretend(_)) => error.to_string(),
        ShimError::Cpu(error @ CpuError::NotEnforced { .. }) => {
            format!("{error} (--compat-unenforced)")
        }
        _ => return error.into(),
    };
    NotStarted(text).into()
}

/// A guest of mode `common` is to move between all hosts of its pool: one whose time runs otherwise
/// there would not. A process guest asks no processor for the time.
pub(crate) fn check_clock(guest: &AnyGuest, order: &CpuOrder) -> Result<()> {
    let AnyGuest::Kvm(guest) = guest else {
        return Ok(());
    };
    let names = order.names.iter().skip(1).map(String::as_str);
    let found = unreachable(guest.cpu().tsc_khz, names.zip(order.clocks.iter().copied()));
    if found.is_empty() {
        return Ok(());
    }
    let found = found.join("; ");
    let text = format!("{found}; leave such hosts out of the pool, or take hosts that can scale");
    Err(NotStarted(text).into())
}

/// What a guest that was booted here as ordered sees of its processor.
pub(crate) fn facts(guest: &AnyGuest, order: &CpuOrder) -> Result<CpuFacts> {
    let cpu = guest.cpu();
    let host = host_of(guest, order)?;
    let owned = |names: Vec<&str>| names.into_iter().map(String::from).collect::<Vec<_>>();
    let features = feature_names(&cpu.processor);
    let mut hidden = feature_names(&host.offer);
    hidden.retain(|name| !features.contains(name));
    Ok(CpuFacts {
        mode: order.mode.clone(),
        baseline: cpu.baseline.clone(),
        digest: format!("{:#018x}", cpu.digest()),
        features: owned(features),
        hidden: owned(hidden),
    })
}

/// The host that such a guest was started on, with what it pretends.
fn host_of(guest: &AnyGuest, order: &CpuOrder) -> Result<HostCpu> {
    let spec = HostSpec {
        pretend: order.pretend.clone().map(|host| host.0),
        ..HostSpec::default()
    };
    Ok(match guest {
        AnyGuest::Kvm(_) => KvmHost::new(spec)?.cpu().clone(),
        AnyGuest::Process(_) => ProcessHost::new(spec)?.cpu().clone(),
    })
}

/// In what the processor that the guest read differs from what it was promised; none of a guest
/// that reads none.
pub(crate) fn differences(guest: &AnyGuest) -> Result<Option<Vec<String>>> {
    let Some(cpuid) = guest.workload().cpuid()? else {
        return Ok(None);
    };
    let promised = &guest.cpu().processor;
    let seen = Processor {
        cpuid,
        // It reads no registers.
        msrs: promised.msrs.clone(),
    };
    let found = compare(promised, &seen);
    Ok(Some(found.iter().map(ToString::to_string).collect()))
}
