//! Ledger: what counts as landed is what was sent. It keeps its own account, frame by frame, beside
//! the real ledger.
//!
//! Checked, when the guest is about to run at the target: on every stream the frames that landed
//! without an error are those that the source's pipeline had sealed, each byte for byte, in their
//! order, none left out, none twice; and the last of them ended a round.
//!
//! Checked, at the end of every attempt: where a frame was lost, repeated, damaged, overtaken, or
//! came from another migration, and landing went on behind it, the target has not completed.
//!
//! **Not checked**: that the right pages were put into frames, and that they were put in the right
//! place: that is the memory checker's. Loss at the very end of a stream with nothing behind it is
//! silence, and not told to this checker.

use super::Findings;
use crate::sim::rng::Digest;

const NAME: &str = "ledger";

/// The checker, for one attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct LedgerChecker {
    sent: Vec<Account>,
    landed: Vec<Account>,
    tampered: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Account {
    frames: u64,
    digest: Digest,
}

impl Account {
    fn add(&mut self, frame: &[u8]) {
        self.frames += 1;
        self.digest.add(frame);
    }
}

impl LedgerChecker {
    /// For so many streams.
    pub(crate) fn new(stream_count: usize) -> Self {
        Self {
            sent: vec![Account::default(); stream_count],
            landed: vec![Account::default(); stream_count],
            tampered: 0,
        }
    }

    /// The source has sealed a frame.
    pub(crate) fn seals(&mut self, stream: usize, frame: &[u8]) {
        if let Some(account) = self.sent.get_mut(stream) {
            account.add(frame);
        }
    }

    /// The target has landed a frame without an error.
    pub(crate) fn lands(&mut self, stream: usize, frame: &[u8]) {
        if let Some(account) = self.landed.get_mut(stream) {
            account.add(frame);
        }
    }

    /// A stream was tampered with on its way.
    pub(crate) const fn tampers(&mut self) {
        self.tampered += 1;
    }

    /// The guest is about to run at the target.
    pub(crate) fn resumes_there(&self, findings: &mut Findings) {
        for (stream, (sent, landed)) in self.sent.iter().zip(&self.landed).enumerate() {
            if sent != landed {
                let (sent, landed) = (sent.frames, landed.frames);
                let text = format!(
                    "stream {stream} landed other frames ({landed}) than were sent ({sent})"
                );
                findings.add(NAME, text);
            }
        }
    }

    /// The attempt has ended, at the target with or without a guest.
    pub(crate) fn end(&self, target_completed: bool, findings: &mut Findings) {
        if target_completed && self.tampered > 0 {
            let text = format!("{} tampered frames were not noticed", self.tampered);
            findings.add(NAME, text);
        }
    }
}
