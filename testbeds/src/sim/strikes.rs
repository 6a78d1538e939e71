//! Faults, carried out. Which ones, and when, is `faults.rs`.

use std::time::Duration;

use limosa_session::{source, target};
use limosa_wire::MessageKind;

use super::faults::{Edge, FaultKind};
use super::world::{Event, Side, World};

/// Does the peer of a side that is gone learn of it?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notice {
    Given,
    None,
}

impl World {
    /// Lets strike what waits for this moment in the life of a message.
    pub(crate) fn strike_at(&mut self, message: MessageKind, edge: Edge) {
        for kind in self.faults.strike_at(message, edge) {
            self.strike(kind);
        }
    }

    pub(crate) fn strike(&mut self, kind: FaultKind) {
        self.note(|| format!("*** {kind:?}"));
        match kind {
            FaultKind::CutControl => self.cut_control(Notice::Given),
            FaultKind::LoseControl => self.cut_control(Notice::None),
            FaultKind::CutStream => return self.cut_stream(),
            FaultKind::CrashSource => self.crash(Side::Source, Notice::Given),
            FaultKind::CrashTarget => self.crash(Side::Target, Notice::Given),
            FaultKind::VanishSource => self.crash(Side::Source, Notice::None),
            FaultKind::VanishTarget => self.crash(Side::Target, Notice::None),
            FaultKind::StallControl => {
                let until = self.some_stall();
                self.lanes.out.stall(until);
                self.lanes.back.stall(until);
            }
            FaultKind::StallStream => {
                let until = self.some_stall();
                let Some(stream) = self.some_stream() else {
                    return;
                };
                self.lanes.pages[stream].stall(until);
            }
            FaultKind::StallAll => {
                let until = self.some_stall();
                let Self { lanes, .. } = self;
                let all = [&mut lanes.out, &mut lanes.back];
                let all = all.into_iter().chain(&mut lanes.pages);
                all.for_each(|lane| lane.stall(until));
            }
            FaultKind::SlowTarget => self.target.slowness = self.estate.rng.within(20, 1000),
            // A machine may be in the middle of its actions: it hears of it afterwards.
            FaultKind::CancelSource => self.after(Duration::ZERO, Event::Cancel(Side::Source)),
            FaultKind::CancelTarget => self.after(Duration::ZERO, Event::Cancel(Side::Target)),
            _ => return self.faults.arm(kind),
        }
        self.faults.happened(kind);
    }

    pub(crate) fn cancel(&mut self, side: Side) {
        match side {
            Side::Source => self.tell_source(source::Input::Cancelled),
            Side::Target => self.tell_target(target::Input::Cancelled),
        }
    }

    fn some_stall(&mut self) -> Duration {
        let longest = self.estate.rng.pick(&[20_000, 300_000, 4_000_000]);
        self.now() + self.some_time(longest.unwrap_or(1))
    }

    fn some_stream(&mut self) -> Option<usize> {
        let count = self.lanes.pages.len() as u64;
        (count > 0).then(|| self.estate.rng.below(count) as usize)
    }

    fn cut_control(&mut self, notice: Notice) {
        self.lanes.out.cut();
        self.lanes.back.cut();
        if notice == Notice::Given {
            for side in [Side::Source, Side::Target] {
                let wait = self.some_time(20_000);
                self.after(wait, Event::ControlBreaks(side));
            }
        }
    }

    fn cut_stream(&mut self) {
        let Some(stream) = self.some_stream() else {
            return;
        };
        self.faults.happened(FaultKind::CutStream);
        self.lanes.pages[stream].cut();
        self.target.half_frames.push(stream);
        for side in [Side::Source, Side::Target] {
            let wait = self.some_time(20_000);
            self.after(wait, Event::StreamBreaks(side, stream));
        }
    }

    fn crash(&mut self, side: Side, notice: Notice) {
        if !self.is_alive(side) {
            return;
        }
        match side {
            Side::Source => {
                self.source.is_alive = false;
                self.runs_here = false;
                self.here = None;
                self.lanes.back.cut();
            }
            Side::Target => {
                self.target.is_alive = false;
                self.runs_there = false;
                self.there = None;
                self.lanes.out.cut();
                self.lanes.pages.iter_mut().for_each(super::link::Lane::cut);
            }
        }
        if notice == Notice::Given {
            self.close_links(side);
        }
    }
}
