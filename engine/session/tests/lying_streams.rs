//! Rounds that do not land as the source says: its totals and barriers are held against what came,
//! and its guest does not run on memory with a gap.

mod common;

use common::blame::{before_target_hears, blamed, end, was_blamed, within};
use common::{Pair, Plan, landed, round};
use limosa_session::target::Input as TargetInput;
use limosa_session::{HoldBack, Misdeed, Outcome, RoundPlan, SessionError, Stage};
use limosa_wire::{AbortReason, Message, MessageKind, RoundKind};

#[test]
fn totals_that_differ_from_what_landed() {
    for (kind, number, pages) in [
        (RoundKind::Full, 0, common::PAGES),
        (RoundKind::Final, 1, 7),
    ] {
        for (lie, what) in [
            (end(number, &[10, 10], pages + 1), "pages"),
            (end(number, &[10, 9], pages), "frames"),
            (end(number, &[20], pages), "frames"),
            (end(number, &[], pages), "frames"),
        ] {
            let mut pair = within(kind);
            let plan = RoundPlan {
                round: round(number),
                kind,
                hold: HoldBack::NONE,
            };
            pair.give_target(landed(&pair.report(plan)));
            let round = round(number);
            blamed(pair, lie, &Misdeed::TotalsDiffer { round, what });
        }
        let misdeed = Misdeed::WrongRound {
            expected: round(number),
            found: round(number + 1),
        };
        blamed(within(kind), end(number + 1, &[10, 10], pages), &misdeed);
    }
}

#[test]
fn the_end_of_a_round_twice() {
    for (kind, number, stage) in [
        (RoundKind::Full, 0, Stage::Rounds),
        (RoundKind::Final, 1, Stage::Switchover),
    ] {
        let mut pair = within(kind);
        pair.tell_target(end(number, &[10, 10], 5));
        let message = MessageKind::RoundEnd;
        let misdeed = Misdeed::OutOfPlace { message, stage };
        blamed(pair, end(number, &[10, 10], 5), &misdeed);
    }
}

/// Which barriers the streams bring is the source's doing, so that a wrong one is its misdeed.
#[test]
fn barriers_out_of_turn() {
    let land = |number: u32| TargetInput::RoundLanded {
        round: round(number),
        frames: vec![1, 1],
        pages: 1,
    };
    let ahead = |expected: u32, found: u32| Misdeed::WrongRound {
        expected: round(expected),
        found: round(found),
    };
    let mut between = before_target_hears(|said| matches!(said, Message::RoundStart(_)));
    between.give_target(land(1));
    was_blamed(&mut between, &ahead(0, 1), AbortReason::Protocol);
    let mut within_first = within(RoundKind::Full);
    within_first.give_target(land(1));
    was_blamed(&mut within_first, &ahead(0, 1), AbortReason::Protocol);
    let mut within_last = within(RoundKind::Final);
    within_last.give_target(land(2));
    let after = Misdeed::AfterLastRound;
    was_blamed(&mut within_last, &after, AbortReason::Protocol);
    let mut completing = Pair::new(&Plan::default());
    completing.hold_target = |input| *input == TargetInput::LedgerComplete;
    completing.run();
    completing.give_target(land(2));
    was_blamed(&mut completing, &after, AbortReason::Protocol);
}

/// The ledger finds a gap though all totals agreed: the guest must not run on such memory.
#[test]
fn pages_that_never_came() {
    let mut pair = Pair::new(&Plan::default());
    pair.hold_target = |input| *input == TargetInput::LedgerComplete;
    pair.run();
    let text = "page 7 of round 0".to_owned();
    pair.give_target(TargetInput::LedgerGap(text.clone()));
    was_blamed(
        &mut pair,
        &Misdeed::PagesMissing { text },
        AbortReason::Ledger,
    );
    let Some(Outcome::Failed(SessionError::PeerFailed { text, .. })) = pair.source_outcome() else {
        panic!("{:?}", pair.source_outcome());
    };
    assert!(text.contains("page 7 of round 0"), "{text}");
}
