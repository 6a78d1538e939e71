//! A whole migration in one thread and without any I/O: the real session machines, the real
//! pipeline, a scripted guest, and links and hosts that fail as the seed has it.
//!
//! # What is real, and what is played
//!
//! Real: both machines of `limosa-session`; corridors, landers, ledger and scan of
//! `limosa-pipeline`; every message and every frame as bytes of `limosa-wire`; the `Script` of
//! `limosa-dirty`, which clears before the copy. Played: time, links, the guest, the kernel,
//! operators, and the driver that stands where the engine's own stands.
//!
//! # A run is a function of plan and seed
//!
//! Time is a number, all choices come from one seeded sequence, and nothing depends on the order of
//! a hash table. A round is sent by one call of the real corridor per stream; whenever that call
//! asks for leave to read a chunk, or hands frames over, the world goes on: the guest writes,
//! frames arrive, timers fire, hosts crash. So a round is interrupted at every frame, in one
//! thread. ([`limosa_pipeline::share_out`] divides its work over threads and puts the parts back in
//! order; [`limosa_pipeline::Codec::Auto`] measures real time, and is therefore not played.)
//!
//! # A seed that fails
//!
//! is replayed, with every step printed, by
//!
//! ```text
//! LIMOSA_SIM_PLAN=storm LIMOSA_SIM_SEED=17 \
//!     cargo test -p limosa-testbeds --test sim replay -- --nocapture
//! ```
//!
//! A bug that was found so becomes a plan of its own in `plans/`, ahead of its repair.
//!
//! # What is not here
//!
//! Real sockets, real kernels, threads, torn pages, and the engine's own driver: other testbeds
//! have those. Each of the [`checkers`] says what it does not check.

pub mod checkers;
mod clock;
mod control;
mod faults;
mod foretold;
mod guest;
mod harvest;
mod lies;
mod link;
mod memory;
mod plan;
mod processors;
mod rng;
mod run;
mod sabotage;
mod source;
mod strikes;
mod target;
mod world;

pub use faults::{FaultKind, Moment};
pub use foretold::{Calibration, Score};
pub use memory::NoMemory;
pub use plan::{GuestPlan, LinkPlan, Plan, PlanError, SessionPlan, Span, StallPlan};
pub use run::{Ending, Run, Tally, Tracing, play};
pub use sabotage::Sabotage;
