//! Everything of a guest on KVM that travels besides its memory, as sealed sections: taken from a
//! paused machine, put into a fresh one. It neither pauses nor resumes.

pub(crate) mod clock;
mod codec;
mod error;
pub(crate) mod msrs;
#[cfg(test)]
mod tests;
mod vcpu;

use std::sync::Arc;

use kvm_bindings::{kvm_irqchip, kvm_pit_state2};
use kvm_ioctls::VmFd;
use limosa_compat::Processor;
use limosa_wire::codec::{Codec, Reader, Writer};
use limosa_wire::{DecodeError, DecodeFault, EncodeError, SectionKind, StateSection};

use crate::devices::serial::SerialState;
use crate::spec::VCPU_COUNT_MAX;
use crate::vcpu::VcpuCell;
use clock::ClockState;
pub use error::StateError;
use vcpu::VcpuState;

/// Interrupt controllers of a PC: two 8259 and the I/O APIC.
const IRQCHIPS: [u32; 3] = [0, 1, 2];

const VCPUS: &str = "kvm-vcpus";
const IRQCHIP: &str = "kvm-irqchip";
const PIT: &str = "kvm-pit";
const CLOCK: &str = "kvm-clock";

/// The sections that a guest on KVM has, each exactly once.
#[must_use]
pub fn section_kinds() -> Vec<SectionKind> {
    let kind = |name: &str| SectionKind {
        name: name.into(),
        version: 1,
    };
    let mut kinds = [VCPUS, IRQCHIP, PIT, CLOCK].map(kind).to_vec();
    kinds.push(SerialState::kind());
    kinds
}

/// Everything that travels.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct MachineState {
    vcpus: Vec<VcpuState>,
    irqchips: Irqchips,
    pit: kvm_pit_state2,
    clock: ClockState,
    serial: SerialState,
}

#[derive(Clone, Debug)]
struct Irqchips([kvm_irqchip; 3]);

impl PartialEq for Irqchips {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |chips: &Self| -> Vec<Vec<u8>> {
            let chips = chips.0.iter();
            chips
                .map(|chip| zerocopy::IntoBytes::as_bytes(chip).to_vec())
                .collect()
        };
        bytes(self) == bytes(other)
    }
}

impl MachineState {
    /// Takes the state of a machine all of whose vCPUs stand still.
    ///
    /// The clock comes first: all that follows is counted from its instant.
    pub(crate) fn take(
        vm: &VmFd,
        vcpus: &[Arc<VcpuCell>],
        msrs: &[u32],
        serial: SerialState,
    ) -> Result<Self, StateError> {
        let clock = ClockState::take(vm)?;
        let vcpus = of_each(vcpus, |_, vcpu| VcpuState::take(&vcpu.lock(), msrs, &clock))?;
        let mut irqchips = IRQCHIPS.map(|chip_id| kvm_irqchip {
            chip_id,
            ..kvm_irqchip::default()
        });
        for chip in &mut irqchips {
            vm.get_irqchip(chip)
                .map_err(StateError::machine("KVM_GET_IRQCHIP"))?;
        }
        let pit = vm.get_pit2().map_err(StateError::machine("KVM_GET_PIT2"))?;
        Ok(Self {
            vcpus,
            irqchips: Irqchips(irqchips),
            pit,
            clock,
            serial,
        })
    }

    /// Puts the state into a machine that has not run yet, and returns what belongs to its devices.
    ///
    /// kvmclock comes first, because the vCPUs' TSCs go forward by the same time; the interrupt
    /// controllers and the timer come after the vCPUs, whose local APICs take their interrupts.
    ///
    /// # Errors
    /// The first thing that the kernel refuses; the machine must not run then.
    pub(crate) fn put(
        self,
        vm: &VmFd,
        vcpus: &[Arc<VcpuCell>],
        promised: &Processor,
    ) -> Result<SerialState, StateError> {
        let (found, expected) = (self.vcpus.len(), vcpus.len());
        if found != expected {
            return Err(StateError::VcpuCount { found, expected });
        }
        let forward = self.clock.put(vm)?;
        of_each(vcpus, |index, vcpu| match self.vcpus.get(index) {
            Some(state) => state.put(&mut vcpu.lock(), promised, &forward),
            None => Ok(()),
        })?;
        for chip in &self.irqchips.0 {
            vm.set_irqchip(chip)
                .map_err(StateError::machine("KVM_SET_IRQCHIP"))?;
        }
        vm.set_pit2(&self.pit)
            .map_err(StateError::machine("KVM_SET_PIT2"))?;
        Ok(self.serial)
    }

    /// As sections, one of each of [`section_kinds`].
    pub(crate) fn encode(&self) -> Result<Vec<StateSection>, StateError> {
        let kinds = section_kinds().into_iter();
        kinds.map(|kind| self.section(kind)).collect()
    }

    fn section(&self, kind: SectionKind) -> Result<StateSection, StateError> {
        let mut writer = Writer::new();
        let written = match kind.name.as_str() {
            VCPUS => writer.list("vCPUs", &self.vcpus, VCPU_COUNT_MAX.into()),
            IRQCHIP => self.irqchips.encode(&mut writer),
            PIT => {
                codec::put(&mut writer, &self.pit);
                Ok(())
            }
            CLOCK => self.clock.encode(&mut writer),
            _ => self.serial.encode(&mut writer),
        };
        match written {
            Ok(()) => Ok(StateSection {
                kind,
                bytes: writer.into_bytes(),
            }),
            Err(source) => Err(StateError::Encode {
                section: kind.name,
                source,
            }),
        }
    }

    /// Reads sections from a peer. Values are not judged: that is the kernel's.
    ///
    /// # Errors
    /// [`StateError::Missing`], [`StateError::Surplus`], [`StateError::Decode`].
    pub(crate) fn decode(mut sections: Vec<StateSection>) -> Result<Self, StateError> {
        let state = Self {
            vcpus: open(&mut sections, VCPUS, |reader| {
                reader.list("vCPUs", VCPU_COUNT_MAX.into(), 1024)
            })?,
            irqchips: open(&mut sections, IRQCHIP, Irqchips::decode)?,
            pit: open(&mut sections, PIT, codec::take)?,
            clock: open(&mut sections, CLOCK, ClockState::decode)?,
            serial: open(
                &mut sections,
                &SerialState::kind().name,
                SerialState::decode,
            )?,
        };
        match sections.pop() {
            Some(section) => Err(StateError::Surplus { kind: section.kind }),
            None => Ok(state),
        }
    }
}

/// Does `work` for each vCPU, and returns what came of it in their order.
///
/// One after the other, 0.14 ms each: the calling thread comes first on its processor in a pause,
/// and a pool's threads do not. On a busy host eight vCPUs waited 4 ms for those.
fn of_each<T>(
    vcpus: &[Arc<VcpuCell>],
    mut work: impl FnMut(usize, &VcpuCell) -> Result<T, StateError>,
) -> Result<Vec<T>, StateError> {
    let all = vcpus.iter().enumerate();
    all.map(|(index, vcpu)| work(index, vcpu)).collect()
}

impl Codec for Irqchips {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        self.0.iter().for_each(|chip| codec::put(writer, chip));
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut chips = IRQCHIPS.map(|_| kvm_irqchip::default());
        for (chip, expected) in chips.iter_mut().zip(IRQCHIPS) {
            *chip = codec::take(reader)?;
            let (field, found) = ("interrupt controller", chip.chip_id.into());
            if chip.chip_id != expected {
                return Err(reader.error(DecodeFault::Mismatch {
                    field,
                    found,
                    expected: expected.into(),
                }));
            }
        }
        Ok(Self(chips))
    }
}

/// Takes a section out of a list and reads all of its bytes.
pub(crate) fn open<T>(
    sections: &mut Vec<StateSection>,
    name: &str,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T, StateError> {
    let kind = SectionKind {
        name: name.into(),
        version: 1,
    };
    let Some(at) = sections.iter().position(|section| section.kind == kind) else {
        return Err(StateError::Missing { kind });
    };
    let section = sections.swap_remove(at);
    let mut reader = Reader::new(&section.bytes);
    let read = read(&mut reader).and_then(|value| reader.finish().map(|()| value));
    read.map_err(|source| StateError::Decode {
        section: kind.name,
        source,
    })
}
