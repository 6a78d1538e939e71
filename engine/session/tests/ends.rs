//! The migration ends early, after each of its steps and in each way: the guest then runs at the
//! source, or was handed over and never runs there again.

mod common;

use common::{Cut, Pair, Plan};
use limosa_session::source::{Action as SourceAction, Input as SourceInput};
use limosa_session::target::{Action as TargetAction, Input as TargetInput};
use limosa_session::{Custody, FaultKind, LocalFault, Outcome, SessionError, Stage};
use limosa_wire::{Abort, AbortReason, DecodeError, DecodeFault, Message, StreamIndex};

/// How many migrations of each kind ended in which way.
#[derive(Default, Debug)]
struct Tally {
    completed: usize,
    failed: usize,
    in_transit: usize,
    resumed: usize,
}

/// Disturbs a migration after each number of its steps, in several orders of its events.
fn after_every_step(disturb: impl Fn(&mut Pair), check: impl Fn(&Pair)) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..12 {
        let mut plan = Plan::with_seed(seed);
        plan.dirty = vec![200_000];
        for steps in 0.. {
            let mut pair = Pair::new(&plan);
            let went = (0..steps).take_while(|_| pair.step()).count();
            if went < steps {
                break;
            }
            disturb(&mut pair);
            pair.settle();
            pair.check_end();
            check(&pair);
            match pair.source_outcome() {
                Some(Outcome::Completed) => tally.completed += 1,
                Some(Outcome::Failed(_)) => tally.failed += 1,
                Some(Outcome::InTransit(_)) => tally.in_transit += 1,
                other => panic!("{other:?}"),
            }
            tally.resumed += usize::from(pair.source_did.contains(&SourceAction::ResumeGuest));
        }
    }
    assert!(tally.failed > 50 && tally.resumed > 20, "{tally:?}");
    tally
}

/// Who gave up in which words, as the other side hears it.
fn hears_of(error: &SessionError) -> bool {
    matches!(
        error,
        SessionError::PeerFailed { .. } | SessionError::LinkLost(_)
    )
}

#[test]
fn the_link_is_cut() {
    for cut in [Cut::Told, Cut::Silent] {
        let tally = after_every_step(
            |pair| pair.cut(cut),
            |pair| match pair.source_outcome() {
                Some(Outcome::Failed(error) | Outcome::InTransit(error)) => {
                    let known = matches!(error, SessionError::LinkLost(_));
                    assert_eq!(known, cut == Cut::Told, "{error}");
                }
                outcome => assert_eq!(outcome, Some(&Outcome::Completed)),
            },
        );
        assert!(tally.in_transit > 12, "{tally:?}");
    }
}

/// Messages get lost in one direction only, and nobody is told.
#[test]
fn one_direction_falls_silent() {
    let lost_to_target = |pair: &mut Pair| {
        pair.to_target.clear();
        while pair.step() {
            pair.to_target.clear();
        }
        pair.cut = Some(Cut::Silent);
    };
    let lost_to_source = |pair: &mut Pair| {
        pair.to_source.clear();
        while pair.step() {
            pair.to_source.clear();
        }
        pair.cut = Some(Cut::Silent);
    };
    after_every_step(lost_to_target, |_| {});
    let tally = after_every_step(lost_to_source, |_| {});
    assert!(tally.in_transit > 12, "{tally:?}");
}

#[test]
fn a_page_stream_ends() {
    let text = || "reset".to_owned();
    let tally = after_every_step(
        |pair| pair.give_source(SourceInput::StreamLost(StreamIndex::new(1), text())),
        |_| {},
    );
    assert_eq!(
        tally.in_transit, 0,
        "streams are of no use after the hand-over"
    );
    assert!(tally.completed > 12, "{tally:?}");
    // All pages have landed, though the state has not left.
    let mut stateless = Pair::new(&Plan::default());
    stateless.hold_source = |input| matches!(input, SourceInput::StateExported(_));
    stateless.run();
    stateless.give_source(SourceInput::StreamLost(StreamIndex::new(1), text()));
    stateless.release();
    stateless.run();
    stateless.check_end();
    assert!(stateless.target_runs);
    let mut completed = 0;
    for seed in 0..12 {
        let mut pair = Pair::new(&Plan::with_seed(seed));
        pair.run_until(|pair| pair.target_did.contains(&TargetAction::CheckLedger));
        pair.give_target(TargetInput::StreamLost(StreamIndex::new(1), text()));
        pair.settle();
        pair.check_end();
        completed += usize::from(pair.target_runs);
    }
    assert_eq!(completed, 12, "all pages had landed");
}

#[test]
fn the_target_gives_up() {
    let abort = || {
        Message::Abort(Abort {
            reason: AbortReason::Kernel,
            text: "no memory".into(),
        })
    };
    let tally = after_every_step(
        |pair| pair.tell_source(abort()),
        |pair| match pair.source_outcome() {
            Some(Outcome::Failed(error) | Outcome::InTransit(error)) => {
                let reason = AbortReason::Kernel;
                let text = "no memory".into();
                assert_eq!(*error, SessionError::PeerFailed { reason, text });
            }
            outcome => assert_eq!(outcome, Some(&Outcome::Completed)),
        },
    );
    assert!(tally.in_transit > 12, "{tally:?}");
}

/// What was handed over the source can't call back, so that its words no longer matter.
#[test]
fn the_source_gives_up() {
    let abort = || {
        Message::Abort(Abort {
            reason: AbortReason::Cancelled,
            text: "enough".into(),
        })
    };
    for seed in 0..12 {
        let plan = Plan::with_seed(seed);
        for steps in 0.. {
            let mut pair = Pair::new(&plan);
            if (0..steps).take_while(|_| pair.step()).count() < steps {
                break;
            }
            let taken = pair.target.custody() == Custody::Target;
            pair.tell_target(abort());
            pair.settle();
            // The source hears of it as of a failure of the target's, and keeps the guest.
            pair.check_end();
            assert_eq!(pair.target_runs, taken);
        }
    }
}

#[test]
fn an_operator_cancels_the_source() {
    let tally = after_every_step(
        |pair| pair.give_source(SourceInput::Cancelled),
        |pair| match pair.source_outcome() {
            Some(Outcome::Failed(error)) => {
                assert_eq!(*error, SessionError::Cancelled);
                let Some(Outcome::Failed(theirs)) = pair.target_outcome() else {
                    panic!("{:?}", pair.target_outcome());
                };
                assert!(hears_of(theirs), "{theirs}");
            }
            outcome => assert_eq!(outcome, Some(&Outcome::Completed)),
        },
    );
    assert_eq!(tally.in_transit, 0, "a late wish changes nothing");
    assert!(tally.completed > 12);
}

#[test]
fn an_operator_cancels_the_target() {
    let tally = after_every_step(
        |pair| pair.give_target(TargetInput::Cancelled),
        |pair| {
            if let Some(Outcome::Failed(error)) = pair.source_outcome() {
                assert!(hears_of(error), "{error}");
            }
        },
    );
    assert!(tally.completed > 0 && tally.in_transit > 0, "{tally:?}");
}

#[test]
fn work_of_the_source_fails() {
    for (kind, reason) in [
        (FaultKind::Kernel, AbortReason::Kernel),
        (FaultKind::Guest, AbortReason::Guest),
        (FaultKind::Memory, AbortReason::Guest),
        (FaultKind::Transport, AbortReason::Transport),
        (FaultKind::Capacity, AbortReason::Capacity),
    ] {
        let fault = || LocalFault {
            kind,
            text: "out of luck".into(),
        };
        let tally = after_every_step(
            |pair| pair.give_source(SourceInput::LocalFailure(fault())),
            |pair| {
                if let Some(Outcome::Failed(error)) = pair.source_outcome() {
                    assert_eq!(*error, SessionError::Local(fault()));
                }
                if let Some(Outcome::Failed(error)) = pair.target_outcome() {
                    let text = "out of luck".into();
                    assert_eq!(*error, SessionError::PeerFailed { reason, text });
                }
            },
        );
        assert_eq!(tally.in_transit, 0);
    }
}

#[test]
fn either_side_hears_garbage() {
    let garbage = || DecodeError {
        what: DecodeFault::Truncated { missing: 4 },
        offset: 0,
    };
    let tally = after_every_step(
        |pair| pair.give_source(SourceInput::Garbage(garbage())),
        |pair| {
            if let Some(Outcome::Failed(error)) = pair.source_outcome() {
                assert!(matches!(error, SessionError::PeerMisbehaved(_)), "{error}");
            }
        },
    );
    assert!(tally.in_transit > 0, "{tally:?}");
    after_every_step(
        |pair| pair.give_target(TargetInput::Garbage(garbage())),
        |_| {},
    );
}

#[test]
fn pages_are_bad() {
    after_every_step(
        |pair| {
            let streams = [Stage::Rounds, Stage::Switchover, Stage::HandOver];
            match streams.contains(&pair.target.stage()) {
                true => pair.give_target(TargetInput::BadPages("crc".into())),
                false => pair.give_target(TargetInput::Cancelled),
            }
        },
        |_| {},
    );
}
