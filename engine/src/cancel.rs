//! A request to stop a migration, made from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Cloned freely; one request reaches every clone. It can't be taken back.
///
/// Before the hand-over the guest stays with (or goes back to) the source. From the hand-over on a
/// request changes nothing: the migration ends as it would have.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the migration to stop; it notices within 50 ms.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Has anyone asked?
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// The flag itself, for a wait that takes one.
    #[must_use]
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }
}
