//! Model-specific registers: which travel, which are checked after they were set, which stay apart,
//! each with its reason. Feature registers are judged elsewhere; no state changes what was judged.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};
use limosa_compat::{Kind, MsrTable, msr_word};

use super::error::StateError;

/// Most registers of one vCPU that travel.
pub(crate) const MSRS_MAX: usize = 512;

/// What is done with a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// It travels, and has to read on the target as it was set: the guest would not notice its loss
    /// before it jumps through it.
    Kept,
    /// It travels, and may read differently afterwards.
    Free,
    /// It does not travel in this list.
    Apart,
}

/// First number, last number, rule. A number without a row is [`Rule::Apart`] if its register is
/// judged, else [`Rule::Free`].
///
/// Sources: Linux arch/x86/include/asm/msr-index.h, arch/x86/include/uapi/asm/kvm_para.h,
/// `KVM_GET_MSR_INDEX_LIST` in Documentation/virt/kvm/api.rst.
const RULES: &[(u32, u32, Rule)] = &[
    // IA32_TSC: time goes on while it travels; it goes with its instant, in `clock.rs`.
    (0x10, 0x10, Rule::Apart),
    // The kvmclock of old guests: as the new one below.
    (0x11, 0x11, Rule::Apart),
    // IA32_SMBASE: this machine has no system management mode.
    (0x9e, 0x9e, Rule::Apart),
    // SYSENTER_CS, _ESP, _EIP.
    (0x174, 0x176, Rule::Kept),
    // IA32_PAT.
    (0x277, 0x277, Rule::Kept),
    // IA32_PERF_CAPABILITIES: guests are not given performance counters.
    (0x345, 0x345, Rule::Apart),
    // Capabilities of nested VMX: guests are not given nested virtualization.
    (0x480, 0x491, Rule::Apart),
    // Processor trace: guests are not given it.
    (0x560, 0x587, Rule::Apart),
    // HV_X64_MSR_TIME_REF_COUNT: a running clock.
    (0x4000_0020, 0x4000_0020, Rule::Apart),
    // KVM's wall clock: setting it makes KVM write guest memory at that instant, while pages are
    // still arriving. The guest reads it once, at boot.
    (0x4b56_4d00, 0x4b56_4d00, Rule::Apart),
    // KVM's system time: the guest's clock would stand still without it.
    (0x12, 0x12, Rule::Kept),
    (0x4b56_4d01, 0x4b56_4d01, Rule::Kept),
    // STAR, LSTAR, CSTAR, SYSCALL_MASK.
    (0xc000_0081, 0xc000_0084, Rule::Kept),
    // KERNEL_GS_BASE, TSC_AUX.
    (0xc000_0102, 0xc000_0103, Rule::Kept),
    // DE_CFG is judged, and written by guests too: Linux does it at boot. KVM takes no bit there
    // that its host can't do. Source: Linux arch/x86/kvm/svm/svm.c, `svm_set_msr`.
    (0xc001_1029, 0xc001_1029, Rule::Free),
];

/// Registers that KVM keeps and does not list: memory types by range.
/// Source: Linux arch/x86/kvm/mtrr.c.
const UNLISTED: &[(u32, u32)] = &[
    (0x200, 0x20f),
    (0x250, 0x250),
    (0x258, 0x259),
    (0x268, 0x26f),
    (0x2ff, 0x2ff),
];

fn rule(index: u32) -> Rule {
    let row = RULES
        .iter()
        .find(|(first, last, _)| (*first..=*last).contains(&index));
    match row {
        Some((_, _, rule)) => *rule,
        None if is_judged(index) => Rule::Apart,
        None => Rule::Free,
    }
}

/// Whether a register states features that both sides judge. The promise of the processor carries
/// it then, and is kept before the state is put in place.
fn is_judged(index: u32) -> bool {
    let fields = msr_word(index).map_or(&[][..], |word| word.fields);
    let mut kinds = fields.iter().map(|field| field.kind);
    kinds.any(|kind| !matches!(kind, Kind::Dynamic | Kind::Synthesized | Kind::Ignored))
}

/// Whether a register that a peer sends is state: not one that the promise has and that no rule
/// describes, which is judged bit by bit.
fn is_state(index: u32, promised: &MsrTable) -> bool {
    let unknown_feature = promised.get(index).is_some() && msr_word(index).is_none();
    rule(index) != Rule::Apart && !unknown_feature
}

/// The registers of this vCPU that travel: to be found out once, before the guest stands still.
pub(crate) fn travelling(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Vec<u32>, kvm_ioctls::Error> {
    let mut wanted: Vec<u32> = kvm.get_msr_index_list()?.as_slice().to_vec();
    wanted.extend(UNLISTED.iter().flat_map(|(first, last)| *first..=*last));
    wanted.sort_unstable();
    wanted.dedup();
    wanted.retain(|index| rule(*index) != Rule::Apart);
    wanted.truncate(MSRS_MAX);
    // KVM lists what the host has; a guest without the feature can't read the register.
    Ok(read_what_is_there(vcpu, &wanted)?
        .iter()
        .map(|entry| entry.index)
        .collect())
}

/// Reads those of some registers that exist.
pub(crate) fn read_what_is_there(
    vcpu: &VcpuFd,
    wanted: &[u32],
) -> Result<Vec<kvm_msr_entry>, kvm_ioctls::Error> {
    let mut found = Vec::with_capacity(wanted.len());
    let mut rest = wanted;
    while !rest.is_empty() {
        let mut msrs = list(rest.iter().map(|index| (*index, 0)))?;
        let read = vcpu.get_msrs(&mut msrs)?.min(rest.len());
        found.extend_from_slice(msrs.as_slice().get(..read).unwrap_or_default());
        // The one after the last that was read does not exist.
        rest = rest.get(read + 1..).unwrap_or_default();
    }
    Ok(found)
}

/// Reads registers that were readable before.
pub(crate) fn read(
    vcpu: &VcpuFd,
    number: u16,
    wanted: &[u32],
) -> Result<Vec<kvm_msr_entry>, StateError> {
    let failed = |error| StateError::vcpu(number, "KVM_GET_MSRS")(error);
    let mut msrs = list(wanted.iter().map(|index| (*index, 0))).map_err(failed)?;
    let read = vcpu.get_msrs(&mut msrs).map_err(failed)?;
    match wanted.get(read) {
        Some(&index) => Err(StateError::MsrUnreadable {
            vcpu: number,
            index,
        }),
        None => Ok(msrs.as_slice().to_vec()),
    }
}

/// Sets registers, and looks whether those that matter most were kept. Those of a promised
/// processor stay as they are.
///
/// A refused register is no loss, and tolerated, where it holds the value already, or where it does
/// not exist here and was to hold 0, which is what a guest without it has.
pub(crate) fn write(
    vcpu: &VcpuFd,
    number: u16,
    entries: &[kvm_msr_entry],
    promised: &MsrTable,
) -> Result<(), StateError> {
    let failed = |error| StateError::vcpu(number, "KVM_SET_MSRS")(error);
    let travels = |entry: &&kvm_msr_entry| is_state(entry.index, promised);
    let entries: Vec<_> = entries.iter().filter(travels).copied().collect();
    let mut rest = entries.as_slice();
    while !rest.is_empty() {
        let msrs = list(rest.iter().map(|entry| (entry.index, entry.data))).map_err(failed)?;
        let set = vcpu.set_msrs(&msrs).map_err(failed)?;
        if let Some(refused) = rest.get(set) {
            tolerate(vcpu, number, refused)?;
        }
        rest = rest.get(set + 1..).unwrap_or_default();
    }
    check_kept(vcpu, number, &entries)
}

/// Sets one register, whatever its rule.
pub(crate) fn write_one(
    vcpu: &VcpuFd,
    number: u16,
    entry: kvm_msr_entry,
) -> Result<(), StateError> {
    let failed = |error| StateError::vcpu(number, "KVM_SET_MSRS")(error);
    let msrs = list([(entry.index, entry.data)].into_iter()).map_err(failed)?;
    match vcpu.set_msrs(&msrs).map_err(failed)? {
        0 => tolerate(vcpu, number, &entry),
        _ => Ok(()),
    }
}

/// Sets one register where KVM lets it be set; whether it then holds the value is to be looked at.
pub(crate) fn try_write(vcpu: &VcpuFd, index: u32, value: u64) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_msrs(&list([(index, value)].into_iter())?)?;
    Ok(())
}

fn tolerate(vcpu: &VcpuFd, number: u16, refused: &kvm_msr_entry) -> Result<(), StateError> {
    let (index, value) = (refused.index, refused.data);
    let there =
        read_what_is_there(vcpu, &[index]).map_err(StateError::vcpu(number, "KVM_GET_MSRS"))?;
    let why = match there.first() {
        Some(found) if found.data == value => return Ok(()),
        None if value == 0 => return Ok(()),
        Some(found) => format!("it holds {:#x} here", found.data),
        None => "this host has no such register".into(),
    };
    Err(StateError::MsrRefused {
        vcpu: number,
        index,
        value,
        why,
    })
}

fn check_kept(vcpu: &VcpuFd, number: u16, entries: &[kvm_msr_entry]) -> Result<(), StateError> {
    let kept = |entry: &&kvm_msr_entry| rule(entry.index) == Rule::Kept;
    let kept: Vec<_> = entries.iter().filter(kept).copied().collect();
    let indices: Vec<_> = kept.iter().map(|entry| entry.index).collect();
    let found =
        read_what_is_there(vcpu, &indices).map_err(StateError::vcpu(number, "KVM_GET_MSRS"))?;
    for wanted in kept {
        let (index, value) = (wanted.index, wanted.data);
        let found = found.iter().find(|found| found.index == index);
        let found = found.map_or(0, |found| found.data);
        if found != value {
            return Err(StateError::MsrNotKept {
                vcpu: number,
                index,
                value,
                found,
            });
        }
    }
    Ok(())
}

/// Registers in KVM's form.
pub(crate) fn list(entries: impl Iterator<Item = (u32, u64)>) -> Result<Msrs, kvm_ioctls::Error> {
    let entries: Vec<_> = entries
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        })
        .collect();
    Msrs::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ranges_that_do_not_overlap() {
        for (at, (first, last, _)) in RULES.iter().enumerate() {
            assert!(first <= last);
            for (other_first, other_last, _) in &RULES[at + 1..] {
                assert!(last < other_first || other_last < first, "{first:#x}");
            }
        }
        assert_eq!(rule(0x10), Rule::Apart);
        assert_eq!(rule(0xc000_0082), Rule::Kept);
        assert_eq!(rule(0x6e0), Rule::Free);
    }

    #[test]
    fn what_is_judged_stays_apart_and_what_a_guest_owns_travels() {
        for judged in [0xce, 0xcf, 0x10a, 0x345, 0x480, 0x491] {
            assert_eq!(rule(judged), Rule::Apart, "{judged:#x}");
        }
        // Microcode revision, HWCR, and DE_CFG.
        for own in [0x8b, 0xc001_0015, 0xc001_1029] {
            assert_eq!(rule(own), Rule::Free, "{own:#x}");
        }
        let promised = MsrTable::new(vec![(0x1b2, 5), (0x8b, 1)]).expect("table");
        assert!(!is_state(0x1b2, &promised));
        assert!(is_state(0x1b2, &MsrTable::default()));
        assert!(is_state(0x8b, &promised));
    }

    #[test]
    fn a_state_does_not_change_the_registers_that_were_judged() {
        let kvm = match crate::vm::open_kvm() {
            Ok(kvm) => kvm,
            Err(error) => {
                println!("SKIPPED: {error}");
                return;
            }
        };
        let vm = kvm.create_vm().expect("machine");
        vm.create_irq_chip().expect("irqchip");
        let vcpu = vm.create_vcpu(0).expect("vcpu");
        let held = |index| {
            let found = read_what_is_there(&vcpu, &[index]).expect("read");
            found.first().map(|entry| entry.data)
        };
        let mut changeable = 0;
        for index in [0xce, 0x10a, 0x345, 0x480] {
            let Some(before) = held(index) else {
                continue;
            };
            // One bit less: whatever KVM takes, it takes that.
            let lowest = before & before.wrapping_neg();
            try_write(&vcpu, index, before & !lowest).expect("write");
            if held(index) == Some(before) {
                continue;
            }
            changeable += 1;
            try_write(&vcpu, index, before).expect("write");
            let sent = kvm_msr_entry {
                index,
                data: before & !lowest,
                ..kvm_msr_entry::default()
            };
            let promised = MsrTable::new(vec![(index, before)]).expect("table");
            write(&vcpu, 0, &[sent], &promised).expect("tolerated");
            assert_eq!(held(index), Some(before), "{index:#x}");
        }
        println!("{changeable} registers could have been changed");
    }
}
