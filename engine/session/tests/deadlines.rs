//! Waits that end: what does not come in time, a peer that falls silent, and the word of life that
//! keeps a slow but living one from being taken for gone.

mod common;

use std::time::Duration;

use common::{Cut, Pair, Plan};
use limosa_session::source::{Action as SourceAction, Input as SourceInput};
use limosa_session::target::{Action as TargetAction, Input as TargetInput};
use limosa_session::{Custody, Outcome, SessionConfig, SessionError, Stage};
use limosa_wire::{AbortReason, KeepAlive, Message};

const SILENCE: Duration = Duration::from_secs(10);

fn error_of(outcome: Option<&Outcome>) -> &SessionError {
    match outcome {
        Some(Outcome::Failed(error) | Outcome::InTransit(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The word that something did not come.
fn timed_out(error: &SessionError, expected: &str) -> Duration {
    match error {
        SessionError::TimedOut { what, longest } if *what == expected => *longest,
        other => panic!("{other}"),
    }
}

#[track_caller]
fn source_times_out(pair: &mut Pair, expected: &str, longest: Duration) {
    let begun = pair.now;
    pair.settle();
    pair.check_end();
    assert_eq!(
        timed_out(error_of(pair.source_outcome()), expected),
        longest
    );
    assert_eq!(pair.now - begun, longest, "{expected}");
}

/// A machine whose peer's driver lives, but never does what is held.
fn stuck(
    hold_source: fn(&SourceInput) -> bool,
    hold_target: fn(&TargetInput) -> bool,
) -> (Pair, SessionConfig) {
    let plan = Plan::default();
    let mut pair = Pair::new(&plan);
    (pair.hold_source, pair.hold_target) = (hold_source, hold_target);
    pair.run();
    (pair, plan.source)
}

#[test]
fn a_target_that_makes_its_guest_too_slowly() {
    let (mut pair, config) = stuck(|_| false, |input| *input == TargetInput::GuestPrepared);
    source_times_out(&mut pair, "the target's verdict", config.prepare_max);
    let error = error_of(pair.target_outcome());
    assert!(
        matches!(
            error,
            SessionError::PeerFailed {
                reason: AbortReason::Timeout,
                ..
            }
        ),
        "{error}"
    );
}

/// The source has not said what it makes of the host, and says nothing else either.
#[test]
fn a_source_that_does_not_judge() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_target_hears(|message| matches!(message, Message::Agreed(_)));
    pair.to_target.clear();
    pair.settle();
    pair.check_end();
    let longest = timed_out(error_of(pair.target_outcome()), "the source's judgement");
    assert_eq!(longest, SessionConfig::default().handshake_max);
    let lets_in = |action: &TargetAction| matches!(action, TargetAction::AcceptStreams { .. });
    assert!(!pair.target_did.iter().any(lets_in));
}

/// Both sides wait equally long for streams that never come.
#[test]
fn page_streams_that_never_come() {
    let (mut pair, config) = stuck(|_| false, |input| *input == TargetInput::StreamsAccepted);
    pair.settle();
    pair.check_end();
    let what = "the binding of the page streams";
    let longest = timed_out(error_of(pair.source_outcome()), what);
    assert_eq!(longest, config.handshake_max);
    timed_out(error_of(pair.target_outcome()), "the page streams");
}

#[test]
fn a_round_that_is_sent_and_never_lands() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until(|pair| !pair.streams.is_empty());
    pair.streams.clear();
    pair.run();
    let longest = SessionConfig::default().landing_max;
    source_times_out(&mut pair, "the word that a round landed", longest);
    assert!(!pair.source_did.contains(&SourceAction::PauseGuest));
}

/// From the pause on one deadline holds, whichever step of the switchover takes too long.
#[test]
fn a_switchover_that_never_ends() {
    let source: [fn(&SourceInput) -> bool; 3] = [
        |input| *input == SourceInput::GuestPaused,
        |input| matches!(input, SourceInput::StateExported(_)),
        |input| matches!(input, SourceInput::RoundDone(report) if report.round.get() > 0),
    ];
    let target: [fn(&TargetInput) -> bool; 3] = [
        |input| matches!(input, TargetInput::HostSurveyed(_)),
        |input| *input == TargetInput::StateRestored,
        |input| *input == TargetInput::LedgerComplete,
    ];
    let both = source.into_iter().map(|hold| stuck(hold, |_| false));
    let both = both.chain(target.into_iter().map(|hold| stuck(|_| false, hold)));
    for (mut pair, config) in both {
        let begun = pair.now;
        assert_eq!(pair.source.stage(), Stage::Switchover);
        pair.settle();
        pair.check_end();
        let longest = timed_out(error_of(pair.source_outcome()), "the end of the switchover");
        let slack = longest - config.switchover_max;
        assert!(slack < Duration::from_millis(50), "{slack:?}");
        assert_eq!(pair.now - begun, longest);
        assert!(pair.source_runs && pair.source_did.contains(&SourceAction::ResumeGuest));
    }
}

#[test]
fn a_target_that_hears_no_hand_over() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_source_hears(|message| matches!(message, Message::Prepared(_)));
    pair.to_source.clear();
    pair.settle();
    pair.check_end();
    let longest = timed_out(error_of(pair.target_outcome()), "the hand-over");
    assert_eq!(longest, SessionConfig::default().hand_over_max);
    assert!(pair.source_runs);
}

#[test]
fn a_target_that_never_says_that_the_guest_runs() {
    let (mut pair, config) = stuck(|_| false, |input| *input == TargetInput::GuestResumed);
    assert_eq!(pair.source.custody(), Custody::InTransit);
    let begun = pair.now;
    pair.settle_within(Duration::from_secs(30));
    let what = "the word that the guest runs at the target";
    let longest = timed_out(error_of(pair.source_outcome()), what);
    assert_eq!(longest, config.hand_over_max);
    assert!(pair.now - begun >= longest);
    assert!(!pair.source_runs && pair.source.custody() == Custody::InTransit);
    // The guest is the target's all the same, for as long as it takes to let it run.
    assert_eq!(pair.target.custody(), Custody::Target);
    pair.release();
    pair.run();
    assert_eq!(pair.target_outcome(), Some(&Outcome::Completed));
    pair.check_end();
}

#[test]
fn nobody_at_the_other_end() {
    for (to_source, what) in [(true, "the target's hello"), (false, "the source's hello")] {
        let mut pair = Pair::new(&Plan::default());
        pair.cut(Cut::Silent);
        pair.settle();
        pair.check_end();
        let outcome = match to_source {
            true => pair.source_outcome(),
            false => pair.target_outcome(),
        };
        timed_out(error_of(outcome), what);
    }
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_target_hears(|message| matches!(message, Message::Offer(_)));
    pair.cut(Cut::Silent);
    pair.settle();
    timed_out(error_of(pair.target_outcome()), "the source's offer");
}

/// A peer that vanishes without a word, where only its silence tells: on both sides, in each state
/// that has no deadline of its own, and at the same time.
#[test]
fn silence_is_noticed() {
    let config = SessionConfig {
        // Long enough that only silence can end the wait.
        landing_max: Duration::from_secs(3600),
        switchover_max: Duration::from_secs(3600),
        prepare_max: Duration::from_secs(3600),
        handshake_max: Duration::from_secs(3600),
        hand_over_max: Duration::from_secs(3600),
        ..SessionConfig::default()
    };
    for steps in 0.. {
        let plan = Plan {
            source: config.clone(),
            target: config.clone(),
            ..Plan::default()
        };
        let mut pair = Pair::new(&plan);
        if (0..steps).take_while(|_| pair.step()).count() < steps {
            break;
        }
        let over = pair.source.stage() == Stage::Finished;
        pair.cut(Cut::Silent);
        pair.settle();
        pair.check_end();
        assert!(pair.now <= SILENCE);
        if !over {
            let silent = SessionError::PeerSilent { longest: SILENCE };
            assert_eq!(*error_of(pair.source_outcome()), silent);
        }
    }
}

/// Rounds that take longer than every wait do not end a migration whose two sides both live: while
/// a round is sent no deadline of an earlier step holds.
#[test]
fn long_work_is_no_silence() {
    let plan = Plan {
        dirty: vec![200_000],
        ..Plan::default()
    };
    let mut pair = Pair::new(&plan);
    pair.hold_source =
        |input| matches!(input, SourceInput::RoundDone(report) if report.round.get() < 2);
    for hour in 1..=2 {
        pair.run();
        pair.settle_within(Duration::from_secs(3600));
        assert_eq!(pair.source.stage(), Stage::Rounds);
        let alive =
            |action: &&SourceAction| matches!(action, SourceAction::Send(Message::KeepAlive(_)));
        let said = pair.source_did.iter().filter(alive).count();
        let expected = 3600 * hour;
        assert!(said.abs_diff(expected) < 10, "{said} words of {expected}");
        pair.source_work.append(&mut pair.held_source);
    }
    pair.run();
    pair.check_end();
    assert!(pair.target_runs);
}

#[test]
fn any_word_counts_as_life() {
    let mut pair = Pair::new(&Plan::default());
    pair.hold_target = |input| *input == TargetInput::GuestPrepared;
    pair.run();
    pair.cut = Some(Cut::Silent);
    for sequence in 0..5 {
        pair.now += SILENCE - Duration::from_secs(1);
        pair.tell_source(Message::KeepAlive(KeepAlive { sequence }));
        pair.give_source(SourceInput::Timeout);
        assert_eq!(pair.source.stage(), Stage::Handshake);
    }
    pair.now += SILENCE;
    pair.give_source(SourceInput::Timeout);
    let silent = SessionError::PeerSilent { longest: SILENCE };
    assert_eq!(*error_of(pair.source_outcome()), silent);
}

/// A timer that is given too early changes nothing, nor does a clock that runs backwards.
#[test]
fn time_is_not_trusted() {
    let mut pair = Pair::new(&Plan::default());
    pair.now = Duration::from_secs(5);
    pair.give_source(SourceInput::Timeout);
    let before = pair.source.poll_timeout();
    pair.now = Duration::ZERO;
    pair.give_source(SourceInput::Timeout);
    pair.give_target(TargetInput::Timeout);
    assert_eq!(pair.source.poll_timeout(), before);
    pair.run();
    pair.check_end();
    assert!(pair.target_runs);
    assert_eq!(pair.source.poll_timeout(), None);
    assert_eq!(pair.target.poll_timeout(), None);
}

/// Each knob is brought into its range, so that no wait is endless or none at all.
#[test]
fn silence_is_longer_than_the_words_of_life_are_apart() {
    let config = SessionConfig {
        keep_alive_every: Duration::from_secs(20),
        peer_silence_max: Duration::ZERO,
        handshake_max: Duration::MAX,
        landing_max: Duration::ZERO,
        ..SessionConfig::default()
    };
    let config = config.bounded();
    assert_eq!(config.peer_silence_max, Duration::from_secs(60));
    assert_eq!(config.handshake_max, SessionConfig::WAIT_MAX);
    assert_eq!(config.landing_max, SessionConfig::WAIT_MIN);
}
