//! The target's judgement of an offer: every reason why the guest can't come, at once.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use limosa_compat::{GuestCpu, MismatchKind, judge};
use limosa_wire::limits::REASONS_MAX;
use limosa_wire::{Offer, PageEncoding, Reason, ReasonKind};

use crate::config::TargetPolicy;
use crate::error::Misdeed;

/// Every reason against `offer`; none means that the guest may come.
pub(crate) fn judge_offer(offer: &Offer, policy: &TargetPolicy) -> Result<Vec<Reason>, Misdeed> {
    let cpu = GuestCpu::decode(&offer.cpu).map_err(|error| Misdeed::UnreadableCpu {
        text: error.to_string(),
    })?;
    let mut reasons = Vec::new();
    if offer.machine != policy.machine {
        reasons.push(Reason {
            kind: ReasonKind::Machine,
            what: format!(
                "the guest is a {}, this target runs {}",
                offer.machine, policy.machine
            ),
            remedy: "choose a target of the same kind".into(),
        });
    }
    let memory_bytes = offer.map.page_count().bytes();
    if memory_bytes > policy.memory_bytes_max {
        reasons.push(Reason {
            kind: ReasonKind::Memory,
            what: format!(
                "the guest has {memory_bytes} bytes of memory, this target takes {}",
                policy.memory_bytes_max
            ),
            remedy: "free memory on the target, raise its limit, or choose another".into(),
        });
    }
    let vcpu_count = offer.vcpu_count.max(cpu.vcpu_count);
    if vcpu_count > policy.vcpu_count_max {
        reasons.push(Reason {
            kind: ReasonKind::Capacity,
            what: format!(
                "the guest has {vcpu_count} vCPUs, this target runs {}",
                policy.vcpu_count_max
            ),
            remedy: "choose a target with more".into(),
        });
    }
    for section in &offer.sections {
        if !policy.sections.contains(section) {
            reasons.push(Reason {
                kind: ReasonKind::State,
                what: format!(
                    "this target can't restore state {} v{}",
                    section.name, section.version
                ),
                remedy: "bring both hosts to the same version".into(),
            });
        }
    }
    for encoding in [PageEncoding::Raw, PageEncoding::Zero] {
        if !offer.encodings.contains(encoding) {
            reasons.push(Reason {
                kind: ReasonKind::Protocol,
                what: format!("the source does not offer the page encoding {encoding:?}"),
                remedy: "offer raw and zero pages always".into(),
            });
        }
    }
    reasons.extend(
        judge(&cpu, &policy.host)
            .mismatches
            .iter()
            .map(|mismatch| Reason {
                kind: match mismatch.kind {
                    MismatchKind::Vendor => ReasonKind::Vendor,
                    _ => ReasonKind::Cpu,
                },
                what: mismatch.to_string(),
                remedy: mismatch.remedy.into(),
            }),
    );
    reasons.truncate(REASONS_MAX);
    Ok(reasons)
}
