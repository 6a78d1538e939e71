//! Saved vector state: a guest keeps XSAVE images in its own memory, so no component may shrink,
//! grow or move. Which components exist follows from features and is never combined by itself.
//!
//! Sources: Intel SDM volume 1, chapter 13; AMD APM volume 2, chapter 11. AMD's layout is not
//! Intel's, and not even the same over all of AMD's own: PKRU stands at 0x340 on some Zen 2, whose
//! XCR0 has the bit without the feature, and at 0x980 later.

use crate::cpuid::{CpuidTable, Register};

const LEAF: u32 = 0xd;
/// The legacy area and the header: what every image has.
const IMAGE_BYTES_MIN: u32 = 512 + 64;

/// What a component is the state of.
struct Component {
    number: u32,
    /// Any of these; the component is there as long as one of them is.
    features: &'static [&'static str],
    area: Area,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Area {
    /// Enabled by XCR0.
    User,
    /// Enabled by IA32_XSS, with `xsaves` only.
    Supervisor,
}

const fn user(number: u32, features: &'static [&'static str]) -> Component {
    let area = Area::User;
    Component {
        number,
        features,
        area,
    }
}

const fn supervisor(number: u32, features: &'static [&'static str]) -> Component {
    let area = Area::Supervisor;
    Component {
        number,
        features,
        area,
    }
}

/// Components without a row, such as AMD's 62 (LWP), are nobody's: no baseline has them.
const COMPONENTS: &[Component] = &[
    user(2, &["avx"]),
    user(3, &["mpx"]),
    user(4, &["mpx"]),
    user(5, &["avx512f"]),
    user(6, &["avx512f"]),
    user(7, &["avx512f"]),
    user(9, &["pku"]),
    supervisor(11, &["shstk", "ibt"]),
    supervisor(12, &["shstk"]),
    user(17, &["amx-tile"]),
    user(18, &["amx-tile"]),
    user(19, &["apx"]),
];

/// Components of the table's XCR0 and XSS, one bit each.
fn enabled(table: &CpuidTable) -> u64 {
    let word = |subleaf, register| u64::from(table.register(LEAF, subleaf, register));
    let xcr0 = word(0, Register::Edx) << 32 | word(0, Register::Eax);
    let xss = word(1, Register::Edx) << 32 | word(1, Register::Ecx);
    xcr0 | xss
}

/// Whether two tables can be compared here: anywhere but at a component that one of them lacks.
/// That it lacks it is a matter of features, and said there.
pub(crate) fn is_shared(leaf: u32, subleaf: u32, one: &CpuidTable, other: &CpuidTable) -> bool {
    match (leaf, subleaf) {
        (LEAF, 2..=63) => (enabled(one) & enabled(other)) >> subleaf & 1 == 1,
        _ => true,
    }
}

/// Takes away the first feature whose state the table doesn't describe, or has not enabled; says
/// whether there was one.
pub(crate) fn hide_undescribed(table: &mut CpuidTable) -> bool {
    let undescribed = |component: &&Component| {
        let number = component.number;
        let is_zero = |register| table.register(LEAF, number, register) == 0;
        let is_placed = match component.area {
            // Behind the legacy area. Zero is left where hosts put it in different places.
            Area::User => enabled(table) >> number & 1 == 1 && !is_zero(Register::Ebx),
            Area::Supervisor => true,
        };
        let is_described = is_placed && !is_zero(Register::Eax);
        !is_described && component.features.iter().any(|name| table.has(name))
    };
    let Some(component) = COMPONENTS.iter().find(undescribed) else {
        return false;
    };
    let mut hidden = false;
    for name in component.features {
        hidden |= table.hide(name);
    }
    hidden
}

/// Makes leaf 0xd of what the features need: XCR0, XSS, the size of an image, and the components.
pub(crate) fn recompute(table: &mut CpuidTable) {
    if !table.has("xsave") {
        table.retain(|entry| entry.leaf != LEAF);
        return;
    }
    let supervisor_too = table.has("xsaves");
    let was_enabled = enabled(table);
    let (mut xcr0, mut xss, mut image_bytes) = (0b11_u64, 0_u64, IMAGE_BYTES_MIN);
    for component in COMPONENTS {
        let number = component.number;
        if !component.features.iter().any(|name| table.has(name)) {
            continue;
        }
        match component.area {
            Area::User => {
                xcr0 |= 1 << number;
                let place = table.register(LEAF, number, Register::Ebx);
                let size = table.register(LEAF, number, Register::Eax);
                image_bytes = image_bytes.max(place.saturating_add(size));
            }
            Area::Supervisor if supervisor_too => xss |= was_enabled & 1 << number,
            Area::Supervisor => {}
        }
    }
    let there = xcr0 | xss;
    let is_there = |number: u32| number < 64 && there >> number & 1 == 1;
    table.retain(|entry| entry.leaf != LEAF || entry.subleaf < 2 || is_there(entry.subleaf));
    table.change(LEAF, 0, |entry| {
        (entry.eax, entry.edx) = (xcr0 as u32, (xcr0 >> 32) as u32);
        // Until the guest enables more; the kernel keeps it up to date from then on.
        (entry.ebx, entry.ecx) = (IMAGE_BYTES_MIN, image_bytes);
    });
    table.change(LEAF, 1, |entry| {
        entry.ebx = 0;
        (entry.ecx, entry.edx) = (xss as u32, (xss >> 32) as u32);
    });
}
