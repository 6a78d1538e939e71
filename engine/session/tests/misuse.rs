//! A driver that gives inputs nobody asked for: each is refused by name, and changes nothing.

mod common;

use common::{Pair, Plan, round};
use limosa_pages::PageCount;
use limosa_session::source::Input as SourceInput;
use limosa_session::target::Input as TargetInput;
use limosa_session::{ApiMisuse, HoldBack, RoundPlan, Stage};
use limosa_wire::RoundKind;

/// Every answer that a driver may give to a source.
fn answers_of_source(pair: &Pair, number: u32) -> Vec<SourceInput> {
    let plan = RoundPlan {
        round: round(number),
        kind: RoundKind::Live,
        hold: HoldBack::NONE,
    };
    vec![
        SourceInput::StreamsOpened,
        SourceInput::TrackingStarted,
        SourceInput::Rehearsed(None),
        SourceInput::Harvested(PageCount::new(1).into()),
        SourceInput::RoundDone(pair.report(plan)),
        SourceInput::GuestDescribed(vec![1, 2, 3]),
        SourceInput::GuestPaused,
        SourceInput::StateExported(common::state()),
    ]
}

fn answers_of_target() -> Vec<TargetInput> {
    vec![
        TargetInput::GuestPrepared,
        TargetInput::StreamsAccepted,
        TargetInput::LedgerComplete,
        TargetInput::LedgerGap("page 7".into()),
        TargetInput::HostSurveyed(common::fixture::policy().host),
        TargetInput::StateRestored,
        TargetInput::GuestResumed,
    ]
}

/// Which answer this is, whatever it holds.
fn is_same<T>(one: &T, other: &T) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// In each step of a migration, all that is not due is refused.
#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut refused = 0;
    for steps in 0.. {
        let mut plan = Plan::with_seed(steps as u64 % 7);
        plan.dirty = vec![200_000];
        let mut pair = Pair::new(&plan);
        if (0..steps).take_while(|_| pair.step()).count() < steps {
            break;
        }
        let now = pair.clock();
        if pair.source.stage() != Stage::Finished {
            for answer in answers_of_source(&pair, 99) {
                let due = pair.source_work.iter().any(|due| is_same(due, &answer));
                if due && !matches!(answer, SourceInput::RoundDone(_)) {
                    continue;
                }
                let mut machine = pair.source.clone();
                let stage = machine.stage();
                let misuse = machine.handle(answer.clone(), now).expect_err("a misuse");
                assert_eq!(misuse.stage, stage);
                assert_eq!(machine, pair.source, "{answer:?}");
                refused += 1;
            }
        }
        if pair.target.stage() != Stage::Finished {
            for answer in answers_of_target() {
                let ledger = |input: &TargetInput| {
                    matches!(
                        input,
                        TargetInput::LedgerComplete | TargetInput::LedgerGap(_)
                    )
                };
                let due = pair
                    .target_work
                    .iter()
                    .any(|due| is_same(due, &answer) || ledger(due) && ledger(&answer));
                if due {
                    continue;
                }
                let mut machine = pair.target.clone();
                let misuse = machine.handle(answer.clone(), now).expect_err("a misuse");
                assert_eq!(misuse.stage, pair.target.stage());
                assert_eq!(machine, pair.target, "{answer:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 200, "{refused}");
}

#[test]
fn a_misuse_has_a_name() {
    let mut pair = Pair::new(&Plan::default());
    let now = pair.clock();
    let misuse = pair.source.handle(SourceInput::GuestPaused, now);
    let expected = ApiMisuse {
        input: "a paused guest",
        stage: Stage::Handshake,
    };
    assert_eq!(misuse, Err(expected));
    let text = expected.to_string();
    assert!(
        text.contains("a paused guest") && text.contains("handshake"),
        "{text}"
    );
}

/// After the end answers may still come, of work that was under way; they do nothing.
#[test]
fn late_answers_do_nothing() {
    let mut pair = Pair::new(&Plan::default());
    pair.run();
    let (source, target) = (pair.source.clone(), pair.target.clone());
    for answer in answers_of_source(&pair, 1) {
        pair.give_source(answer);
    }
    for answer in answers_of_target() {
        pair.give_target(answer);
    }
    pair.give_source(SourceInput::Cancelled);
    pair.give_target(TargetInput::Cancelled);
    pair.give_source(SourceInput::Timeout);
    pair.give_target(TargetInput::Timeout);
    assert_eq!((pair.source, pair.target), (source, target));
}
