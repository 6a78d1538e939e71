//! Units in which figures of a picture are easy to read.

/// A unit, and how much of what is measured it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) unit: &'static str,
    pub(super) size: f64,
}

const fn scale(unit: &'static str, size: f64) -> Scale {
    Scale { unit, size }
}

const MIB: f64 = 1048576.0;
const GIB: f64 = 1024.0 * MIB;

impl Scale {
    /// For times up to `largest` milliseconds.
    pub(super) fn of_ms(largest: f64) -> Self {
        if largest < 3000.0 {
            scale("ms", 1.0)
        } else {
            scale("s", 1e3)
        }
    }

    /// For sizes up to `largest` bytes.
    pub(super) fn of_bytes(largest: f64) -> Self {
        if largest < GIB {
            scale("MiB", MIB)
        } else {
            scale("GiB", GIB)
        }
    }

    /// A value in this unit.
    pub(super) fn of(self, value: f64) -> f64 {
        value / self.size
    }
}

/// The end of an axis that holds `largest`, with some room above it.
pub(super) fn axis_end(largest: f64) -> f64 {
    if largest > 0.0 { largest * 1.08 } else { 1.0 }
}
