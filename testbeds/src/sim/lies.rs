//! What a side says that is not true: of its host, or of the guest's processor. Damage on the way
//! is `control.rs`.

use limosa_wire::{Message, Verdict};

use super::faults::FaultKind;
use super::sabotage::Sabotage;
use super::world::{Side, World};

impl World {
    /// The message as `from` sends it.
    pub(crate) fn told(&mut self, from: Side, message: &Message) -> Message {
        let mut told = message.clone();
        if let (Side::Target, Message::Verdict(Verdict::Accepted { host, .. })) = (from, &mut told)
            && self.faults.takes(FaultKind::AcceptAll)
        {
            self.checks.agreement.host_is_unfit();
            // A source that does not look at it might as well be told another one's.
            if self.estate.sabotage != Sabotage::TrustsVerdict {
                *host = self.processors.other_host.encode();
            }
        }
        let digest = match &mut told {
            Message::Verdict(Verdict::Accepted { cpu_digest, .. }) => Some(cpu_digest),
            Message::Agreed(said) => Some(&mut said.cpu_digest),
            Message::State(said) => Some(&mut said.cpu_digest),
            Message::Prepared(said) => Some(&mut said.cpu_digest),
            _ => None,
        };
        if let Some(digest) = digest
            && self.faults.takes(FaultKind::OtherDigest)
        {
            *digest ^= 1 << self.estate.rng.below(64);
        }
        told
    }
}
