//! The rooms of the target in order, wired: the session's actions become work, and results inputs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use limosa_pipeline::Ledger;
use limosa_transport::PageLink;
use limosa_wire::{EncodingSet, MigrationId, Offer, Round, StateSection};

use crate::control::Control;
use crate::error::Cause;
use crate::guest::{TargetGuest, TargetHost};
use crate::landing::{Landing, LandingNews, LandingPlan};
use crate::report::TargetReport;
use crate::switchover::{Marks, TargetMark as Mark};
use crate::urgency::ComesFirst;

/// How long the last round may keep others from their processors.
const HURRY_MAX: Duration = Duration::from_millis(50);

/// Everything that a migration holds on the target. The driver owns the session; this does its
/// work.
pub(crate) struct TargetRooms<'a, H: TargetHost> {
    /// None once the host is being looked at again.
    pub(crate) host: Option<&'a mut H>,
    pub(crate) guest: Option<H::Guest>,
    pub(crate) control: Option<Control>,
    pub(crate) report: TargetReport,
    pub(crate) clock: Marks<Mark>,
    news: Sender<LandingNews>,
    landing: Option<Landing>,
    first: Option<ComesFirst>,
    ledger: Option<Arc<Ledger>>,
}

impl<'a, H: TargetHost> TargetRooms<'a, H> {
    /// Empty rooms for one migration.
    pub(crate) fn new(host: &'a mut H, news: Sender<LandingNews>) -> Self {
        Self {
            host: Some(host),
            guest: None,
            control: None,
            report: TargetReport::default(),
            clock: Marks::default(),
            news,
            landing: None,
            first: None,
            ledger: None,
        }
    }

    /// The guest is about to stand still at the source: what it then waits for comes first.
    pub(crate) fn hurry(&mut self) {
        self.clock.mark(Mark::Announced);
        self.first = Some(ComesFirst::here());
        if let Some(landing) = &self.landing {
            landing.hurry();
        }
    }

    /// Calms the streams where the last round turned out to be long: nobody else would get a
    /// processor beside them.
    pub(crate) fn calm_if_long(&mut self) {
        let announced = self.clock.at(Mark::Announced);
        let is_long = announced.is_some_and(|at| at.elapsed() > HURRY_MAX);
        if let Some(landing) = self.landing.as_ref().filter(|_| is_long) {
            landing.calm();
        }
    }

    /// Makes the machine, its vCPUs and its unpopulated memory, and lets the source hear meanwhile,
    /// every so often, that this side is still here.
    pub(crate) fn prepare(&mut self, offer: &Offer, every: Duration) -> Result<(), Cause> {
        let Some(host) = &mut self.host else {
            return Err(Cause::Host("it is being looked at".into()));
        };
        let mut prepare = || host.prepare(offer);
        let begun = Instant::now();
        let guest = match &mut self.control {
            Some(control) => control.alive_during(every, prepare),
            None => prepare(),
        };
        self.report.prepare = begun.elapsed();
        self.guest = Some(guest?);
        Ok(())
    }

    /// Gives each bound stream a thread that lands pages.
    pub(crate) fn land(
        &mut self,
        links: Vec<PageLink>,
        migration_id: MigrationId,
        encodings: EncodingSet,
    ) -> Result<(), Cause> {
        let memory = self.guest()?.memory();
        let ledger = Arc::new(Ledger::new(memory.map(), links.len() as u16));
        let plan = LandingPlan {
            memory,
            ledger: Arc::clone(&ledger),
            migration_id,
            encodings,
        };
        self.report.stream_count = links.len() as u16;
        let landing = Landing::start(links, &plan, &self.news)?;
        self.report.overhead_bytes = landing.overhead_bytes() + ledger.overhead_bytes() as u64;
        self.landing = Some(landing);
        self.ledger = Some(ledger);
        Ok(())
    }

    /// What the target itself counted of a round that has landed.
    pub(crate) fn counted(&self, round: Round) -> Option<(Vec<u64>, u64)> {
        let totals = self.ledger.as_ref()?.landed(round)?;
        Some((totals.frame_counts, totals.pages.total()))
    }

    /// Holds the source's totals of a round against what landed.
    pub(crate) fn confirm(&self, round: Round, frames: &[u64], pages: u64) -> Result<(), String> {
        let ledger = self.ledger.as_ref().ok_or("no pages were expected")?;
        ledger
            .confirm(round, frames, pages)
            .map_err(|gap| gap.to_string())
    }

    /// May the guest run on the memory that is here?
    pub(crate) fn check_ledger(&mut self) -> Result<(), String> {
        let ledger = self.ledger.as_ref().ok_or("no pages were expected")?;
        // Whatever comes from here on is placed no more: the guest is to run on what is checked.
        ledger.close();
        // It has grown with what arrived.
        let buffers_bytes = self.landing.as_ref().map_or(0, Landing::overhead_bytes);
        self.report.overhead_bytes = buffers_bytes + ledger.overhead_bytes() as u64;
        ledger.complete().map_err(|gap| gap.to_string())?;
        self.clock.mark(Mark::LedgerComplete);
        Ok(())
    }

    /// Puts the state in place.
    pub(crate) fn restore(&mut self, sections: Vec<StateSection>) -> Result<(), Cause> {
        self.guest()?.restore_state(sections)?;
        self.clock.mark(Mark::Restored);
        Ok(())
    }

    /// Lets the guest run.
    pub(crate) fn resume(&mut self) -> Result<(), Cause> {
        // The guest's first steps are not to wait for what only tidies up.
        if let Some(landing) = &self.landing {
            landing.calm();
        }
        self.guest()?.resume()?;
        self.clock.mark(Mark::Resumed);
        self.first = None;
        Ok(())
    }

    /// Ends page streams and control link, and waits for their threads.
    pub(crate) fn close(&mut self) {
        self.landing = None;
        self.control = None;
    }

    /// The guest is not to run here: its memory is given back.
    pub(crate) fn drop_guest(&mut self) {
        self.landing = None;
        self.ledger = None;
        self.guest = None;
    }

    fn guest(&mut self) -> Result<&mut H::Guest, Cause> {
        self.guest
            .as_mut()
            .ok_or_else(|| Cause::Host("no guest was prepared".into()))
    }
}
