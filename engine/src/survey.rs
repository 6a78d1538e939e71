//! A second look at the host about the time of the pause: on a thread of its own, so that pages and
//! state land meanwhile.

use std::thread::{Builder, Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, bounded, never};
use limosa_session::TargetPolicy;

use crate::error::Cause;
use crate::guest::{GuestError, TargetHost};

/// A look that is under way, or none yet.
pub(crate) struct Survey<'scope> {
    thread: Option<ScopedJoinHandle<'scope, Result<TargetPolicy, GuestError>>>,
    is_over: Receiver<()>,
}

impl<'scope> Survey<'scope> {
    /// Nobody looks.
    pub(crate) fn none() -> Self {
        Self {
            thread: None,
            is_over: never(),
        }
    }

    /// Asks `host` what it can give now. The host is not needed for anything else any more: the
    /// guest was made long ago.
    pub(crate) fn start<H: TargetHost>(
        scope: &'scope Scope<'scope, '_>,
        host: &'scope mut H,
    ) -> Result<Self, Cause> {
        let (over, is_over) = bounded::<()>(0);
        let look = move || {
            // Dropped however the look ends: that is what wakes the driver.
            let _over = over;
            host.policy()
        };
        let thread = Builder::new()
            .name("survey".into())
            .spawn_scoped(scope, look)
            .map_err(|error| Cause::Host(format!("no thread to look at the host: {error}")))?;
        Ok(Self {
            thread: Some(thread),
            is_over,
        })
    }

    /// Ends, without a message, once [`finish`](Self::finish) need not wait.
    pub(crate) const fn is_over(&self) -> &Receiver<()> {
        &self.is_over
    }

    /// What was found; none where nobody looked.
    pub(crate) fn finish(&mut self) -> Option<Result<TargetPolicy, Cause>> {
        self.is_over = never();
        let found = self.thread.take()?.join();
        Some(match found {
            Ok(found) => found.map_err(Cause::from),
            Err(_) => Err(Cause::Host(
                "the thread that looks at the host panicked".into(),
            )),
        })
    }
}
