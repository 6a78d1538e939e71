//! Moves a running guest from one host to another at the speed of memory: the public door, and the
//! place where session, pipeline and transport meet. It names no hypervisor.
//!
//! An embedder has a guest: it implements [`SourceGuest`] for it, and [`TargetHost`] for a host
//! that takes guests in. Then [`migrate_out`] on one host and [`migrate_in`] on the other move it.
//!
//! ```no_run
//! use limosa::{CancelToken, LinkConfig, Listener, MigrationConfig, migrate_in, migrate_out};
//! # fn source<G: limosa::SourceGuest>(mut guest: G) -> Result<(), Box<dyn std::error::Error>> {
//! // On the source: the guest runs, and goes on running here if anything fails.
//! let target = "tcp://192.0.2.7:4646".parse()?;
//! let config = MigrationConfig::default();
//! let report = migrate_out(&mut guest, &target, &config, &CancelToken::new(), &mut ())?;
//! println!("paused for {:?}", report.switchover.total);
//! # Ok(()) }
//! # fn target<H: limosa::TargetHost>(mut host: H) -> Result<(), Box<dyn std::error::Error>> {
//! // On the target: wait for one guest, and let it run.
//! let mut listener = Listener::bind(&"tcp://0.0.0.0:4646".parse()?, &LinkConfig::default())?;
//! let config = MigrationConfig::default();
//! let landed = migrate_in(&mut host, &mut listener, &config, &CancelToken::new(), &mut ())?;
//! let running_guest = landed.guest;
//! # Ok(()) }
//! ```
//!
//! Before the first page both sides judge whether the guest can live on the target, by what the
//! guest was promised and by what the target's host can give, and agree on the guest's processor;
//! at the switchover the target looks at its host once more. Either side can refuse, and then both
//! errors name every reason ([`Cause::is_refusal`]) and the guest runs on at the source. What
//! differs and is forgiven is an [`Event::Warning`], and stands in the reports.
//!
//! The rooms of each role, in order, are in `source.rs` and `target.rs`; the two loops that wait
//! are in `driver_source.rs` and `driver_target.rs`.

mod cancel;
mod config;
mod control;
mod driver_source;
mod driver_target;
mod error;
mod guest;
mod landing;
mod last_word;
mod observe;
mod random;
mod report;
mod sched;
mod sending;
mod source;
mod steering;
mod survey;
mod switchover;
mod target;
mod urgency;

pub use cancel::CancelToken;
pub use config::MigrationConfig;
pub use driver_source::migrate_out;
pub use driver_target::{Landed, migrate_in};
pub use error::{Cause, MigrationError};
pub use guest::{GuestError, SourceGuest, TargetGuest, TargetHost};
pub use observe::{GuestStep, Moment, Observer, Progress, RestStep};
pub use report::{
    Foretold, RoundFigures, SlowedFrom, SourceReport, SwitchoverFigures, TargetReport,
};
pub use steering::Steering;
pub use switchover::{Marks, SourceMark, TargetMark};
pub use urgency::Urgency;

// What an embedder needs of the rooms, so that it depends on one crate.
pub use limosa_dirty::DirtySource;
pub use limosa_pipeline::{Codec, GuestMemory, MemoryError, Staging, UnknownCodec, ZstdLevel};
pub use limosa_session::{
    Band, Custody, Event, Forecast, NotConverging, OnStall, Rehearsal, SessionConfig, SessionError,
    Slowdown, Stage, TargetPolicy, Terms, Warning,
};
pub use limosa_transport::{
    Congestion, Endpoint, EndpointError, IoChoice, LinkConfig, Listener, Splice, TransportError,
};
pub use limosa_wire::{
    EncodingCounts, EncodingSet, Offer, Round, RoundKind, SectionKind, StateSection,
};
