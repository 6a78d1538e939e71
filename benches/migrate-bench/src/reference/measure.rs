//! One carriage of bytes on bare sockets, between two processes that are started for it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;

use crate::child::Worker;
use crate::link::{End, Link};
use crate::protocol::{Answer, Order};
use crate::reference::{SocketSettings, Speeds};
use crate::report::{MemorySpeeds, Spread};
use crate::warm::WarmMemory;

/// Longest time for one step, on links that are not shaped.
const STEP_MAX: Duration = Duration::from_secs(120);
/// Slowest that a shaped link may be against its rate.
const SLOWER_MAX: u32 = 4;

/// What is carried, and how.
#[derive(Debug, Clone)]
pub(crate) struct Carriage {
    pub(crate) streams: u16,
    pub(crate) bytes: u64,
    pub(crate) backing: String,
    /// Whether the receiving memory is populated before anybody can connect.
    pub(crate) populate: bool,
    pub(crate) settings: SocketSettings,
}

/// What memory could do, run by run.
#[derive(Debug, Default)]
pub(crate) struct SpeedSamples(Vec<Speeds>);

impl SpeedSamples {
    /// The spread of each; none of no runs.
    pub(crate) fn spread(&self) -> Option<MemorySpeeds> {
        let spread = |speed: fn(&Speeds) -> f64| Spread::of(self.0.iter().map(speed));
        Some(MemorySpeeds {
            memcpy_one_gib_s: spread(|speeds| speeds.memcpy_one)?,
            memcpy_all_gib_s: spread(|speeds| speeds.memcpy_all)?,
            read_one_gib_s: spread(|speeds| speeds.read_one)?,
            read_all_gib_s: spread(|speeds| speeds.read_all)?,
        })
    }
}

impl Carriage {
    /// Carries everything from `source` to `target`, which listens at `endpoint`, and returns the
    /// milliseconds from the first connect until the target has all of it; then measures memory
    /// for `speeds`, where that is wanted.
    ///
    /// # Errors
    /// What either process could not do, and interruption.
    pub(crate) fn carry(
        &self,
        link: &mut Link,
        (mut source, mut target): (Worker, Worker),
        endpoint: String,
        interrupted: &AtomicBool,
        speeds: Option<&mut SpeedSamples>,
    ) -> Result<f64> {
        let (streams, bytes) = (self.streams, self.bytes);
        source.order(&Order::Fill {
            bytes,
            backing: self.backing.clone(),
        })?;
        source.wait_unless(interrupted, "memory", STEP_MAX, |answer| {
            matches!(answer, Answer::Ready { .. }).then_some(())
        })?;
        let mut warm = WarmMemory::new(bytes);
        warm.settle();
        if self.populate {
            warm.release_ahead_of(target.id());
        }
        target.order(&Order::Sink {
            endpoint,
            streams,
            bytes,
            backing: self.backing.clone(),
            populate: self.populate,
            settings: self.settings.clone(),
        })?;
        let endpoint =
            target.wait_unless(interrupted, "address", STEP_MAX, |answer| match answer {
                Answer::Listening { endpoint } => Some(endpoint),
                _ => None,
            })?;
        let endpoint = link.way_to(&endpoint)?;
        if !self.populate {
            warm.release_ahead_of(target.id());
        }
        source.order(&Order::Blast {
            endpoint,
            streams,
            settings: self.settings.clone(),
        })?;
        let longest = STEP_MAX + link.time_for(bytes) * SLOWER_MAX;
        let ms = source.wait_unless(interrupted, "reference", longest, |answer| match answer {
            Answer::Blasted { ms } => Some(ms),
            _ => None,
        })?;
        drop((warm, target));
        if let Some(samples) = speeds {
            source.order(&Order::Speeds)?;
            let found =
                source.wait_unless(interrupted, "speeds", STEP_MAX, |answer| match answer {
                    Answer::Speeds { speeds } => Some(speeds),
                    _ => None,
                })?;
            samples.0.push(found);
        }
        Ok(ms)
    }

    /// Starts the two processes, at the ends of `link`.
    ///
    /// # Errors
    /// When a process can't be started.
    pub(crate) fn workers(link: &Link, threads: Option<u16>) -> Result<(Worker, Worker)> {
        Ok((
            Worker::start("reference source", link.place(End::Source), threads)?,
            Worker::start("reference target", link.place(End::Target), threads)?,
        ))
    }
}
