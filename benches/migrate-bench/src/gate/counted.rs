//! What is counted: a kernel, on some threads.

use std::fmt;
use std::str::FromStr;

use limosa_kernels::{KERNELS, Kernel, STREAMS_MAX};

/// Threads of the kernels that are counted on many.
const MANY: u16 = 64;
/// Which those are: each way through the corridor.
const ON_MANY: [&str; 2] = ["pack-raw", "land-raw"];
/// Not counted: the copy is libc's, and which way it copies is no matter of this code.
const ONLY_TIMED: &str = "land-raw-copied";

/// A kernel and the number of threads that work at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(super) kernel: Kernel,
    pub(super) threads: u16,
}

impl Counted {
    /// All that a gate counts.
    pub(super) fn all() -> Vec<Self> {
        let work = KERNELS
            .iter()
            .filter(|kernel| !kernel.is_yardstick() && kernel.name() != ONLY_TIMED);
        let alone = work.map(|kernel| Self {
            kernel: *kernel,
            threads: 1,
        });
        let many = ON_MANY.iter().filter_map(|name| Kernel::named(name));
        let many = many.map(|kernel| Self {
            kernel,
            threads: MANY,
        });
        alone.chain(many).collect()
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.threads {
            1 => write!(f, "{}", self.kernel),
            threads => write!(f, "{}@{threads}", self.kernel),
        }
    }
}

impl FromStr for Counted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, threads) = text.split_once('@').unwrap_or((text, "1"));
        let Some(kernel) = Kernel::named(name) else {
            let names: Vec<_> = KERNELS.iter().map(Kernel::name).collect();
            let names = names.join(", ");
            return Err(format!("`{name}` is no kernel; there are {names}"));
        };
        let threads = threads.parse::<u16>().ok();
        let threads = threads.filter(|threads| (1..=STREAMS_MAX).contains(threads));
        let threads = threads.ok_or_else(|| {
            format!("`{text}` has no number of threads; write for instance {name}@{MANY}")
        })?;
        Ok(Self { kernel, threads })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for counted in Counted::all() {
            assert_eq!(counted.to_string().parse(), Ok(counted));
        }
    }

    #[test]
    fn what_is_no_kernel_is_told_with_those_that_are() {
        let error = "pack".parse::<Counted>().unwrap_err();
        assert!(error.contains("`pack`") && error.contains("pack-raw"));
        for absurd in ["pack-raw@0", "pack-raw@65", "pack-raw@", "pack-raw@x"] {
            assert!(
                absurd
                    .parse::<Counted>()
                    .unwrap_err()
                    .contains("pack-raw@64")
            );
        }
    }
}
