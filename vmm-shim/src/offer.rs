//! A guest as an offer, and an offer as what a host makes a guest of. It judges no processor: the
//! session has done that by then.

use limosa_compat::GuestCpu;
use limosa_pages::MemoryMap;
use limosa_wire::{EncodingSet, Offer, SectionKind};

use crate::error::ShimError;
use crate::spec::VCPU_COUNT_MAX;

/// What a target must know of a guest. Streams and encodings are the engine's to choose.
pub(crate) fn offer(
    machine: &str,
    cpu: &GuestCpu,
    map: &MemoryMap,
    sections: Vec<SectionKind>,
) -> Offer {
    Offer {
        cpu: cpu.encode(),
        map: map.clone(),
        vcpu_count: cpu.vcpu_count,
        sections,
        stream_count: 1,
        encodings: EncodingSet::ALL,
        machine: machine.into(),
    }
}

/// The processor that an offer promises, once all else in it is found to be of this kind of guest.
pub(crate) fn accept(
    offer: &Offer,
    machine: &str,
    sections: &[SectionKind],
) -> Result<GuestCpu, ShimError> {
    let refuse = |text: String| Err(ShimError::Offer(text));
    if offer.machine != machine {
        return refuse(format!(
            "it is a \"{}\", not a \"{machine}\"",
            offer.machine
        ));
    }
    let cpu = GuestCpu::decode(&offer.cpu).map_err(|error| ShimError::Offer(error.to_string()))?;
    if cpu.vcpu_count != offer.vcpu_count {
        return refuse(format!(
            "it has {} vCPUs, its processor {}",
            offer.vcpu_count, cpu.vcpu_count
        ));
    }
    if !(1..=VCPU_COUNT_MAX).contains(&cpu.vcpu_count) {
        return refuse(format!(
            "it has {} vCPUs, not 1 to {VCPU_COUNT_MAX}",
            cpu.vcpu_count
        ));
    }
    let unknown = offer.sections.iter().find(|kind| !sections.contains(kind));
    if let Some(kind) = unknown {
        let SectionKind { name, version } = kind;
        return refuse(format!(
            "nothing here reads section \"{name}\" version {version}"
        ));
    }
    Ok(cpu)
}
