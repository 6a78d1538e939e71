//! The target's judgement of an offer: every reason why the guest can't come, at once.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use limosa_wire::{Offer, PageEncoding, ProtocolVersion, Reason, ReasonKind, VersionRange};

use crate::config::TargetPolicy;
use crate::cpu::{OfferedCpu, cut};
use crate::error::Misdeed;
use crate::event::Warning;

const SAME_VERSION: &str = "bring both hosts to the same version";

/// What a target makes of an offer.
pub(crate) enum Judged {
    /// The guest may come.
    Fits {
        /// Its processor, to be judged again at the switchover.
        cpu: OfferedCpu,
        /// What differs and is forgiven.
        warnings: Vec<Warning>,
    },
    /// It may not, for all of these reasons.
    Refused(Vec<Reason>),
}

/// Judges all of `offer`.
pub(crate) fn judge_offer(offer: &Offer, policy: &TargetPolicy) -> Result<Judged, Misdeed> {
    let cpu = match OfferedCpu::decode(&offer.cpu) {
        Ok(cpu) => Some(cpu),
        // Another kind of guest may describe its processor otherwise.
        Err(_) if offer.machine != policy.machine => None,
        Err(error) => {
            let text = error.to_string();
            return Err(Misdeed::UnreadableCpu { text });
        }
    };
    let vcpu_count = cpu.as_ref().map_or(0, OfferedCpu::vcpu_count);
    let mut reasons = Vec::new();
    reasons.extend(judge_machine(offer, policy));
    reasons.extend(judge_memory(offer, policy));
    reasons.extend(judge_vcpus(offer.vcpu_count.max(vcpu_count), policy));
    reasons.extend(judge_sections(offer, policy));
    reasons.extend(judge_encodings(offer));
    let judged = cpu.map(|cpu| match cpu.judge_in_full(&policy.host) {
        Ok(warnings) => Ok((cpu, warnings)),
        Err(reasons) => Err(reasons),
    });
    Ok(match judged {
        Some(Ok((cpu, warnings))) if reasons.is_empty() => Judged::Fits { cpu, warnings },
        judged => {
            reasons.extend(judged.and_then(Result::err).into_iter().flatten());
            Judged::Refused(cut(reasons))
        }
    })
}

/// Why peers of these versions can't talk.
pub(crate) fn no_common_version(source: VersionRange, target: VersionRange) -> Reason {
    Reason {
        kind: ReasonKind::Protocol,
        what: format!("the source speaks protocol versions {source}, the target {target}"),
        remedy: SAME_VERSION.into(),
    }
}

/// Why a peer that speaks only this version can't be understood.
pub(crate) fn other_version(found: u16) -> Reason {
    let (found, own) = (ProtocolVersion::new(found), VersionRange::SUPPORTED);
    Reason {
        kind: ReasonKind::Protocol,
        what: format!("the peer speaks protocol version {found}, this host {own}"),
        remedy: SAME_VERSION.into(),
    }
}

fn judge_machine(offer: &Offer, policy: &TargetPolicy) -> Option<Reason> {
    (offer.machine != policy.machine).then(|| Reason {
        kind: ReasonKind::Machine,
        what: format!(
            "the guest is a {}, this target runs {}",
            offer.machine, policy.machine
        ),
        remedy: "choose a target of the same kind".into(),
    })
}

fn judge_memory(offer: &Offer, policy: &TargetPolicy) -> Option<Reason> {
    let (bytes, max) = (offer.map.page_count().bytes(), policy.memory_bytes_max);
    (bytes > max).then(|| Reason {
        kind: ReasonKind::Memory,
        what: format!("the guest has {bytes} bytes of memory, this target takes {max}"),
        remedy: "free memory on the target, raise its limit, or choose another".into(),
    })
}

fn judge_vcpus(count: u16, policy: &TargetPolicy) -> Option<Reason> {
    let max = policy.vcpu_count_max;
    (count > max).then(|| Reason {
        kind: ReasonKind::Capacity,
        what: format!("the guest has {count} vCPUs, this target runs {max}"),
        remedy: "choose a target with more".into(),
    })
}

fn judge_sections(offer: &Offer, policy: &TargetPolicy) -> impl Iterator<Item = Reason> {
    let unknown = offer
        .sections
        .iter()
        .filter(|section| !policy.sections.contains(section));
    unknown.map(|section| Reason {
        kind: ReasonKind::State,
        what: format!(
            "this target can't restore state {} v{}",
            section.name, section.version
        ),
        remedy: SAME_VERSION.into(),
    })
}

fn judge_encodings(offer: &Offer) -> impl Iterator<Item = Reason> {
    let needed = [PageEncoding::Raw, PageEncoding::Zero].into_iter();
    let missing = needed.filter(|encoding| !offer.encodings.contains(*encoding));
    missing.map(|encoding| Reason {
        kind: ReasonKind::Protocol,
        what: format!("the source does not offer the page encoding {encoding:?}"),
        remedy: "offer raw and zero pages always".into(),
    })
}
