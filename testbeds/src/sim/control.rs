//! The control link of a simulated migration: real messages as real bytes, in both directions.

use limosa_session::{source, target};
use limosa_wire::{DecodeError, DecodeFault, ENVELOPE_BYTES, Envelope, Message, MessageKind};

use super::faults::{Edge, FaultKind};
use super::link::{Arrival, Lane};
use super::sabotage::Sabotage;
use super::world::{Event, Side, World};

impl World {
    pub(crate) const fn control_lane(&mut self, from: Side) -> &mut Lane {
        match from {
            Side::Source => &mut self.lanes.out,
            Side::Target => &mut self.lanes.back,
        }
    }

    /// A machine sends a message.
    pub(crate) fn send_control(&mut self, from: Side, message: &Message) {
        let kind = message.kind();
        self.note(|| format!("{from:?} sends {kind:?}"));
        self.strike_at(kind, Edge::Leaving);
        if !self.is_alive(from) {
            return;
        }
        if kind == MessageKind::HandOver {
            let holds = self.holds();
            self.checks
                .custody
                .hands_over(holds, &mut self.estate.findings);
            self.runs_here |= self.estate.sabotage == Sabotage::NeverLetsGo;
        }
        if kind == MessageKind::Agreed {
            self.checks.agreement.says();
        }
        let mut bytes = match self.told(from, message).encode() {
            Ok(bytes) => bytes,
            Err(error) => {
                let text = format!("{kind:?} can't be sent: {error}");
                return self
                    .checks
                    .progress
                    .misuse(&text, &mut self.estate.findings);
            }
        };
        if self.faults.takes(FaultKind::GarbleMessage) {
            flip_bit(&mut bytes, self.estate.rng.number());
        }
        if self.faults.takes(FaultKind::RepeatMessage) {
            self.put_control(from, bytes.clone());
        }
        self.put_control(from, bytes);
        self.strike_at(kind, Edge::Left);
    }

    /// Puts bytes, or the end of the link, on a lane.
    pub(crate) fn put_control(&mut self, from: Side, bytes: Vec<u8>) {
        let now = self.now();
        if let Some(at) = self.control_lane(from).send(now, bytes.len()) {
            let event = Event::ControlArrives(from.other(), bytes);
            self.estate.agenda.at(at, event);
        }
    }

    pub(crate) fn control_arrives(&mut self, to: Side, bytes: Vec<u8>) {
        let now = self.now();
        match self.control_lane(to.other()).arrive(now) {
            Arrival::Never => return,
            Arrival::At(later) => {
                return self
                    .estate
                    .agenda
                    .at(later, Event::ControlArrives(to, bytes));
            }
            Arrival::Now => {}
        }
        if bytes.is_empty() {
            return self.lose_control(to);
        }
        if !self.is_active(to) {
            return;
        }
        match decode(&bytes) {
            Ok(message) => self.hear(to, message),
            Err(error) if to == Side::Source => self.tell_source(source::Input::Garbage(error)),
            Err(error) => self.tell_target(target::Input::Garbage(error)),
        }
    }

    fn hear(&mut self, at: Side, message: Message) {
        let kind = message.kind();
        self.strike_at(kind, Edge::Arriving);
        if !self.is_active(at) {
            return;
        }
        match (at, kind) {
            (Side::Target, MessageKind::Agreed) => self.checks.agreement.hears(),
            (Side::Target, MessageKind::HandOver) => self.checks.custody.hand_over_arrives(),
            (Side::Source, MessageKind::Running) => self.checks.custody.hears_running(),
            _ => {}
        }
        match at {
            Side::Source => self.tell_source(source::Input::Message(message)),
            Side::Target => {
                self.overhear(&message);
                self.tell_target(target::Input::Message(message));
            }
        }
        self.strike_at(kind, Edge::Handled);
    }

    pub(crate) fn lose_control(&mut self, side: Side) {
        let text = "the control link ended".to_owned();
        match side {
            Side::Source => self.tell_source(source::Input::ControlLost(text)),
            Side::Target => self.tell_target(target::Input::ControlLost(text)),
        }
    }

    pub(crate) const fn is_alive(&self, side: Side) -> bool {
        match side {
            Side::Source => self.source.is_alive,
            Side::Target => self.target.is_alive,
        }
    }

    pub(crate) const fn is_active(&self, side: Side) -> bool {
        match side {
            Side::Source => self.source.is_active(),
            Side::Target => self.target.is_active(),
        }
    }

    /// A side closes its links: what it has sent still arrives, and then the end.
    pub(crate) fn close_links(&mut self, side: Side) {
        self.put_control(side, Vec::new());
        for stream in 0..self.lanes.pages.len() {
            match side {
                Side::Source => self.put_frame(stream, Vec::new()),
                Side::Target => {
                    let wait = self.some_time(5000);
                    self.after(wait, Event::StreamBreaks(Side::Source, stream));
                }
            }
        }
    }
}

/// Flips the bit that `number` chooses.
pub(crate) fn flip_bit(bytes: &mut [u8], number: u64) {
    let bit = number.checked_rem(bytes.len() as u64 * 8).unwrap_or(0);
    if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
        *byte ^= 1 << (bit % 8);
    }
}

fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let Some((envelope, body)) = bytes.split_first_chunk::<ENVELOPE_BYTES>() else {
        let what = DecodeFault::Checksum { of: "envelope" };
        return Err(DecodeError { what, offset: 0 });
    };
    let envelope = Envelope::decode(envelope)?;
    Message::decode(&envelope, body)
}
