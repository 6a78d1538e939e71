//! A state that is not whole, or that KVM refuses, never runs.

use std::time::Duration;

use limosa_pages::{MemoryMap, PageIndex, PageRange};
use limosa_shim::{GuestSpec, HostSpec, KvmGuest, KvmHost, ShimError, Stage, StateError, Workload};
use limosa_wire::{Offer, StateSection};

mod common;

/// Bytes of one CPUID entry; Linux arch/x86/include/uapi/asm/kvm.h, `struct kvm_cpuid_entry2`.
const CPUID_ENTRY_BYTES: usize = 40;

fn exported() -> (KvmGuest, Vec<StateSection>) {
    let mut guest = KvmGuest::boot(&GuestSpec::new(48 << 20)).expect("boot");
    guest.wait_ready(Duration::from_secs(60)).expect("ready");
    guest.pause().expect("pause");
    let sections = guest.export_state().expect("export");
    (guest, sections)
}

/// Where vCPU 0's MP_STATE lies in its section: behind two counts and its CPUID.
fn mp_state_at(section: &StateSection) -> usize {
    let entries = u16::from_le_bytes([section.bytes[2], section.bytes[3]]);
    4 + usize::from(entries) * CPUID_ENTRY_BYTES
}

#[test]
fn a_missing_section_is_named_and_the_guest_stays_unmoved() {
    if common::no_kvm() {
        return;
    }
    let (mut guest, sections) = exported();
    for at in 0..sections.len() {
        let mut next = common::arriving(&guest);
        let mut less = sections.clone();
        let gone = less.remove(at);
        let error = next.restore_state(less).expect_err("must be refused");
        assert!(error.to_string().contains(&gone.kind.name), "{error}");
        assert_eq!(next.stage(), Stage::Arriving);
        assert!(next.resume().is_err());
    }
    guest.resume().expect("the source may go on");
    assert!(
        guest
            .check(Duration::from_secs(60))
            .expect("check")
            .intact()
    );
}

#[test]
fn a_refused_value_is_an_error_that_names_vcpu_and_call() {
    if common::no_kvm() {
        return;
    }
    let (guest, mut sections) = exported();
    let mut next = common::arriving(&guest);
    let at = mp_state_at(&sections[0]);
    sections[0].bytes[at] = 77;
    let error = next.restore_state(sections).expect_err("must be refused");
    assert_eq!(
        error.to_string(),
        "vCPU 0: KVM_SET_MP_STATE: Invalid argument (os error 22)"
    );
    assert!(
        next.resume().is_err(),
        "a guest with half a state must not run"
    );
}

#[test]
fn another_processor_than_was_offered_is_refused() {
    if common::no_kvm() {
        return;
    }
    let (guest, mut sections) = exported();
    let mut next = common::arriving(&guest);
    // EAX of the second CPUID entry.
    sections[0].bytes[4 + CPUID_ENTRY_BYTES + 12] ^= 1;
    let error = next.restore_state(sections).expect_err("must be refused");
    assert!(
        matches!(error, ShimError::State(StateError::OtherCpu)),
        "{error}"
    );
}

#[test]
fn no_flipped_bit_of_a_true_state_panics_or_hangs() {
    if common::no_kvm() {
        return;
    }
    let (guest, sections) = exported();
    let mut refused = 0;
    for round in 0..40 {
        let mut next = common::arriving(&guest);
        let mut flipped = sections.clone();
        let section = &mut flipped[round % sections.len()];
        let bit = round * 7919 % (section.bytes.len() * 8);
        section.bytes[bit / 8] ^= 1 << (bit % 8);
        refused += u32::from(next.restore_state(flipped).is_err());
    }
    println!("{refused} of 40 flipped states were refused");
}

#[test]
fn what_a_guest_is_not_ready_for_is_refused() {
    if common::no_kvm() {
        return;
    }
    let mut guest = KvmGuest::boot(&GuestSpec::new(48 << 20)).expect("boot");
    assert!(guest.export_state().is_err(), "it runs");
    assert!(guest.memory_digest().is_err(), "it runs");
    assert!(guest.release().is_err(), "it runs");
    guest.pause().expect("pause");
    guest.pause().expect("twice is once");
    let sections = guest.export_state().expect("export");
    assert!(
        guest.restore_state(sections).is_err(),
        "it is no arriving guest"
    );
    guest.release().expect("release");
    assert!(guest.resume().is_err(), "it lives elsewhere");
}

#[test]
fn lost_registers_are_noticed() {
    if common::no_kvm() {
        return;
    }
    let (guest, mut sections) = exported();
    let mut next = common::arriving(&guest);
    common::copy_memory(&guest, &next);
    // All general registers but RIP and RFLAGS, the last two of the eighteen behind MP_STATE.
    let at = mp_state_at(&sections[0]) + 4;
    sections[0].bytes[at..at + 16 * 8].fill(0);
    next.restore_state(sections).expect("KVM takes any value");
    next.resume().expect("resume");
    let report = next.check(Duration::from_secs(3));
    println!("without registers: {report:?}");
    assert!(report.is_err_and(|error| !error.to_string().is_empty()));
}

fn map_of(pages: u64) -> MemoryMap {
    let range = PageRange::new(PageIndex::ZERO, PageIndex::new(pages)).expect("range");
    MemoryMap::new(vec![range]).expect("map")
}

#[test]
fn offers_that_no_guest_can_be_made_of_are_refused_with_the_reason() {
    if common::no_kvm() {
        return;
    }
    let guest = KvmGuest::boot(&GuestSpec::new(48 << 20)).expect("boot");
    let mut host = KvmHost::new(HostSpec::default()).expect("host");
    let mut refusal = |change: fn(&mut Offer)| {
        let mut offer = guest.offer();
        change(&mut offer);
        let refused = host.prepare(&offer).map(|_| ());
        refused.expect_err("must be refused").to_string()
    };
    let on_devices = refusal(|offer| offer.map = map_of((3 << 18) + 1));
    assert!(on_devices.contains("devices"), "{on_devices}");
    let huge = refusal(|offer| offer.map = map_of(1 << 32));
    assert!(huge.contains("available"), "{huge}");
    assert!(refusal(|offer| offer.vcpu_count = 7).contains("7 vCPUs"));
    assert!(refusal(|offer| offer.machine = "process".into()).contains("process"));
    assert!(refusal(|offer| offer.cpu.truncate(9)).contains("processor description"));
    assert!(refusal(|offer| offer.sections[0].version = 9).contains("version 9"));
}
