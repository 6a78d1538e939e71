//! A state survives its own bytes, and no bytes of a stranger panic or cost memory.

use kvm_bindings::{
    kvm_cpuid_entry2, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_xcrs,
};
use limosa_wire::{DecodeFault, SectionKind, StateSection};

use super::clock::{ClockState, TscState};
use super::vcpu::VcpuState;
use super::{Irqchips, MachineState, StateError, section_kinds};
use crate::devices::serial::SerialState;

fn vcpu(number: u64) -> VcpuState {
    let mut lapic = kvm_lapic_state::default();
    lapic.regs[32] = number as i8 + 1;
    let entry = kvm_cpuid_entry2 {
        function: 1,
        eax: 0x1234_5678,
        ..kvm_cpuid_entry2::default()
    };
    let msr = kvm_msr_entry {
        index: 0xc000_0082,
        data: 0xffff_8000_0000_0000 + number,
        ..kvm_msr_entry::default()
    };
    VcpuState {
        cpuid: vec![entry; 3],
        mp_state: kvm_mp_state { mp_state: 3 },
        regs: kvm_regs {
            rip: 0x10_0000 + number,
            ..kvm_regs::default()
        },
        sregs: Default::default(),
        pdptrs: (number % 2 == 1).then_some([1, 2, 3, 4]),
        xcrs: kvm_xcrs {
            nr_xcrs: 1,
            ..kvm_xcrs::default()
        },
        xsave: vec![number as u8; 4096],
        debug: Default::default(),
        lapic,
        msrs: vec![msr; 2],
        tsc: TscState {
            value: u64::MAX - number,
            khz: 2_400_000,
        },
        events: Default::default(),
    }
}

fn state() -> MachineState {
    let chip = |chip_id| kvm_irqchip {
        chip_id,
        ..kvm_irqchip::default()
    };
    MachineState {
        vcpus: vec![vcpu(0), vcpu(1)],
        irqchips: Irqchips([chip(0), chip(1), chip(2)]),
        pit: Default::default(),
        clock: ClockState {
            clock_ns: 7,
            realtime_ns: 8,
            host_tsc: Some(9),
        },
        serial: SerialState {
            scratch: 0x5a,
            input: b"typed".to_vec(),
            ..SerialState::default()
        },
    }
}

fn sections() -> Vec<StateSection> {
    state().encode().expect("encode")
}

#[test]
fn a_state_survives_its_bytes() {
    let sections = sections();
    let kinds: Vec<_> = sections
        .iter()
        .map(|section| section.kind.clone())
        .collect();
    assert_eq!(kinds, section_kinds());
    assert_eq!(MachineState::decode(sections).expect("decode"), state());
}

#[test]
fn every_truncation_and_every_tail_is_refused() {
    for at in 0..sections().len() {
        let bytes = sections()[at].bytes.clone();
        // Each length near the ends, and a sample between.
        let lengths =
            (0..bytes.len()).filter(|cut| *cut < 200 || cut % 97 == 0 || cut + 50 > bytes.len());
        for cut in lengths {
            let mut short = sections();
            short[at].bytes.truncate(cut);
            let refused = MachineState::decode(short);
            assert!(
                matches!(refused, Err(StateError::Decode { .. })),
                "{at} {cut}"
            );
        }
        let mut long = sections();
        long[at].bytes.push(0);
        let refused = MachineState::decode(long);
        assert!(matches!(refused, Err(StateError::Decode { .. })), "{at}");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_is_the_bit_of_a_value() {
    for at in 0..sections().len() {
        let bytes = sections()[at].bytes.clone();
        for bit in (0..bytes.len() * 8).filter(|bit| *bit < 2_000 || bit % 61 == 0) {
            let mut flipped = sections();
            flipped[at].bytes[bit / 8] ^= 1 << (bit % 8);
            let sent = flipped.clone();
            // What is taken has exactly one form in bytes: so nothing was overlooked.
            if let Ok(read) = MachineState::decode(flipped) {
                assert_eq!(read.encode().expect("encode"), sent, "{at} {bit}");
            }
        }
    }
}

#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    let mut many = sections();
    many[0].bytes[..2].copy_from_slice(&u16::MAX.to_le_bytes());
    let Err(StateError::Decode { section, source }) = MachineState::decode(many) else {
        panic!("65535 vCPUs");
    };
    assert_eq!(section, "kvm-vcpus");
    assert!(matches!(
        source.what,
        DecodeFault::OutOfBounds { max: 8, .. }
    ));
    let mut many = sections();
    many[0].bytes[2..4].copy_from_slice(&u16::MAX.to_le_bytes());
    assert!(MachineState::decode(many).is_err());
}

#[test]
fn each_section_comes_exactly_once_and_no_other() {
    for at in 0..sections().len() {
        let mut less = sections();
        let gone = less.remove(at);
        let refused = MachineState::decode(less);
        assert!(matches!(refused, Err(StateError::Missing { kind }) if kind == gone.kind));
        let mut twice = sections();
        twice.push(gone);
        let refused = MachineState::decode(twice);
        assert!(matches!(refused, Err(StateError::Surplus { .. })));
        let mut newer = sections();
        newer[at].kind.version += 1;
        let refused = MachineState::decode(newer);
        assert!(matches!(refused, Err(StateError::Missing { .. })));
    }
    let mut strange = sections();
    strange.push(StateSection {
        kind: SectionKind {
            name: "tape-drive".into(),
            version: 1,
        },
        bytes: Vec::new(),
    });
    let refused = MachineState::decode(strange);
    assert!(matches!(refused, Err(StateError::Surplus { kind }) if kind.name == "tape-drive"));
}

impl MachineState {
    pub(crate) fn vcpu_count(&self) -> usize {
        self.vcpus.len()
    }

    pub(crate) fn cpuids(&self) -> Vec<Vec<kvm_cpuid_entry2>> {
        self.vcpus.iter().map(|vcpu| vcpu.cpuid.clone()).collect()
    }

    /// Everything but what counts time is the same; time has gone on.
    pub(crate) fn assert_same_but_for_time(&self, later: &Self) {
        assert_eq!(self.vcpus.len(), later.vcpus.len());
        for (index, (own, other)) in self.vcpus.iter().zip(&later.vcpus).enumerate() {
            assert_eq!(own.tsc.khz, other.tsc.khz, "vCPU {index}");
            assert!(own.tsc.value <= other.tsc.value, "vCPU {index}");
            let (own, other) = (timeless(own), timeless(other));
            assert_eq!(own.msrs, other.msrs, "vCPU {index}");
            assert_eq!(own, other, "vCPU {index}");
        }
        assert_eq!(self.irqchips, later.irqchips);
        for (own, other) in self.pit.channels.iter().zip(&later.pit.channels) {
            assert_eq!((own.count, own.mode), (other.count, other.mode));
        }
        assert!(self.clock.clock_ns <= later.clock.clock_ns);
        assert_eq!(self.serial, later.serial);
    }
}

/// A vCPU without its counters.
fn timeless(vcpu: &VcpuState) -> VcpuState {
    /// The APIC timer's current count.
    const CURRENT: usize = 0x390;
    let mut vcpu = vcpu.clone();
    vcpu.tsc.value = 0;
    vcpu.lapic.regs[CURRENT..CURRENT + 4].fill(0);
    vcpu
}
