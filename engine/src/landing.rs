//! The target's page streams: one thread each, from the socket into guest memory.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::Sender;
use limosa_pipeline::{FrameSource, GuestMemory, LandError, Landed, Lander, Ledger};
use limosa_transport::{PageLink, PageReceiver, StopHandle, TransportError};
use limosa_wire::{EncodingSet, MigrationId, Round, StreamIndex};
use vm_memory::VolatileSlice;

use crate::error::Cause;
use crate::last_word::LastWord;
use crate::urgency::Urgency;

/// What a stream's thread tells the driver.
pub(crate) enum LandingNews {
    /// The last stream has passed the barrier of a round, and when.
    RoundLanded(Round, Instant),
    /// The stream is of no more use.
    Failed { stream: StreamIndex, cause: Cause },
}

/// All page streams of a target. Dropping it stops them and waits for their threads: afterwards
/// nobody writes guest memory.
pub(crate) struct Landing {
    threads: Vec<JoinHandle<()>>,
    stops: Vec<StopHandle>,
    urgencies: Vec<Arc<Urgency>>,
    overhead_bytes: u64,
}

/// What every stream shares.
pub(crate) struct LandingPlan {
    pub(crate) memory: Arc<dyn GuestMemory>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) migration_id: MigrationId,
    pub(crate) encodings: EncodingSet,
}

impl Landing {
    /// Starts a thread for each of `links`.
    pub(crate) fn start(
        links: Vec<PageLink>,
        plan: &LandingPlan,
        news: &Sender<LandingNews>,
    ) -> Result<Self, Cause> {
        let mut landing = Self {
            threads: Vec::new(),
            stops: links.iter().map(PageLink::stop_handle).collect(),
            urgencies: Vec::new(),
            overhead_bytes: 0,
        };
        for link in links {
            let lander = Lander::new(
                Arc::clone(&plan.memory),
                Arc::clone(&plan.ledger),
                plan.migration_id,
                link.stream(),
                plan.encodings,
            );
            landing.overhead_bytes += lander.overhead_bytes() as u64;
            let news = news.clone();
            let urgency = Arc::new(Urgency::new());
            landing.urgencies.push(Arc::clone(&urgency));
            let thread = std::thread::Builder::new()
                .name(format!("page-in-{}", link.stream()))
                .spawn(move || {
                    urgency.adopt();
                    land_all(link, lander, &news);
                })
                .map_err(|error| Cause::Host(format!("no thread for a page stream: {error}")))?;
            landing.threads.push(thread);
        }
        Ok(landing)
    }

    /// Lets the streams' threads come first: the guest is about to stand still.
    pub(crate) fn hurry(&self) {
        self.urgencies.iter().for_each(|urgency| urgency.raise());
    }

    /// Lets them take their turns again.
    pub(crate) fn calm(&self) {
        self.urgencies.iter().for_each(|urgency| urgency.lower());
    }

    /// What the streams' buffers take; the ledger is counted apart.
    pub(crate) fn overhead_bytes(&self) -> u64 {
        self.overhead_bytes
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        for stop in &self.stops {
            stop.stop();
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to say here.
            let _ = thread.join();
        }
    }
}

/// What ends a stream.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error(transparent)]
    Land(#[from] LandError),
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A receiver in the middle of one frame.
struct Frame<'a> {
    receiver: &'a mut dyn PageReceiver,
    /// Between frames a stream may be silent or end; inside one it may not.
    begun: bool,
}

impl FrameSource for Frame<'_> {
    type Error = StreamEnd;

    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), StreamEnd> {
        if std::mem::replace(&mut self.begun, true) {
            self.receiver.recv_exact(into)?;
        } else {
            self.receiver.recv_header(into)?;
        }
        Ok(())
    }

    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), StreamEnd> {
        Ok(self.receiver.recv_into(landing)?)
    }
}

fn land_all(link: PageLink, mut lander: Lander, news: &Sender<LandingNews>) {
    let stream = link.stream();
    let _last_word = LastWord::new(news.clone(), move |cause| LandingNews::Failed {
        stream,
        cause,
    });
    let end = match link.into_receiver() {
        Ok(mut receiver) => loop {
            match lander.land(&mut Frame {
                receiver: &mut *receiver,
                begun: false,
            }) {
                Ok(Landed::Barrier {
                    round,
                    complete: true,
                }) => {
                    // The driver may have gone; then nobody waits for the round.
                    let _ = news.send(LandingNews::RoundLanded(round, Instant::now()));
                }
                Ok(_) => {}
                Err(end) => break end,
            }
        },
        Err(error) => error.into(),
    };
    let cause = match end {
        StreamEnd::Land(error) => error.into(),
        StreamEnd::Transport(error) => error.into(),
    };
    let _ = news.send(LandingNews::Failed { stream, cause });
}
