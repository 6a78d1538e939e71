//! Calls that `kvm-ioctls` has no x86 door for: the TSC offset, the second form of the system
//! registers, and the permission for AMX. It interprets nothing.
//!
//! Safety rules: the descriptor is a vCPU's, borrowed for the call; each request number carries the
//! size of the structure that goes with it, and that structure lives through the call.
#![expect(unsafe_code, reason = "raw ioctls on a vCPU's descriptor")]

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_device_attr, kvm_sregs2};
use kvm_ioctls::VcpuFd;

const KVMIO: u64 = 0xae;
const WRITE: u64 = 1;
const READ: u64 = 2;

/// Source: Linux include/uapi/asm-generic/ioctl.h, `_IOC`.
const fn request(direction: u64, number: u64, bytes: usize) -> u64 {
    (direction << 30) | ((bytes as u64) << 16) | (KVMIO << 8) | number
}

// Source: Linux include/uapi/linux/kvm.h. Both attribute calls are `_IOW`: the structure only says
// where the value is.
const SET_DEVICE_ATTR: u64 = request(WRITE, 0xe1, size_of::<kvm_device_attr>());
const GET_DEVICE_ATTR: u64 = request(WRITE, 0xe2, size_of::<kvm_device_attr>());
const GET_SREGS2: u64 = request(READ, 0xcc, size_of::<kvm_sregs2>());
const SET_SREGS2: u64 = request(WRITE, 0xcd, size_of::<kvm_sregs2>());

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn tsc_offset_attr(value: *mut u64) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: value.expose_provenance() as u64,
    }
}

/// What is added to the host's TSC to make the guest's.
pub(crate) fn tsc_offset(vcpu: &VcpuFd) -> io::Result<u64> {
    let mut offset = 0;
    let attr = tsc_offset_attr(&raw mut offset);
    // SAFETY: `attr` and the number that it points to live through the call; the kernel writes
    // eight bytes there, the attribute's size.
    checked(unsafe { libc::ioctl(vcpu.as_raw_fd(), GET_DEVICE_ATTR as _, &raw const attr) })?;
    Ok(offset)
}

/// Sets what is added to the host's TSC to make the guest's.
pub(crate) fn set_tsc_offset(vcpu: &VcpuFd, mut offset: u64) -> io::Result<()> {
    let attr = tsc_offset_attr(&raw mut offset);
    // SAFETY: `attr` and the number that it points to live through the call; the kernel reads eight
    // bytes there, the attribute's size.
    checked(unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_DEVICE_ATTR as _, &raw const attr) })
}

/// Source: Linux arch/x86/include/uapi/asm/prctl.h, `ARCH_REQ_XCOMP_GUEST_PERM`.
const REQUEST_GUEST_PERMISSION: libc::c_ulong = 0x1025;
/// Number of the state component in which AMX keeps its tiles.
const AMX_TILE_DATA: libc::c_ulong = 18;

/// Asks for guests of this process to be allowed AMX. A processor without it refuses, which is no
/// loss; asking again is none either.
pub(crate) fn permit_amx() {
    // SAFETY: two numbers and no memory; the call only widens what vCPUs made later may be given.
    unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            REQUEST_GUEST_PERMISSION,
            AMX_TILE_DATA,
        )
    };
}

/// The system registers with the page-directory pointers of a PAE guest.
pub(crate) fn sregs2(vcpu: &VcpuFd) -> io::Result<kvm_sregs2> {
    let mut sregs = kvm_sregs2::default();
    // SAFETY: the kernel writes one `kvm_sregs2`, which `sregs` is, and it lives through the call.
    checked(unsafe { libc::ioctl(vcpu.as_raw_fd(), GET_SREGS2 as _, &raw mut sregs) })?;
    Ok(sregs)
}

/// Sets the system registers with the page-directory pointers of a PAE guest.
pub(crate) fn set_sregs2(vcpu: &VcpuFd, sregs: &kvm_sregs2) -> io::Result<()> {
    // SAFETY: the kernel reads one `kvm_sregs2`, which `sregs` is, and it lives through the call.
    checked(unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_SREGS2 as _, &raw const *sregs) })
}
