//! More than one attempt: a retry after a failure, a second and third migration, and a guest that
//! does not stand still enough.

mod common;

use std::time::Duration;

use common::{Cut, Pair, Plan};
use limosa_session::source::{Action as SourceAction, Input as SourceInput};
use limosa_session::{Custody, Event, OnStall, Outcome, SessionConfig, SessionError};
use limosa_wire::RoundKind;

fn plans_of(pair: &Pair) -> Vec<(u32, RoundKind)> {
    let plan = |action: &SourceAction| match action {
        SourceAction::StartRound(plan) => Some((plan.round.get(), plan.kind)),
        _ => None,
    };
    pair.source_did.iter().filter_map(plan).collect()
}

/// A retry is a new session: it begins with a full round, whatever the failed one had sent.
#[test]
fn a_retry_begins_with_everything() {
    for cut in [Cut::Told, Cut::Silent] {
        for steps in [3, 9, 15, 21] {
            let plan = Plan::default();
            let mut failed = Pair::new(&plan);
            assert_eq!((0..steps).take_while(|_| failed.step()).count(), steps);
            assert!(!failed.given_away);
            failed.cut(cut);
            failed.settle();
            failed.check_end();
            let mut retry = Pair::new(&plan);
            retry.run();
            retry.check_end();
            assert_eq!(retry.source_outcome(), Some(&Outcome::Completed));
            assert_eq!(plans_of(&retry)[0], (0, RoundKind::Full));
        }
    }
}

#[test]
fn a_guest_moves_on_and_on() {
    for hop in 1..=3 {
        let mut plan = Plan::with_seed(hop);
        plan.dirty = vec![100_000 * hop];
        let mut pair = Pair::new(&plan);
        pair.run();
        pair.check_end();
        assert_eq!(pair.target.custody(), Custody::Target);
        assert_eq!(plans_of(&pair)[0], (0, RoundKind::Full));
    }
}

/// A guest that dirties as much as is sent, round after round.
fn busy(config: SessionConfig) -> Pair {
    let plan = Plan {
        source: config,
        dirty: vec![500_000; 100],
        ..Plan::default()
    };
    let mut pair = Pair::new(&plan);
    // Each round takes its time, so that the guest's rate is a rate.
    pair.hold_source = |input| matches!(input, SourceInput::RoundDone(_));
    for _ in 0..100 {
        pair.run();
        pair.now += Duration::from_millis(10);
        let done = pair.held_source.pop_front();
        if done.is_none() {
            break;
        }
        pair.source_work.extend(done);
    }
    pair
}

#[test]
fn a_guest_that_is_too_busy_stays_and_both_rates_are_told() {
    let pair = busy(SessionConfig::default());
    pair.check_end();
    let Some(Outcome::Failed(SessionError::NotConverging(why))) = pair.source_outcome() else {
        panic!("{:?}", pair.source_outcome());
    };
    assert!(why.rounds > 3 && why.rounds < 30, "{why:?}");
    assert!(why.dirty_bytes_per_second > why.send_bytes_per_second);
    assert!(why.send_bytes_per_second > 0);
    assert!(why.expected > why.budget);
    let text = why.to_string();
    let rates = [why.dirty_bytes_per_second, why.send_bytes_per_second];
    for rate in rates.map(|rate| format!("{} MiB/s", rate >> 20)) {
        assert!(text.contains(&rate), "{text}");
    }
    assert!(!pair.source_did.contains(&SourceAction::PauseGuest));
    let estimates = pair
        .source_did
        .iter()
        .filter(|action| matches!(action, SourceAction::Observe(Event::Estimate { .. })));
    assert_eq!(estimates.count() as u32, why.rounds);
}

#[test]
fn a_guest_that_is_too_busy_is_stopped_where_that_is_wished() {
    let pair = busy(SessionConfig {
        on_stall: OnStall::Stop,
        ..SessionConfig::default()
    });
    pair.check_end();
    assert_eq!(pair.source_outcome(), Some(&Outcome::Completed));
    let rounds = plans_of(&pair);
    assert!(rounds.len() > 4);
    assert_eq!(rounds.last().map(|(_, kind)| *kind), Some(RoundKind::Final));
}

/// A guest that is stopped though it is too busy needs a long pause, and is given the time.
#[test]
fn a_long_pause_that_was_wished_is_no_time_out() {
    let config = SessionConfig {
        on_stall: OnStall::Stop,
        rounds_max: 1,
        switchover_max: Duration::from_secs(1),
        ..SessionConfig::default()
    };
    let plan = Plan {
        source: config,
        dirty: vec![500_000],
        ..Plan::default()
    };
    let mut pair = Pair::new(&plan);
    pair.hold_source =
        |input| matches!(input, SourceInput::RoundDone(report) if report.round.get() == 1);
    pair.run();
    let expected = pair.source_did.iter().find_map(|action| match action {
        SourceAction::Observe(Event::Estimate { expected, .. }) => Some(*expected),
        _ => None,
    });
    let expected = expected.expect("an estimate");
    assert!(expected > Duration::from_secs(2), "{expected:?}");
    pair.settle_within(expected);
    pair.release();
    pair.settle();
    pair.check_end();
    assert_eq!(pair.source_outcome(), Some(&Outcome::Completed));
}

#[test]
fn rounds_end_where_they_are_counted() {
    for rounds_max in [1, 2, 3] {
        let pair = busy(SessionConfig {
            rounds_max,
            ..SessionConfig::default()
        });
        let Some(Outcome::Failed(SessionError::NotConverging(why))) = pair.source_outcome() else {
            panic!("{:?}", pair.source_outcome());
        };
        assert_eq!(why.rounds, rounds_max);
        assert_eq!(plans_of(&pair).len() as u32, rounds_max);
    }
}
