//! One vCPU's registers: taken from KVM, put back into KVM, as bytes. The orders of the calls are
//! part of it: several of them change what others read.

use std::io;

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_SREGS2_FLAGS_PDPTRS_VALID, kvm_cpuid_entry2, kvm_debugregs,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_sregs2, kvm_vcpu_events,
    kvm_xcrs,
};
use limosa_compat::Processor;
use limosa_wire::codec::{Codec, Reader, Writer};
use limosa_wire::{DecodeError, EncodeError};

use super::clock::{ClockState, Forward, TscState};
use super::codec::{put, put_all, take, take_all};
use super::error::StateError;
use super::msrs::{self, MSRS_MAX};
use crate::cpu;
use crate::sys_kvm;
use crate::vcpu::Vcpu;

/// Most bytes of one vCPU's vector state: AVX-512 and AMX together have 11 KiB.
const XSAVE_BYTES_MAX: usize = 32 << 10;

/// Number of IA32_TSC.
const TSC: u32 = 0x10;

/// Everything of one vCPU that travels.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct VcpuState {
    pub(crate) cpuid: Vec<kvm_cpuid_entry2>,
    pub(crate) mp_state: kvm_mp_state,
    pub(crate) regs: kvm_regs,
    pub(crate) sregs: kvm_sregs,
    /// Page-directory pointers, of a guest in PAE mode only.
    pub(crate) pdptrs: Option<[u64; 4]>,
    pub(crate) xcrs: kvm_xcrs,
    pub(crate) xsave: Vec<u8>,
    pub(crate) debug: kvm_debugregs,
    pub(crate) lapic: kvm_lapic_state,
    pub(crate) msrs: Vec<kvm_msr_entry>,
    pub(crate) tsc: TscState,
    pub(crate) events: kvm_vcpu_events,
}

impl Codec for VcpuState {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        put_all(writer, "CPUID entries", &self.cpuid, KVM_MAX_CPUID_ENTRIES)?;
        put(writer, &self.mp_state);
        put(writer, &self.regs);
        put(writer, &self.sregs);
        let pdptrs = self.pdptrs.as_slice();
        put_all(writer, "page-directory pointers", pdptrs, 1)?;
        put(writer, &self.xcrs);
        writer.bytes("vector state", &self.xsave, XSAVE_BYTES_MAX)?;
        put(writer, &self.debug);
        put(writer, &self.lapic);
        put_all(writer, "MSRs", &self.msrs, MSRS_MAX)?;
        writer.u64(self.tsc.value);
        writer.u32(self.tsc.khz);
        put(writer, &self.events);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            cpuid: take_all(reader, "CPUID entries", KVM_MAX_CPUID_ENTRIES)?,
            mp_state: take(reader)?,
            regs: take(reader)?,
            sregs: take(reader)?,
            pdptrs: take_all(reader, "page-directory pointers", 1)?.pop(),
            xcrs: take(reader)?,
            xsave: reader.bytes("vector state", XSAVE_BYTES_MAX)?.into(),
            debug: take(reader)?,
            lapic: take(reader)?,
            msrs: take_all(reader, "MSRs", MSRS_MAX)?,
            tsc: TscState {
                value: reader.u64()?,
                khz: reader.u32()?,
            },
            events: take(reader)?,
        })
    }
}

impl VcpuState {
    /// Takes everything from a vCPU that stands still, after all others do.
    ///
    /// MP_STATE comes first: asking for it makes KVM deliver start-up interrupts, which changes
    /// registers. VCPU_EVENTS come last: reading the local APIC may move an interrupt there.
    pub(crate) fn take(vcpu: &Vcpu, msrs: &[u32], clock: &ClockState) -> Result<Self, StateError> {
        let number = vcpu.index();
        let fd = vcpu.fd();
        let failed = |call| StateError::vcpu(number, call);
        let mp_state = fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?;
        let regs = fd.get_regs().map_err(failed("KVM_GET_REGS"))?;
        let (sregs, pdptrs) = take_sregs(vcpu)?;
        let xcrs = fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?;
        let mut xsave = vcpu.xsave().map_err(failed("KVM_GET_XSAVE"))?;
        keep_components(&mut xsave, components(vcpu.cpuid()));
        let debug = fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?;
        let msrs = msrs::read(fd, number, msrs)?;
        let tsc = take_tsc(vcpu, clock)?;
        let lapic = fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?;
        let events = fd
            .get_vcpu_events()
            .map_err(failed("KVM_GET_VCPU_EVENTS"))?;
        Ok(Self {
            cpuid: vcpu.cpuid().to_vec(),
            mp_state,
            regs,
            sregs,
            pdptrs,
            xcrs,
            xsave,
            debug,
            lapic,
            msrs,
            tsc,
            events,
        })
    }

    /// Puts everything into a vCPU that has not run yet, in this order:
    ///
    /// 1. CPUID: KVM refuses registers whose feature the guest does not have. What it then shows is
    ///    compared with what was promised.
    /// 2. TSC frequency: later values are counted in it.
    /// 3. SREGS: EFER and CR4 decide what other registers may hold, and APIC_BASE in which mode the
    ///    local APIC is.
    /// 4. XCRS before XSAVE: the vector state must be enabled. A guest without XSAVE has no XCRS.
    /// 5. REGS, DEBUGREGS: on nothing else do they depend.
    /// 6. LAPIC: its timer mode decides what TSC_DEADLINE means.
    /// 7. TSC, then the MSRs: a deadline is compared with the TSC when it is set.
    /// 8. VCPU_EVENTS: every call above may drop or raise an event.
    /// 9. MP_STATE: the vCPU is runnable, or halted, only when all else is in place.
    pub(crate) fn put(
        &self,
        vcpu: &mut Vcpu,
        promised: &Processor,
        forward: &Forward,
    ) -> Result<(), StateError> {
        let number = vcpu.index();
        let failed = |call| StateError::vcpu(number, call);
        // Given ahead, and found to be what was promised, where this host made the same of it.
        if vcpu.cpuid() != self.cpuid {
            if !cpu::sees_what_was_offered(number.into(), &self.cpuid, promised) {
                return Err(StateError::OtherCpu);
            }
            vcpu.set_cpuid(&self.cpuid)
                .map_err(failed("KVM_SET_CPUID2"))?;
            cpu::keep(vcpu, promised)?;
        }
        let vcpu = &*vcpu;
        let fd = vcpu.fd();
        set_tsc_khz(vcpu, self.tsc.khz)?;
        self.put_sregs(vcpu)?;
        if has_xsave(&self.cpuid) {
            fd.set_xcrs(&self.xcrs).map_err(failed("KVM_SET_XCRS"))?;
        }
        self.put_xsave(vcpu)?;
        fd.set_regs(&self.regs).map_err(failed("KVM_SET_REGS"))?;
        fd.set_debug_regs(&self.debug)
            .map_err(failed("KVM_SET_DEBUGREGS"))?;
        fd.set_lapic(&self.lapic).map_err(failed("KVM_SET_LAPIC"))?;
        self.put_tsc(vcpu, forward)?;
        msrs::write(fd, number, &self.msrs, &promised.msrs)?;
        fd.set_vcpu_events(&self.events)
            .map_err(failed("KVM_SET_VCPU_EVENTS"))?;
        fd.set_mp_state(self.mp_state)
            .map_err(failed("KVM_SET_MP_STATE"))
    }

    fn put_sregs(&self, vcpu: &Vcpu) -> Result<(), StateError> {
        let number = vcpu.index();
        let sregs2 = sregs2_of(&self.sregs, self.pdptrs);
        match sys_kvm::set_sregs2(vcpu.fd(), &sregs2) {
            Ok(()) => Ok(()),
            // An older kernel, or a refused value, which the older call refuses just as well.
            Err(error) if is_unknown_call(&error) && self.pdptrs.is_none() => vcpu
                .fd()
                .set_sregs(&self.sregs)
                .map_err(StateError::vcpu(number, "KVM_SET_SREGS")),
            Err(source) => Err(StateError::Vcpu {
                vcpu: number,
                call: "KVM_SET_SREGS2",
                source,
            }),
        }
    }

    fn put_xsave(&self, vcpu: &Vcpu) -> Result<(), StateError> {
        let (number, max) = (vcpu.index(), vcpu.xsave_bytes());
        let beyond = self.xsave.get(max..).unwrap_or_default();
        if beyond.iter().any(|byte| *byte != 0) {
            return Err(StateError::VectorState {
                vcpu: number,
                found: self.xsave.len(),
                max,
            });
        }
        vcpu.set_xsave(&self.xsave)
            .map_err(StateError::vcpu(number, "KVM_SET_XSAVE"))
    }

    /// On hosts of the guest's own frequency the TSC is the host's and an offset: exact, and the
    /// same for all vCPUs. Elsewhere KVM works the offset out from the value.
    fn put_tsc(&self, vcpu: &Vcpu, forward: &Forward) -> Result<(), StateError> {
        let number = vcpu.index();
        let value = self.tsc.after(forward.passed);
        let same = self.tsc.khz == vcpu.native_tsc_khz();
        if let Some(host_tsc) = forward.host_tsc.filter(|_| same) {
            let offset = value.wrapping_sub(host_tsc);
            match sys_kvm::set_tsc_offset(vcpu.fd(), offset) {
                Ok(()) => return Ok(()),
                // Linux before 5.16: as for a host of another frequency.
                Err(error) if is_unknown_call(&error) => {}
                Err(source) => {
                    return Err(StateError::Vcpu {
                        vcpu: number,
                        call: "KVM_SET_DEVICE_ATTR (TSC offset)",
                        source,
                    });
                }
            }
        }
        let entry = kvm_msr_entry {
            index: TSC,
            data: value,
            ..kvm_msr_entry::default()
        };
        msrs::write_one(vcpu.fd(), number, entry)
    }
}

fn leaf(cpuid: &[kvm_cpuid_entry2], leaf: u32) -> kvm_cpuid_entry2 {
    let found = cpuid
        .iter()
        .find(|entry| (entry.function, entry.index) == (leaf, 0));
    found.copied().unwrap_or_default()
}

/// A guest without XSAVE can't have touched XCR0, and a host without it has none to set.
fn has_xsave(cpuid: &[kvm_cpuid_entry2]) -> bool {
    leaf(cpuid, 1).ecx >> 26 & 1 == 1
}

/// Which components of vector state the guest may have, one bit each: x87 and SSE always.
fn components(cpuid: &[kvm_cpuid_entry2]) -> u64 {
    let xcr0 = leaf(cpuid, 0xd);
    let xcr0 = u64::from(xcr0.edx) << 32 | u64::from(xcr0.eax);
    if has_xsave(cpuid) { xcr0 | 0b11 } else { 0b11 }
}

/// Marks every other component of an image as unused. Older kernels hand out what only the host
/// has, such as PKRU, and newer ones refuse an image with it.
/// Source: Intel SDM volume 1, 13.4.2: XSTATE_BV stands at 512.
fn keep_components(xsave: &mut [u8], components: u64) {
    if let Some(field) = xsave.get_mut(512..520)
        && let Ok(bits) = <[u8; 8]>::try_from(&*field)
    {
        let kept = u64::from_le_bytes(bits) & components;
        field.copy_from_slice(&kept.to_le_bytes());
    }
}

fn take_sregs(vcpu: &Vcpu) -> Result<(kvm_sregs, Option<[u64; 4]>), StateError> {
    let number = vcpu.index();
    match sys_kvm::sregs2(vcpu.fd()) {
        Ok(sregs2) => Ok(sregs_of(&sregs2)),
        Err(error) if is_unknown_call(&error) => {
            let sregs = vcpu.fd().get_sregs();
            let sregs = sregs.map_err(StateError::vcpu(number, "KVM_GET_SREGS"))?;
            // An interrupt on its way to the guest is among the events.
            let interrupt_bitmap = [0; 4];
            let sregs = kvm_sregs {
                interrupt_bitmap,
                ..sregs
            };
            Ok((sregs, None))
        }
        Err(source) => Err(StateError::Vcpu {
            vcpu: number,
            call: "KVM_GET_SREGS2",
            source,
        }),
    }
}

fn take_tsc(vcpu: &Vcpu, clock: &ClockState) -> Result<TscState, StateError> {
    let number = vcpu.index();
    let khz = vcpu.fd().get_tsc_khz().unwrap_or(0);
    let same = khz == vcpu.native_tsc_khz();
    if let Some(host_tsc) = clock.host_tsc.filter(|_| same)
        && let Ok(offset) = sys_kvm::tsc_offset(vcpu.fd())
    {
        let value = host_tsc.wrapping_add(offset);
        return Ok(TscState { value, khz });
    }
    let found = msrs::read(vcpu.fd(), number, &[TSC])?;
    let value = found.first().map_or(0, |entry| entry.data);
    Ok(TscState { value, khz })
}

fn set_tsc_khz(vcpu: &Vcpu, wanted_khz: u32) -> Result<(), StateError> {
    let fd = vcpu.fd();
    if wanted_khz == 0 || fd.get_tsc_khz() == Ok(wanted_khz) {
        return Ok(());
    }
    fd.set_tsc_khz(wanted_khz).map_err(|error| {
        // A kernel may report the refused frequency from now on.
        fd.set_tsc_khz(vcpu.native_tsc_khz()).ok();
        StateError::TscFrequency {
            vcpu: vcpu.index(),
            wanted_khz,
            host_khz: vcpu.native_tsc_khz(),
            source: io::Error::from_raw_os_error(error.errno()),
        }
    })
}

/// Whether it may be that the kernel has no such call. KVM's answer is EINVAL then, for attributes
/// ENXIO or ENOTTY.
fn is_unknown_call(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENXIO | libc::ENOTTY)
    )
}

fn sregs_of(from: &kvm_sregs2) -> (kvm_sregs, Option<[u64; 4]>) {
    let valid = from.flags & u64::from(KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0;
    let sregs = kvm_sregs {
        cs: from.cs,
        ds: from.ds,
        es: from.es,
        fs: from.fs,
        gs: from.gs,
        ss: from.ss,
        tr: from.tr,
        ldt: from.ldt,
        gdt: from.gdt,
        idt: from.idt,
        cr0: from.cr0,
        cr2: from.cr2,
        cr3: from.cr3,
        cr4: from.cr4,
        cr8: from.cr8,
        efer: from.efer,
        apic_base: from.apic_base,
        interrupt_bitmap: [0; 4],
    };
    (sregs, valid.then_some(from.pdptrs))
}

fn sregs2_of(from: &kvm_sregs, pdptrs: Option<[u64; 4]>) -> kvm_sregs2 {
    kvm_sregs2 {
        cs: from.cs,
        ds: from.ds,
        es: from.es,
        fs: from.fs,
        gs: from.gs,
        ss: from.ss,
        tr: from.tr,
        ldt: from.ldt,
        gdt: from.gdt,
        idt: from.idt,
        cr0: from.cr0,
        cr2: from.cr2,
        cr3: from.cr3,
        cr4: from.cr4,
        cr8: from.cr8,
        efer: from.efer,
        apic_base: from.apic_base,
        flags: pdptrs.map_or(0, |_| u64::from(KVM_SREGS2_FLAGS_PDPTRS_VALID)),
        pdptrs: pdptrs.unwrap_or_default(),
    }
}
