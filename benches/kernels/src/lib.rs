//! Fixed pieces of page work, each with a name, to be timed by a bench and counted by a gate. They
//! use the pipeline as the engine does, and hold no code of the product.
//!
//! ```
//! use limosa_kernels::{Amount, Kernel, Load};
//! let kernel = Kernel::named("pack-raw").ok_or("no such kernel")?;
//! let mut prepared = kernel.prepare(Amount { chunk_count: 1, load: Load::Plain })?;
//! prepared.pass()?;
//! assert_eq!(prepared.units(), 512);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bitmap;
mod clock;
mod corridor;
mod guest;
mod kernel;
mod landing;
mod loops;
mod streams;
mod yardstick;

pub use limosa_wire::STREAMS_MAX;

pub use clock::cpu_time_of;
pub use guest::Fill;
pub use kernel::{Amount, KERNELS, Kernel, KernelError, Load, Prepared, Unit};

/// Which loops the pipeline runs on this processor, or on the one that an emulator shows.
pub fn loops() -> &'static str {
    limosa_pipeline::kernels::Kernels::detect().name()
}
