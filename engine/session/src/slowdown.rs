//! How much a guest is held back while its memory is copied.

use core::fmt;

/// A guest is held back so that its writes don't outrun the link; all of it is undone before the
/// migration ends, however it ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Slowdown {
    /// It runs as it likes.
    #[default]
    None,
    /// Each vCPU runs for that share of the time and stands still for the rest, in turns of at most
    /// [`TURN_MAX_MS`](Self::TURN_MAX_MS). It punishes readers, too.
    DutyCycle {
        /// Thousandths of the time that a vCPU may run: 1 to 999.
        run_permille: u16,
    },
    /// No vCPU dirties more than that; one that would waits. Those that only read lose nothing.
    /// Needs a record of writes that tells vCPUs apart, as KVM's dirty ring does.
    DirtyLimit {
        /// Bytes of pages that each vCPU may dirty a second: at least one page.
        bytes_per_second: u64,
    },
}

impl Slowdown {
    /// Longest turn of a duty cycle, run and pause together, in milliseconds: a guest that is held
    /// back still answers within it.
    pub const TURN_MAX_MS: u64 = 10;
}

impl fmt::Display for Slowdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("not held back"),
            Self::DutyCycle { run_permille } => {
                let (whole, part) = (run_permille / 10, run_permille % 10);
                write!(f, "each vCPU runs {whole}.{part} % of the time")
            }
            Self::DirtyLimit { bytes_per_second } => {
                let mib = bytes_per_second >> 20;
                write!(f, "each vCPU dirties at most {mib} MiB/s")
            }
        }
    }
}
