//! What a source says or sends that it must not: the target blames it for the exact deed, and drops
//! the guest unless it has taken it.

mod common;

use common::blame::{before_target_hears, blamed, end, misdeed_of, start, within};
use common::fixture::digest;
use common::{Pair, Plan, Wire, round, section};
use limosa_session::target::{Action as TargetAction, Input as TargetInput};
use limosa_session::{Custody, Misdeed, Stage};
use limosa_wire::{
    Agreed, HandOver, Hello, Message, MessageKind, Offer, Prepared, Refuse, RoundKind, RoundLanded,
    Running, State, StateSection, StreamsBound, Verdict, VersionRange,
};

fn state_of(names: &[&str]) -> Message {
    let section = |name: &&str| StateSection {
        kind: section(name, 1),
        bytes: vec![],
    };
    let sections = names.iter().map(section).collect();
    let cpu_digest = digest();
    Message::State(State {
        cpu_digest,
        sections,
    })
}

fn prepared() -> Message {
    let cpu_digest = digest();
    Message::Prepared(Prepared { cpu_digest })
}

/// Has the target accepted, and not heard what the source makes of its host?
fn awaits_judgement(pair: &Pair) -> bool {
    let accepted = |action: &TargetAction| {
        matches!(
            action,
            TargetAction::Send(Message::Verdict(Verdict::Accepted { .. }))
        )
    };
    let lets_in = |action: &TargetAction| matches!(action, TargetAction::AcceptStreams { .. });
    pair.target_did.iter().any(accepted) && !pair.target_did.iter().any(lets_in)
}

fn every_message() -> Vec<Message> {
    let offer: Offer = common::fixture::offer();
    vec![
        Message::Hello(Hello {
            versions: VersionRange::SUPPORTED,
            migration_id: common::fixture::ID,
            agent: "source".into(),
        }),
        Message::Offer(offer),
        Message::Verdict(Verdict::Refused { reasons: vec![] }),
        Message::StreamsBound(StreamsBound { stream_count: 2 }),
        start(9, RoundKind::Live),
        end(9, &[1, 1], 1),
        Message::RoundLanded(RoundLanded {
            round: round(0),
            pages: 1,
        }),
        state_of(&["cpu"]),
        prepared(),
        Message::Agreed(Agreed {
            cpu_digest: digest(),
        }),
        Message::Refuse(Refuse { reasons: vec![] }),
        Message::HandOver(HandOver {}),
        Message::Running(Running {}),
    ]
}

/// After every step nearly all messages are out of place; none of them brings custody.
#[test]
fn messages_out_of_place_are_blamed_after_every_step() {
    let mut blames = 0;
    for steps in 0.. {
        let reached = || {
            let mut pair = Pair::new(&Plan::default());
            let went = (0..steps).take_while(|_| pair.step()).count();
            (went == steps && ![Stage::HandOver, Stage::Finished].contains(&pair.target.stage()))
                .then_some(pair)
        };
        if reached().is_none() {
            break;
        }
        for lie in every_message() {
            let Some(mut pair) = reached() else { break };
            let (kind, due) = (lie.kind(), |wire: &Wire| match wire {
                Wire::Said(said) => said.kind() == lie.kind(),
                Wire::Closed => false,
            });
            // What is due is told in other tests, with wrong content.
            if pair.to_target.iter().any(due) || kind == MessageKind::State {
                continue;
            }
            let awaits = pair.target_did.contains(&TargetAction::Send(prepared()));
            if kind == MessageKind::HandOver && awaits {
                continue;
            }
            let judgements = [MessageKind::Agreed, MessageKind::Refuse].contains(&kind);
            if judgements && awaits_judgement(&pair) {
                continue;
            }
            let hellos = [MessageKind::Hello, MessageKind::Offer].contains(&kind);
            if hellos && pair.target.stage() == Stage::Handshake {
                continue;
            }
            pair.to_target.clear();
            pair.tell_target(lie.clone());
            assert_ne!(pair.target.custody(), Custody::Target);
            let misdeed = misdeed_of(&pair);
            let exact = match misdeed {
                Misdeed::OutOfPlace { message, .. } => *message == kind,
                Misdeed::WrongRound { .. } => {
                    [MessageKind::RoundStart, MessageKind::RoundEnd].contains(&kind)
                }
                Misdeed::AfterLastRound => kind == MessageKind::RoundStart,
                _ => false,
            };
            assert!(exact, "{misdeed} for {kind:?}");
            pair.settle();
            pair.check_end();
            blames += 1;
        }
    }
    assert!(blames > 100, "{blames}");
}

#[test]
fn a_round_out_of_turn() {
    let before_start = || before_target_hears(|said| matches!(said, Message::RoundStart(_)));
    let wrong = |found: u32| Misdeed::WrongRound {
        expected: round(0),
        found: round(found),
    };
    blamed(before_start(), start(1, RoundKind::Live), &wrong(1));
    blamed(before_start(), start(7, RoundKind::Full), &wrong(7));
    let kinds = [RoundKind::Live, RoundKind::Final];
    for kind in kinds {
        let round = round(0);
        let misdeed = Misdeed::WrongRoundKind { round, kind };
        blamed(before_start(), start(0, kind), &misdeed);
    }
    let second = before_target_hears(
        |said| matches!(said, Message::RoundStart(start) if start.round.get() == 1),
    );
    let (round, kind) = (round(1), RoundKind::Full);
    let misdeed = Misdeed::WrongRoundKind { round, kind };
    blamed(second, start(1, RoundKind::Full), &misdeed);
}

#[test]
fn state_out_of_turn_or_of_another_kind() {
    let early = before_target_hears(|said| matches!(said, Message::RoundStart(_)));
    blamed(early, state_of(&["cpu"]), &Misdeed::StateOutOfTurn);
    blamed(
        within(RoundKind::Full),
        state_of(&["cpu"]),
        &Misdeed::StateOutOfTurn,
    );
    let name = "disk".to_owned();
    let unoffered = Misdeed::StateUnoffered { name };
    let before_state = || before_target_hears(|said| matches!(said, Message::State(_)));
    blamed(before_state(), state_of(&["cpu", "disk"]), &unoffered);
    let mut twice = within(RoundKind::Final);
    twice.tell_target(state_of(&["cpu"]));
    let message = MessageKind::State;
    let stage = Stage::Switchover;
    blamed(
        twice,
        state_of(&["cpu"]),
        &Misdeed::OutOfPlace { message, stage },
    );
}

#[test]
fn a_processor_that_cannot_be_read() {
    let mut pair = before_target_hears(|said| matches!(said, Message::Offer(_)));
    pair.to_target.clear();
    let mut offer = common::fixture::offer();
    offer.cpu.truncate(11);
    pair.tell_target(Message::Offer(offer));
    assert!(matches!(misdeed_of(&pair), Misdeed::UnreadableCpu { .. }));
    pair.settle();
    pair.check_end();
}

/// Once the guest is the target's, nothing that the source says or that links do takes it away.
#[test]
fn a_taken_guest_stays_taken() {
    let mut lies = every_message();
    lies.push(Message::HandOver(HandOver {}));
    for lie in lies {
        let mut pair = Pair::new(&Plan::default());
        pair.hold_target = |input| *input == TargetInput::GuestResumed;
        pair.run();
        assert_eq!(pair.target.custody(), Custody::Target);
        pair.tell_target(lie);
        pair.give_target(TargetInput::BadPages("late".into()));
        pair.give_target(TargetInput::ControlLost("reset".into()));
        pair.give_target(TargetInput::Cancelled);
        assert_eq!(pair.target.stage(), Stage::HandOver);
        pair.release();
        pair.settle();
        pair.check_end();
        assert!(pair.target_runs);
    }
}
