//! The state in which a vCPU enters the payload for the first time: flat 32-bit protected mode.
//! After that nobody but the guest, or a migration, sets registers.

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs, kvm_segment};
use limosa_payload::{ENTRY_STATE, Image};

use crate::state::StateError;
use crate::vcpu::Vcpu;

const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
const TASK_SELECTOR: u16 = 0x18;

/// Lets `vcpu` begin where the payload begins.
pub(crate) fn enter(vcpu: &Vcpu, image: &Image<'_>) -> Result<(), StateError> {
    let number = vcpu.index();
    let failed = |call| StateError::vcpu(number, call);
    let fd = vcpu.fd();
    let entry = ENTRY_STATE;
    let mut sregs = fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
    let flat = |selector, type_| kvm_segment {
        base: entry.segment_base,
        limit: entry.segment_limit,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = flat(CODE_SELECTOR, entry.code_type);
    let data = flat(DATA_SELECTOR, entry.data_type);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: 0,
        limit: entry.task_limit,
        selector: TASK_SELECTOR,
        type_: entry.task_type,
        present: 1,
        ..kvm_segment::default()
    };
    (sregs.cr0, sregs.cr4, sregs.efer) = (entry.cr0, entry.cr4, entry.efer);
    fd.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))?;
    let first = number == 0;
    let regs = kvm_regs {
        rip: if first {
            image.pvh_entry()
        } else {
            image.ap_entry()
        },
        rdi: number.into(),
        rflags: entry.rflags,
        ..kvm_regs::default()
    };
    fd.set_regs(&regs).map_err(failed("KVM_SET_REGS"))?;
    // Application processors are not started by the first one: they simply run.
    let mp_state = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    fd.set_mp_state(mp_state)
        .map_err(failed("KVM_SET_MP_STATE"))
}
