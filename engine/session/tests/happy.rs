//! A migration in which nothing goes wrong, in every order in which its events may come.

mod common;

use common::{Pair, Plan};
use limosa_session::source::{Action as SourceAction, Input as SourceInput};
use limosa_session::target::{Action as TargetAction, Input as TargetInput};
use limosa_session::{Custody, Event, Outcome, SessionConfig, Stage};
use limosa_wire::{Message, MessageKind, RoundKind};

fn kinds(pair: &Pair) -> Vec<RoundKind> {
    let plan = |action: &SourceAction| match action {
        SourceAction::StartRound(plan) => Some(plan.kind),
        _ => None,
    };
    pair.source_did.iter().filter_map(plan).collect()
}

fn completes(plan: &Plan) -> Pair {
    let mut pair = Pair::new(plan);
    pair.run();
    pair.check_end();
    assert_eq!(pair.source_outcome(), Some(&Outcome::Completed));
    assert_eq!(pair.target_outcome(), Some(&Outcome::Completed));
    assert_eq!(pair.source.custody(), Custody::Target);
    assert_eq!(pair.target.custody(), Custody::Target);
    pair
}

#[test]
fn it_completes_in_every_order_of_events() {
    for seed in 0..500 {
        let mut plan = Plan::with_seed(seed);
        plan.dirty = vec![200_000, 200_000, 100_000];
        let pair = completes(&plan);
        assert_eq!(pair.now.as_nanos(), 0, "nothing had to wait");
    }
}

#[test]
fn what_the_source_says_is_the_protocol() {
    let pair = completes(&Plan::default());
    let said = pair.source_did.iter().filter_map(|action| match action {
        SourceAction::Send(message) => Some(message.kind()),
        _ => None,
    });
    let mut said: Vec<MessageKind> = said.collect();
    // The state leaves when it is taken, which may be before the last page or after it.
    said.retain(|kind| *kind != MessageKind::State);
    assert_eq!(
        said,
        [
            MessageKind::Hello,
            MessageKind::Offer,
            MessageKind::Agreed,
            MessageKind::RoundStart,
            MessageKind::RoundEnd,
            MessageKind::RoundStart,
            MessageKind::RoundEnd,
            MessageKind::HandOver,
        ]
    );
    assert_eq!(kinds(&pair), [RoundKind::Full, RoundKind::Final]);
}

#[test]
fn a_busy_guest_gets_live_rounds() {
    let plan = Plan {
        dirty: vec![200_000, 100_000],
        ..Plan::default()
    };
    let pair = completes(&plan);
    let expected = [
        RoundKind::Full,
        RoundKind::Live,
        RoundKind::Live,
        RoundKind::Final,
    ];
    assert_eq!(kinds(&pair), expected);
}

#[test]
fn the_guest_is_put_down_and_picked_up_in_order() {
    let pair = completes(&Plan::default());
    let at = |which: fn(&SourceAction) -> bool| pair.source_did.iter().position(which);
    let pause = at(|action| *action == SourceAction::PauseGuest);
    let last = at(
        |action| matches!(action, SourceAction::StartRound(plan) if plan.kind == RoundKind::Final),
    );
    let export = at(|action| *action == SourceAction::ExportState);
    let away = at(|action| matches!(action, SourceAction::Send(Message::HandOver(_))));
    let custody = at(|action| *action == SourceAction::Observe(Event::Custody(Custody::InTransit)));
    let release = at(|action| *action == SourceAction::ReleaseGuest);
    let order = [pause, last, export, custody, away, release];
    assert!(
        order.iter().all(Option::is_some) && order.is_sorted(),
        "{order:?}"
    );
    assert!(!pair.source_did.contains(&SourceAction::ResumeGuest));
    assert!(!pair.target_did.contains(&TargetAction::DropGuest));
}

#[test]
fn observers_see_every_stage_once_and_in_order() {
    let pair = completes(&Plan::default());
    let stages = |event: &Event| match event {
        Event::Stage(stage) => Some(*stage),
        _ => None,
    };
    let at_source = pair.source_did.iter().filter_map(|action| match action {
        SourceAction::Observe(event) => stages(event),
        _ => None,
    });
    let at_target = pair.target_did.iter().filter_map(|action| match action {
        TargetAction::Observe(event) => stages(event),
        _ => None,
    });
    let expected = [
        Stage::Prepare,
        Stage::Rounds,
        Stage::Switchover,
        Stage::HandOver,
        Stage::Finished,
    ];
    assert_eq!(at_source.collect::<Vec<_>>(), expected);
    assert_eq!(at_target.collect::<Vec<_>>(), expected);
}

/// The state may come before the pages of the last round have landed, or after.
#[test]
fn state_and_last_pages_come_in_any_order() {
    let mut early = Pair::new(&Plan::default());
    early.hold_source =
        |input| matches!(input, SourceInput::RoundDone(report) if report.round.get() > 0);
    early.run();
    let restores = |action: &TargetAction| matches!(action, TargetAction::RestoreState(_));
    assert!(
        early.target_did.iter().any(restores),
        "the state does not wait for pages"
    );
    assert!(!early.target_did.contains(&TargetAction::CheckLedger));
    early.release();
    early.run();
    early.check_end();
    assert_eq!(early.source_outcome(), Some(&Outcome::Completed));

    let mut late = Pair::new(&Plan::default());
    late.hold_source = |input| matches!(input, SourceInput::StateExported(_));
    late.run();
    assert!(late.target_did.contains(&TargetAction::CheckLedger));
    assert!(!late.target_did.iter().any(restores));
    assert_eq!(late.source.stage(), Stage::Switchover);
    late.release();
    late.run();
    late.check_end();
    assert_eq!(late.source_outcome(), Some(&Outcome::Completed));
}

/// Prepared needs ledger, state and host, whichever comes last.
#[test]
fn the_target_is_prepared_only_with_everything_in_place() {
    let holds: [fn(&TargetInput) -> bool; 3] = [
        |input| matches!(input, TargetInput::HostSurveyed(_)),
        |input| *input == TargetInput::LedgerComplete,
        |input| *input == TargetInput::StateRestored,
    ];
    for hold in holds {
        let mut pair = Pair::new(&Plan::default());
        pair.hold_target = hold;
        pair.run();
        let prepared =
            |action: &TargetAction| matches!(action, TargetAction::Send(Message::Prepared(_)));
        assert!(!pair.target_did.iter().any(prepared));
        assert!(!pair.given_away);
        pair.release();
        pair.run();
        pair.check_end();
        assert!(pair.target_runs);
    }
}

/// The barrier of a round may pass before its start or its end is heard.
#[test]
fn a_round_lands_before_it_is_announced() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until(|pair| pair.target.stage() == Stage::Rounds && !pair.streams.is_empty());
    let landing = pair.streams.pop_front().expect("a landed round");
    let before = pair.to_target.len();
    assert!(before > 0, "its start is still on its way");
    pair.give_target(landing);
    pair.run();
    pair.check_end();
    assert!(pair.target_runs);
}

#[test]
fn the_target_may_take_fewer_streams() {
    let mut plan = Plan::default();
    plan.policy.stream_count_max = 1;
    plan.source.stream_count = 64;
    let pair = completes(&plan);
    let opened = pair.source_did.iter().find_map(|action| match action {
        SourceAction::OpenStreams { stream_count, .. } => Some(*stream_count),
        _ => None,
    });
    assert_eq!(opened, Some(1));
}

#[test]
fn only_encodings_that_both_know_are_used() {
    use limosa_wire::{EncodingSet, PageEncoding};
    let mut plan = Plan::default();
    let known = EncodingSet::ALL.without(PageEncoding::Lz4);
    plan.target.encodings = known;
    let pair = completes(&plan);
    let used = pair.source_did.iter().find_map(|action| match action {
        SourceAction::OpenStreams { encodings, .. } => Some(*encodings),
        _ => None,
    });
    assert_eq!(used, Some(known));
}

/// Whatever the knobs say, raw and zero pages can be sent.
#[test]
fn a_config_without_needed_encodings_is_mended() {
    use limosa_wire::{EncodingSet, PageEncoding};
    let bare = SessionConfig {
        encodings: EncodingSet::EMPTY,
        ..SessionConfig::default()
    };
    let (source, target) = (bare.clone(), bare);
    let plan = Plan {
        source,
        target,
        ..Plan::default()
    };
    let needed = EncodingSet::of(&[PageEncoding::Raw, PageEncoding::Zero]);
    let pair = completes(&plan);
    let used = pair.source_did.iter().find_map(|action| match action {
        SourceAction::OpenStreams { encodings, .. } => Some(*encodings),
        _ => None,
    });
    assert_eq!(used, Some(needed));
}
