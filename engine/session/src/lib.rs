//! Decides what a migration does next, without doing any of it. It is not the code that waits,
//! opens sockets, touches pages or knows a hypervisor.
//!
//! # The contract
//!
//! Both sides are sans-IO machines: [`Source`] on the sending host, [`Target`] on the receiving
//! one. A driver gives a machine **one input and the time**, then **drains all its actions** and
//! carries them out in order, then waits for the next input or for [`Source::poll_timeout`],
//! whichever comes first. An action that is work is answered by the input that its documentation
//! names; work that fails is answered by `LocalFailure` instead.
//!
//! ```text
//!  source                                     target
//!    │ Hello ────────────────────────────────► │
//!    │ ◄──────────────────────────────── Hello │
//!    │ Offer ────────────────────────────────► │ judge; PrepareGuest
//!    │ ◄────────────────────── Verdict::Accepted │ AcceptStreams
//!    │ OpenStreams ══════════════════════════► │
//!    │ ◄───────────────────────── StreamsBound │
//!    │ StartTracking, Harvest                  │
//!    │ RoundStart, StartRound, RoundEnd ═════► │ RoundLanded
//!    │ ◄────────────────────────── RoundLanded │
//!    │ Harvest: another round, or:             │
//!    │ PauseGuest, Harvest                     │
//!    │ RoundStart, StartRound ‖ ExportState    │
//!    │ RoundEnd, State ══════════════════════► │ RestoreState, CheckLedger
//!    │ ◄────────────────────────────── Prepared │
//!    │ HandOver ─────────────────────────────► │ ResumeGuest
//!    │ ◄─────────────────────────────── Running │
//! ```
//!
//! # What always holds
//!
//! Nothing moves before the verdict. Before `HandOver` every failure, of either side or of the
//! link, leaves the guest running on the source. After it the source never resumes the guest by
//! itself: the outcome is [`Outcome::InTransit`]. There are never two running copies; `custody.rs`
//! is the only place that decides who may run the guest.
//!
//! # Example
//!
//! ```
//! use core::time::Duration;
//! use limosa_session::{SessionConfig, Source, Timestamp, source::Action};
//! # use limosa_pages::{MemoryMap, PageIndex, PageRange};
//! # use limosa_wire::{EncodingSet, Message, MigrationId, Offer};
//! # let range = PageRange::new(PageIndex::new(0), PageIndex::new(512)).ok_or("range")?;
//! # let offer = Offer {
//! #     cpu: vec![], map: MemoryMap::new(vec![range])?, vcpu_count: 1, sections: vec![],
//! #     stream_count: 1, encodings: EncodingSet::ALL, machine: "kvm-x86".into(),
//! # };
//! let start = Timestamp::new(Duration::ZERO);
//! let id = MigrationId::new([7; 16]);
//! let mut source = Source::new(SessionConfig::default(), id, offer, "example".into(), start);
//! assert!(matches!(source.poll_action(), Some(Action::Send(Message::Hello(_)))));
//! assert!(source.poll_action().is_none());
//! assert!(source.poll_timeout().is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod convergence;
mod custody;
mod error;
mod event;
mod io;
mod judge;
mod outbox;
mod outcome;
mod round;
pub mod source;
mod state;
pub mod target;
mod timers;

pub use config::{OnStall, SessionConfig, TargetPolicy};
pub use custody::Custody;
pub use error::{ApiMisuse, FaultKind, LocalFault, Misdeed, NotConverging, SessionError, Stage};
pub use event::Event;
pub use outcome::Outcome;
pub use round::{RoundPlan, RoundReport};
pub use source::Source;
pub use target::Target;
pub use timers::Timestamp;
