//! Any message at any time, true or not: neither machine panics, runs the guest out of place, or
//! goes on with a peer that said what it must not. It is seeded, not guided by coverage.

mod common;

use common::fixture::{AMD, AVX2, ID, INTEL, SECRET, cpu, digest, host, offer, table};
use common::{Pair, Plan, round, section};
use limosa_session::Stage;
use limosa_session::source::Action as SourceAction;
use limosa_session::target::Action as TargetAction;
use limosa_wire::{
    Abort, AbortReason, Agreed, EncodingSet, HandOver, Hello, KeepAlive, Message, MigrationId,
    Prepared, ProtocolVersion, Reason, ReasonKind, Refuse, RoundEnd, RoundKind, RoundLanded,
    RoundStart, Running, State, StateSection, StreamsBound, Verdict, VersionRange,
};

/// The generator xorshift64*: the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.roll() as usize % all.len()].clone()
    }

    fn digest(&mut self) -> u64 {
        let other = self.roll();
        self.one_of(&[digest(), digest(), 0, other])
    }

    /// A host's description, whole or damaged.
    fn host(&mut self) -> Vec<u8> {
        let (vendor, bits) = (self.one_of(&[INTEL, AMD]), self.one_of(&[AVX2, 0]));
        let mut bytes = host(vendor, bits).encode();
        match self.roll() % 4 {
            0 => {
                let at = self.roll() as usize % bytes.len();
                bytes[at] ^= 1 << (self.roll() % 8);
            }
            1 => bytes.truncate(self.roll() as usize % bytes.len()),
            _ => {}
        }
        bytes
    }

    fn reasons(&mut self) -> Vec<Reason> {
        let reason = Reason {
            kind: self.one_of(ReasonKind::ALL),
            what: "it is so".into(),
            remedy: String::new(),
        };
        vec![reason; self.roll() as usize % 3]
    }

    fn state(&mut self) -> State {
        let name = self.one_of(&["cpu", "disk"]);
        let bytes = vec![0; self.roll() as usize % 9];
        let kind = section(name, self.one_of(&[1, 2]));
        let cpu_digest = self.digest();
        let sections = vec![StateSection { kind, bytes }; self.roll() as usize % 3];
        State {
            cpu_digest,
            sections,
        }
    }

    fn handshake(&mut self) -> Message {
        let newest = ProtocolVersion::new(self.one_of(&[1, 2, 9]));
        let oldest = ProtocolVersion::new(self.one_of(&[0, 1])).min(newest);
        match self.roll() % 6 {
            0 => Message::Hello(Hello {
                versions: VersionRange { oldest, newest },
                migration_id: self.one_of(&[ID, MigrationId::new([1; 16])]),
                agent: "any".into(),
            }),
            1 => {
                let mut offer = offer();
                offer.cpu = self.one_of(&[offer.cpu.clone(), vec![], cpu(table(AMD, 0), 9)]);
                offer.stream_count = self.one_of(&[1, 2, 64]);
                Message::Offer(offer)
            }
            2 => Message::Verdict(Verdict::Refused {
                reasons: self.reasons(),
            }),
            3 => Message::Agreed(Agreed {
                cpu_digest: self.digest(),
            }),
            4 => Message::Refuse(Refuse {
                reasons: self.reasons(),
            }),
            _ => Message::Verdict(Verdict::Accepted {
                stream_count: self.one_of(&[1, 2, 3]),
                encodings: self.one_of(&[EncodingSet::ALL, EncodingSet::EMPTY]),
                secret: SECRET,
                host: self.host(),
                cpu_digest: self.digest(),
            }),
        }
    }

    fn message(&mut self) -> Message {
        let (number, pages) = (self.one_of(&[0, 1, 2, 7]), self.one_of(&[0, 7, 2048]));
        let round = round(number);
        match self.roll() % 18 {
            0 => Message::StreamsBound(StreamsBound {
                stream_count: self.one_of(&[1, 2, 3]),
            }),
            1 | 2 => Message::RoundStart(RoundStart {
                round,
                kind: self.one_of(RoundKind::ALL),
            }),
            3 | 4 => Message::RoundEnd(RoundEnd {
                round,
                frames: vec![10; self.roll() as usize % 4],
                pages,
            }),
            5 => Message::RoundLanded(RoundLanded { round, pages }),
            6 => Message::State(self.state()),
            7 => Message::Prepared(Prepared {
                cpu_digest: self.digest(),
            }),
            8 => Message::HandOver(HandOver {}),
            9 => Message::Running(Running {}),
            10 => Message::Abort(Abort {
                reason: self.one_of(AbortReason::ALL),
                text: "enough".into(),
            }),
            11 => Message::KeepAlive(KeepAlive { sequence: 1 }),
            _ => self.handshake(),
        }
    }
}

/// Pages go only between sides that have agreed on one digest: each by its own word.
fn check_agreement(pair: &Pair) {
    let at = |which: fn(&SourceAction) -> bool| pair.source_did.iter().position(which);
    let opens = at(|action| matches!(action, SourceAction::OpenStreams { .. }));
    let agrees = at(|action| match action {
        SourceAction::Send(Message::Agreed(said)) => said.cpu_digest == digest(),
        _ => false,
    });
    assert!(opens.is_none() || agrees < opens && agrees.is_some());
    let did = |which: fn(&TargetAction) -> bool| pair.target_did.iter().any(which);
    let lets_in = did(|action| matches!(action, TargetAction::AcceptStreams { .. }));
    let accepts = did(|action| {
        matches!(
            action,
            TargetAction::Send(Message::Verdict(Verdict::Accepted { .. }))
        )
    });
    assert!(!lets_in || accepts);
}

#[test]
fn any_message_at_any_time_is_survived() {
    let mut dice = Dice(0x11_05a);
    let (mut told, mut moved) = (0, 0);
    for seed in 0..20_000 {
        let mut plan = Plan::with_seed(seed % 50);
        plan.dirty = vec![200_000];
        let mut pair = Pair::new(&plan);
        let lies = 1 + dice.roll() % 3;
        for _ in 0..lies {
            let steps = dice.roll() % 30;
            for _ in 0..steps {
                pair.step();
            }
            let message = dice.message();
            told += 1;
            match dice.roll() % 2 {
                0 if pair.source.stage() != Stage::Finished => {
                    pair.tell_source(message);
                }
                1 if pair.target.stage() != Stage::Finished => {
                    // Custody is the word of a source that has it, and no lie.
                    if matches!(message, Message::HandOver(_)) && !pair.given_away {
                        continue;
                    }
                    pair.tell_target(message);
                }
                _ => {}
            }
            check_agreement(&pair);
        }
        pair.settle();
        check_agreement(&pair);
        moved += u64::from(pair.target_runs);
    }
    assert!(told > 20_000 && moved > 500, "{told} told, {moved} moved");
}
