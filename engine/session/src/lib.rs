//! Decides what a migration does next, without doing any of it. It is not the code that waits,
//! opens sockets, touches pages or knows a hypervisor.
//!
//! # The contract
//!
//! Both sides are sans-IO machines: [`Source`] on the sending host, [`Target`] on the receiving
//! one. A driver gives a machine **one input and the time**, then **drains all its actions** and
//! carries them out in order, then waits for the next input or for [`Source::poll_timeout`],
//! whichever comes first. An action that is work is answered by the input that its documentation
//! names; work that fails is answered by `LocalFailure` instead. Answers may come in any order, and
//! answers that come after the end are taken and forgotten. An answer that nobody asked for is an
//! [`ApiMisuse`], and changes nothing.
//!
//! Work that takes longer than [`SessionConfig::keep_alive_every`] must not keep the driver from
//! giving `Timeout`: the peer would take this side for dead.
//!
//! ```text
//!  source                                       target
//!    │ Hello ──────────────────────────────────► │
//!    │ ◄────────────────────────────────── Hello │
//!    │ Offer ──────────────────────────────────► │ judge; PrepareGuest
//!    │ ◄────────────────────── Verdict::Accepted │
//!    │ judge; Agreed ──────────────────────────► │ AcceptStreams
//!    │ OpenStreams ════════════════════════════► │
//!    │ ◄─────────────────────────── StreamsBound │
//!    │ StartTracking, Harvest                    │
//!    │ RoundStart, StartRound, RoundEnd ═══════► │ ConfirmRound
//!    │ ◄──────────────────────────── RoundLanded │
//!    │ Harvest: another round, or:               │
//!    │ DescribeGuest; RoundStart ──────────────► │ SurveyHost; judge again
//!    │ PauseGuest, Harvest                       │
//!    │ StartRound ‖ ExportState                  │
//!    │ State as soon as it is taken ───────────► │ RestoreState
//!    │ RoundEnd ═══════════════════════════════► │ ConfirmRound, CheckLedger
//!    │ ◄──────────────────────────── RoundLanded │
//!    │ ◄─────────────────────────────── Prepared │
//!    │ HandOver ───────────────────────────────► │ ResumeGuest
//!    │ ◄──────────────────────────────── Running │
//!    │ ReleaseGuest                              │
//! ```
//!
//! # What always holds
//!
//! Nothing moves before both sides have judged the guest's processor and agreed on its digest; the
//! target judges it again, by what its host can give then, before it says that it is prepared. A
//! side that finds the guest unfit ends the session with [`Outcome::Refused`], and so does the peer
//! that it tells every reason. Before `HandOver` every failure, of either side or of the
//! link, leaves the guest running on the source, and a peer that says anything out of turn, twice,
//! or with other totals than were counted ends the session at once, blamed for the exact
//! [`Misdeed`]. After `HandOver` the source never resumes the guest by itself: it awaits `Running`,
//! and without it the outcome is [`Outcome::InTransit`]; and the target lets the guest run,
//! whatever becomes of the source and the link. There are never two running copies. `custody.rs` is
//! the only file that decides who may run the guest, and `tests/custody_model.rs` checks it over
//! every order of events.
//!
//! A session is for one attempt. A retry, and the guest's next migration, begin with new machines
//! and a full round.
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
mod cpu;
mod custody;
mod error;
mod event;
mod forecast;
mod io;
mod judge;
mod outbox;
mod outcome;
mod rates;
mod round;
mod slowdown;
pub mod source;
mod state;
pub mod target;
mod timers;

pub use config::{OnStall, SessionConfig, TargetPolicy, Terms};
pub use custody::Custody;
pub use error::{ApiMisuse, FaultKind, LocalFault, Misdeed, NotConverging, SessionError, Stage};
pub use event::{Event, Warning};
pub use forecast::{Band, Forecast};
pub use outcome::Outcome;
pub use round::{Harvest, HoldBack, Rehearsal, RoundPlan, RoundReport};
pub use slowdown::Slowdown;
pub use source::Source;
pub use target::Target;
pub use timers::Timestamp;
