//! What may be set about a migration, grouped by the room that it concerns.

use std::time::Duration;

use limosa_pipeline::{Codec, Staging};
use limosa_session::SessionConfig;
use limosa_transport::ControlLink;
use limosa_transport::LinkConfig;
use limosa_wire::{EncodingSet, PageEncoding};

use crate::steering::Steering;

/// Everything that may be set about a migration. [`Default`] suits a data centre and loopback.
#[derive(Debug, Clone, Default)]
pub struct MigrationConfig {
    /// Budgets, time-outs and policies: see [`SessionConfig`].
    ///
    /// `stream_count` and `encodings` in it are what this side proposes.
    pub session: SessionConfig,
    /// Sockets: see [`LinkConfig`].
    pub link: LinkConfig,
    /// Source only: how pages are encoded. Default [`Codec::None`].
    pub codec: Codec,
    /// Whether raw pages may go straight out of the guest's memory, without a checksum: see
    /// [`Staging`]. Default [`Staging::Auto`]: on links that never leave the host. The target's
    /// setting says what it lets in.
    pub staging: Staging,
    /// Payload of one frame, in bytes; `None` takes the pipeline's default.
    ///
    /// 64 KiB to 1 MiB in whole pages; other values are brought into the range.
    pub frame_payload_bytes: Option<usize>,
    /// Source only: what may be changed while the migration runs. Keep a clone. Default no limits.
    pub steering: Steering,
}

impl MigrationConfig {
    /// The encodings that this side proposes on `link`: without live pages where they must have a
    /// checksum.
    pub(crate) fn encodings_on(&self, link: &ControlLink) -> EncodingSet {
        let may_be_live = match self.staging {
            Staging::Auto => link.is_local(),
            Staging::Always => false,
            Staging::Never => true,
        };
        let encodings = self.session.encodings;
        if may_be_live {
            encodings
        } else {
            encodings.without(PageEncoding::Live)
        }
    }
}

/// How often progress is told to the observer.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_millis(20);

/// What this engine calls itself in a hello.
pub(crate) const AGENT: &str = concat!("limosa/", env!("CARGO_PKG_VERSION"));

/// How quickly a request to cancel is noticed.
pub(crate) const CANCEL_CHECK: Duration = Duration::from_millis(50);
