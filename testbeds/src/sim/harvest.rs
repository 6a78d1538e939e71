//! What the source of the world learns between rounds: what was written, what waits for later, and
//! what a pause takes.

use std::time::Duration;

use limosa_pages::{MemoryMap, PageSet};
use limosa_pipeline::{Heat, Held};
use limosa_session::source::Input;
use limosa_session::{FaultKind as LocalKind, Harvest, HoldBack, Rehearsal};

use super::faults::FaultKind;
use super::source::local;
use super::world::World;

/// The harvests of one attempt.
pub(crate) struct Harvests {
    heat: Heat,
    held: Held,
    last: Option<Duration>,
}

impl Harvests {
    pub(crate) fn new(map: &MemoryMap) -> Self {
        Self {
            heat: Heat::new(map),
            held: Held::default(),
            last: None,
        }
    }

    pub(crate) fn hold_back(&mut self, pages: &mut PageSet, hold: HoldBack) {
        self.held = self.heat.hold_back(pages, hold.pages_max, hold.horizon);
    }

    /// `pages` were found at `now`.
    fn found(&mut self, pages: &mut PageSet, now: Duration) -> Harvest {
        let mut held = std::mem::take(&mut self.held);
        // The first one finds all of memory.
        if let Some(last) = self.last.replace(now) {
            self.heat.learn(pages, &held, now.saturating_sub(last));
        }
        let (held_count, held_pages_per_second) = (held.page_count(), held.pages_per_second());
        held.give_back(pages);
        Harvest {
            left: pages.count(),
            held: held_count,
            held_pages_per_second,
        }
    }
}

impl World {
    pub(super) fn harvest(&mut self) -> Input {
        let fails = self.faults.takes(FaultKind::FailHarvest);
        let now = self.now();
        let Some(here) = self.here.as_mut() else {
            return local(LocalKind::Guest, &"there is no guest");
        };
        if fails {
            here.writes.fail_next_harvest();
        }
        let source = &mut self.source;
        match here.dirty.harvest(&mut source.pages) {
            Ok(_) => Input::Harvested(source.harvests.found(&mut source.pages, now)),
            Err(error) => local(LocalKind::Kernel, &error),
        }
    }

    /// The guest stands still for a moment, or can't be paused on trial.
    pub(super) fn rehearse(&mut self) -> Input {
        let pause = self.some_time(400);
        let export = self.some_time(400);
        let can = self.estate.rng.chance(50);
        Input::Rehearsed(can.then_some(Rehearsal { pause, export }))
    }
}
