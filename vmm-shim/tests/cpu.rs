//! The processor that a guest sees: as promised, read inside the guest; and a baseline either holds
//! or is not promised.

use std::time::Duration;

use limosa_compat::{
    CpuidTable, HostCpu, Mode, Processor, Register, TscScaling, differences, feature_names, has,
    is_feature, judge, restrict, shape,
};
use limosa_shim::{
    CpuError, CpuSpec, Enforcement, GuestSpec, KvmGuest, KvmHost, ShimError, Workload,
};
use limosa_shim::{HostSpec, ProcessGuest, host_cpu, open_kvm};

mod common;

const LONG: Duration = Duration::from_secs(60);

fn spec(mode: Mode) -> GuestSpec {
    GuestSpec {
        cpu: CpuSpec {
            mode,
            ..CpuSpec::default()
        },
        ..GuestSpec::new(48 << 20)
    }
}

/// What the guest reads by CPUID at privilege level 0, with the feature MSRs that it was promised.
fn read_inside(guest: &KvmGuest) -> Processor {
    guest.wait_ready(LONG).expect("ready");
    let cpuid: CpuidTable = guest.cpuid().expect("probe").expect("a table");
    let msrs = guest.cpu().processor.msrs.clone();
    Processor { cpuid, msrs }
}

#[test]
fn a_guest_in_mode_off_reads_what_it_was_promised_and_fits_its_own_host() {
    if common::no_kvm() {
        return;
    }
    let guest = KvmGuest::boot(&spec(Mode::Off)).expect("boot");
    let seen = read_inside(&guest);
    let found = differences(&guest.cpu().processor, &seen);
    assert!(found.is_empty(), "{found:#?}");
    let host = host_cpu(&open_kvm().expect("kvm")).expect("host");
    let judgement = judge(guest.cpu(), &host);
    assert_eq!(judgement.mismatches, []);
    assert_eq!(guest.cpu().baseline, "off");
}

#[test]
fn a_host_offers_nothing_that_its_guests_are_not_shown() {
    if common::no_kvm() {
        return;
    }
    let host = host_cpu(&open_kvm().expect("kvm")).expect("host");
    let guest = KvmGuest::boot(&spec(Mode::Off)).expect("boot");
    let found = differences(&host.offer, &guest.cpu().processor);
    let lacking: Vec<_> = found.iter().filter(|found| !found.is_extra()).collect();
    assert!(lacking.is_empty(), "{lacking:#?}");
    // Nor can a pool that this host belongs to have anything that it does not show.
    let mut alone = spec(Mode::Common);
    alone.cpu.pool = vec![host.offer];
    match KvmGuest::boot(&alone) {
        Ok(guest) => assert_eq!(guest.cpu().baseline, "common"),
        Err(ShimError::Cpu(CpuError::NotEnforced { shown, hidden, .. })) => {
            assert!(!shown.is_empty());
            assert_eq!(hidden, [""; 0]);
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_kvm_can_hide_stays_hidden_without_enforcement() {
    if common::no_kvm() {
        return;
    }
    let host = host_cpu(&open_kvm().expect("kvm")).expect("host");
    let mut unenforced = spec(Mode::Minimum);
    unenforced.cpu.enforcement = Enforcement::Unenforced;
    let guest = KvmGuest::boot(&unenforced).expect("boot");
    let bits = |processor: &Processor| {
        let cpuid = &processor.cpuid;
        cpuid.register(0x8000_0008, 0, Register::Eax) & 0xff
    };
    let least = shape(Mode::Minimum, &host.offer, &[]).expect("minimum");
    // Every KVM known lets this number be less.
    assert_eq!(bits(&guest.cpu().processor), bits(&least.processor));
    assert_eq!(
        differences(&guest.cpu().processor, &read_inside(&guest)),
        []
    );
    assert_eq!(judge(guest.cpu(), &host).mismatches, []);
}

#[test]
fn a_baseline_is_kept_inside_the_guest_or_not_promised() {
    if common::no_kvm() {
        return;
    }
    match KvmGuest::boot(&spec(Mode::Minimum)) {
        Ok(guest) => {
            println!("this KVM obeys: the baseline is read inside the guest");
            let seen = read_inside(&guest);
            assert_eq!(differences(&guest.cpu().processor, &seen), []);
            for hidden in ["sse4.1", "sse4.2", "popcnt", "avx", "xsave", "aes", "avx2"] {
                assert!(!has(&seen, hidden), "{hidden} is not hidden");
            }
            assert!(guest.cpu().baseline.starts_with("minimum-"));
        }
        Err(ShimError::Cpu(CpuError::NotEnforced { shown, .. })) => {
            println!(
                "this KVM shows more than it is told to: {}",
                shown.join(", ")
            );
            assert!(!shown.is_empty());
            let mut unenforced = spec(Mode::Minimum);
            unenforced.cpu.enforcement = Enforcement::Unenforced;
            let guest = KvmGuest::boot(&unenforced).expect("boot");
            let seen = read_inside(&guest);
            assert_eq!(differences(&guest.cpu().processor, &seen), []);
            let really = feature_names(&guest.cpu().processor);
            // Numbers have no place among the features.
            for name in shown.iter().filter(|name| is_feature(name)) {
                assert!(
                    really.contains(&name.as_str()),
                    "{name} is seen, yet not promised"
                );
            }
            assert!(guest.cpu().baseline.ends_with("(not enforced)"));
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_guest_does_not_fit_a_host_that_pretends_to_be_less() {
    if common::no_kvm() {
        return;
    }
    let truth = host_cpu(&open_kvm().expect("kvm")).expect("host");
    let mut less = truth.clone();
    for offer in [&mut less.offer, &mut less.accept] {
        let mut entries = offer.cpuid.entries().to_vec();
        for entry in &mut entries {
            match entry.leaf {
                // Without SSE4.2, and all of leaf 7.
                1 => entry.ecx &= !(1 << 20),
                7 => (entry.ebx, entry.ecx) = (0, 0),
                _ => {}
            }
        }
        offer.cpuid = CpuidTable::new(entries).expect("table");
    }
    let host = KvmHost::new(HostSpec {
        pretend: Some(less),
        ..HostSpec::default()
    });
    let host = host.expect("host");
    let guest = KvmGuest::boot(&spec(Mode::Off)).expect("boot");
    let judgement = judge(guest.cpu(), host.cpu());
    assert!(
        judgement
            .mismatches
            .iter()
            .any(|found| found.name == "sse4.2")
    );
    assert_eq!(
        host.survey().expect("survey"),
        *host.cpu(),
        "nothing has changed"
    );
}

#[test]
fn no_host_pretends_to_be_of_another_maker() {
    if common::no_kvm() {
        return;
    }
    let truth = host_cpu(&open_kvm().expect("kvm")).expect("host");
    let mut entries = truth.offer.cpuid.entries().to_vec();
    let word = |letters: &[u8; 4]| u32::from_le_bytes(*letters);
    // Hygon: whatever this host is, it is not that.
    let name = (word(b"Hygo"), word(b"nGen"), word(b"uine"));
    (entries[0].ebx, entries[0].edx, entries[0].ecx) = name;
    let offer = Processor::from(CpuidTable::new(entries).expect("table"));
    let other = HostCpu::plain(offer, truth.tsc_khz, TscScaling::No);
    assert!(restrict(&truth, &other).is_err());
    let mut wrong = spec(Mode::Off);
    wrong.cpu.pretend = Some(other.clone());
    let Err(error) = KvmGuest::boot(&wrong) else {
        panic!("booted")
    };
    assert!(error.to_string().contains("can't pretend"), "{error}");
    // A guest without a processor may pretend anything.
    let guest = ProcessGuest::boot(&wrong).expect("boot");
    let vendor = guest.cpu().processor.vendor();
    assert_eq!(vendor.expect("known").name(), "HygonGenuine");
}

#[test]
fn memory_beyond_the_addresses_of_a_baseline_is_refused_by_its_numbers() {
    if common::no_kvm() {
        return;
    }
    let mut narrow = host_cpu(&open_kvm().expect("kvm")).expect("host");
    let mut entries = narrow.offer.cpuid.entries().to_vec();
    let widths = entries.iter_mut().filter(|entry| entry.leaf == 0x8000_0008);
    widths.for_each(|entry| entry.eax = entry.eax & !0xff | 25);
    narrow.offer.cpuid = CpuidTable::new(entries).expect("table");
    let mut large = spec(Mode::Off);
    large.cpu.pretend = Some(narrow);
    for enforcement in [Enforcement::Strict, Enforcement::Unenforced] {
        large.cpu.enforcement = enforcement;
        let Err(error) = KvmGuest::boot(&large) else {
            panic!("booted")
        };
        assert!(error.to_string().contains("25 bits"), "{error}");
    }
}
