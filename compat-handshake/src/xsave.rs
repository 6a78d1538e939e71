//! The layout of XSAVE images: a guest keeps them in its own memory, so no component may shrink,
//! grow or move. Which components exist is a matter of features, not of this file.

use alloc::format;
use alloc::vec::Vec;

use crate::cpuid::{CpuidTable, Register};
use crate::mismatch::{Mismatch, MismatchKind, Place};

const LEAF: u32 = 0xd;

/// Components of the guest's XCR0 and XSS, one bit each.
fn components(table: &CpuidTable) -> u64 {
    let word = |subleaf, register| u64::from(table.register(LEAF, subleaf, register));
    let xcr0 = word(0, Register::Edx) << 32 | word(0, Register::Eax);
    let xss = word(1, Register::Edx) << 32 | word(1, Register::Ecx);
    xcr0 | xss
}

/// Compares size, offset and alignment of each component that both have.
///
/// A component that only the guest has is a missing feature and reported as such. AMD's layout is
/// not Intel's, and not even the same over all of AMD's own: PKRU stands at 0x340 on some Zen 2
/// and at 0x980 later.
pub(crate) fn judge_layout(guest: &CpuidTable, host: &CpuidTable, found: &mut Vec<Mismatch>) {
    // Components 0 and 1 (x87, SSE) have their fixed place in the legacy area.
    let common = components(guest) & components(host);
    for component in (2..63_u32).filter(|&bit| common >> bit & 1 == 1) {
        // ECX bit 0 (managed by XSS) and bit 1 (64-byte alignment) decide the compacted layout.
        let parts = [
            (Register::Eax, u32::MAX, "size"),
            (Register::Ebx, u32::MAX, "offset"),
            (Register::Ecx, 0b11, "alignment"),
        ];
        for (register, mask, part) in parts {
            let guest_value = guest.register(LEAF, component, register) & mask;
            let host_value = host.register(LEAF, component, register) & mask;
            if guest_value != host_value {
                let place = Place::Cpuid {
                    leaf: LEAF,
                    subleaf: component,
                    register,
                    bit: None,
                };
                found.push(Mismatch::new(
                    place,
                    format!("xsave-component-{component}-{part}"),
                    MismatchKind::Differs,
                    (u64::from(guest_value), u64::from(host_value)),
                ));
            }
        }
    }
}
