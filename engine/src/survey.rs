//! A second look at the host about the time of the pause: on a thread of its own, so that pages and
//! state land meanwhile.

use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, never};
use limosa_session::TargetPolicy;

use crate::error::Cause;
use crate::guest::{GuestError, TargetHost};
use crate::urgency::Urgency;

/// What a look has found; none where nobody asked for it.
type Found = Option<Result<TargetPolicy, GuestError>>;

/// A look that is to be, is under way, or none.
pub(crate) struct Survey<'scope> {
    thread: Option<ScopedJoinHandle<'scope, Found>>,
    /// Dropped without a word where nobody is to look.
    go: Option<Sender<()>>,
    urgency: Arc<Urgency>,
    is_over: Receiver<()>,
}

impl<'scope> Survey<'scope> {
    /// Nobody looks.
    pub(crate) fn none() -> Self {
        Self {
            thread: None,
            go: None,
            urgency: Arc::default(),
            is_over: never(),
        }
    }

    /// A thread that is to look at `host`, which is not needed for anything else any more: the
    /// guest was made. It sleeps until [`start`](Self::start): by then the guest may stand still,
    /// and there is no time to make one.
    pub(crate) fn prepared<H: TargetHost>(
        scope: &'scope Scope<'scope, '_>,
        host: &'scope mut H,
    ) -> Result<Self, Cause> {
        let (over, is_over) = bounded::<()>(0);
        let (go, may_go) = bounded::<()>(1);
        let urgency = Arc::new(Urgency::new());
        let own = Arc::clone(&urgency);
        let look = move || {
            // Dropped however the look ends: that is what wakes the driver.
            let _over = over;
            own.adopt();
            may_go.recv().ok().map(|()| host.policy())
        };
        let thread = Builder::new()
            .name("survey".into())
            .spawn_scoped(scope, look)
            .map_err(|error| Cause::Host(format!("no thread to look at the host: {error}")))?;
        Ok(Self {
            thread: Some(thread),
            go: Some(go),
            urgency,
            is_over,
        })
    }

    /// Asks the host what it can give now.
    pub(crate) fn start(&mut self) {
        self.urgency.raise();
        if let Some(go) = self.go.take() {
            // A thread that has ended is heard of by that.
            let _ = go.send(());
        }
    }

    /// Ends, without a message, once [`finish`](Self::finish) need not wait.
    pub(crate) const fn is_over(&self) -> &Receiver<()> {
        &self.is_over
    }

    /// What was found; none where nobody looked.
    pub(crate) fn finish(&mut self) -> Option<Result<TargetPolicy, Cause>> {
        self.is_over = never();
        self.go = None;
        match self.thread.take()?.join() {
            Ok(found) => Some(found?.map_err(Cause::from)),
            Err(_) => Some(Err(Cause::Host(
                "the thread that looks at the host panicked".into(),
            ))),
        }
    }
}
