//! What has changed by the time of the switchover: the target's host, or the guest's processor. The
//! guest stays at the source then, and both sides say why.

mod common;

use common::fixture::{AMD, AVX2, INTEL, cpu, digest, host, table};
use common::{Pair, Plan, Wire, state};
use limosa_session::source::{Action as SourceAction, Input as SourceInput};
use limosa_session::target::{Action as TargetAction, Input as TargetInput};
use limosa_session::{Custody, FaultKind, LocalFault, Misdeed, Outcome, SessionError, Stage};
use limosa_wire::{Message, Prepared, Reason, ReasonKind, Refuse, State};

/// Both sides end with the same reasons, and the guest runs on at the source, unharmed.
#[track_caller]
fn refused_late(pair: &Pair) -> Vec<Reason> {
    pair.check_end();
    let ends = (pair.source_outcome(), pair.target_outcome());
    let (Some(Outcome::Refused(at_source)), Some(Outcome::Refused(at_target))) = ends else {
        panic!("{ends:?}");
    };
    assert_eq!(at_source, at_target, "both tell the same");
    assert!(pair.source_runs && !pair.given_away);
    assert_eq!(pair.source.custody(), Custody::Source);
    let did = |action: &SourceAction| pair.source_did.contains(action);
    assert!(did(&SourceAction::PauseGuest) && did(&SourceAction::ResumeGuest));
    assert!(did(&SourceAction::StopTracking) && did(&SourceAction::CloseLink));
    assert!(pair.target_did.contains(&TargetAction::DropGuest));
    let prepared =
        |action: &TargetAction| matches!(action, TargetAction::Send(Message::Prepared(_)));
    assert!(!pair.target_did.iter().any(prepared));
    at_source.clone()
}

#[test]
fn a_host_that_has_changed_is_refused_in_every_order_of_events() {
    for seed in 0..300 {
        let mut plan = Plan::with_seed(seed);
        plan.dirty = vec![200_000];
        let mut pair = Pair::new(&plan);
        pair.host = host(AMD, 0);
        pair.settle();
        let reasons = refused_late(&pair);
        assert!(
            reasons
                .iter()
                .any(|reason| reason.kind == ReasonKind::Vendor)
        );
    }
}

#[test]
fn every_reason_of_a_changed_host_is_named() {
    const BITS: u32 = AVX2 | 1 << 3 | 1 << 8;
    let mut plan = Plan::default();
    plan.offer.cpu = cpu(table(INTEL, BITS), 2);
    plan.policy.host = host(INTEL, BITS);
    let mut pair = Pair::new(&plan);
    pair.host = host(INTEL, 1 << 3);
    pair.settle();
    let reasons = refused_late(&pair);
    let whats = reasons.iter().map(|reason| reason.what.as_str());
    let whats: Vec<&str> = whats.collect();
    assert!(
        matches!(whats[..], [avx2, bmi2] if avx2.starts_with("avx2") && bmi2.starts_with("bmi2")),
        "{whats:?}"
    );
    assert!(reasons.iter().all(|reason| !reason.remedy.is_empty()));
}

/// What the look finds may come before pages and state, between them, and after both.
#[test]
fn a_changed_host_is_found_whenever_the_look_ends() {
    let holds: [fn(&TargetInput) -> bool; 4] = [
        |input| matches!(input, TargetInput::HostSurveyed(_)),
        |input| *input == TargetInput::StateRestored,
        |input| *input == TargetInput::LedgerComplete,
        |input| {
            matches!(
                input,
                TargetInput::StateRestored | TargetInput::LedgerComplete
            )
        },
    ];
    for hold in holds {
        let mut pair = Pair::new(&Plan::default());
        pair.host = host(INTEL, 0);
        pair.hold_target = hold;
        pair.run();
        pair.release();
        pair.settle();
        assert_eq!(refused_late(&pair).len(), 1);
    }
}

/// A host that only gained something is as good as it was.
#[test]
fn a_host_that_has_more_now_is_no_reason() {
    let mut pair = Pair::new(&Plan::default());
    pair.host = host(INTEL, AVX2 | 1 << 3);
    pair.run();
    pair.check_end();
    assert!(pair.target_runs);
}

#[test]
fn a_host_that_cannot_be_looked_at_fails_the_migration() {
    let mut pair = Pair::new(&Plan::default());
    pair.hold_target = |input| matches!(input, TargetInput::HostSurveyed(_));
    pair.run();
    let fault = LocalFault {
        kind: FaultKind::Kernel,
        text: "no /dev/kvm".into(),
    };
    pair.give_target(TargetInput::LocalFailure(fault.clone()));
    pair.settle();
    pair.check_end();
    let failed = Outcome::Failed(SessionError::Local(fault));
    assert_eq!(pair.target_outcome(), Some(&failed));
    assert!(pair.source_runs);
}

/// The guest is asked again as long as it runs, and is not even stopped.
#[test]
fn a_guest_whose_processor_has_changed_is_not_stopped() {
    let mut pair = Pair::new(&Plan::default());
    pair.cpu = cpu(table(INTEL, AVX2 | 1), 2);
    pair.run();
    let Some(Outcome::Failed(SessionError::Local(fault))) = pair.source_outcome() else {
        panic!("{:?}", pair.source_outcome());
    };
    assert!(
        fault.text.contains("not the one that was offered"),
        "{fault}"
    );
    assert!(!pair.source_did.contains(&SourceAction::PauseGuest));
    pair.settle();
    pair.check_end();
    assert!(pair.source_runs);
}

#[test]
fn the_guest_is_asked_right_before_the_pause() {
    let mut pair = Pair::new(&Plan::default());
    pair.hold_source = |input| matches!(input, SourceInput::GuestDescribed(_));
    pair.run();
    assert!(pair.source_runs && pair.source.stage() == Stage::Rounds);
    pair.release();
    pair.run();
    pair.check_end();
    let at = |wanted: &SourceAction| pair.source_did.iter().position(|action| action == wanted);
    let asked = at(&SourceAction::DescribeGuest);
    assert!(asked.is_some() && asked < at(&SourceAction::PauseGuest));
}

fn aborts(pair: &Pair) -> bool {
    let mut said = pair.to_target.iter().chain(&pair.to_source);
    said.any(|wire| matches!(wire, Wire::Said(Message::Abort(_))))
}

#[test]
fn state_of_another_processor_is_not_put_in_place() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_target_hears(|message| matches!(message, Message::State(_)));
    pair.to_target.clear();
    let (expected, found) = (digest(), digest() ^ 1 << 63);
    pair.tell_target(Message::State(State {
        cpu_digest: found,
        sections: state(),
    }));
    let misdeed = Misdeed::OtherCpu { expected, found };
    let ended = Outcome::Failed(SessionError::PeerMisbehaved(misdeed));
    assert_eq!(pair.target_outcome(), Some(&ended));
    let restores = |action: &TargetAction| matches!(action, TargetAction::RestoreState(_));
    assert!(!pair.target_did.iter().any(restores) && aborts(&pair));
    pair.settle();
    pair.check_end();
    assert!(pair.source_runs);
}

#[test]
fn a_target_that_prepared_another_processor_gets_no_guest() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_source_hears(|message| matches!(message, Message::Prepared(_)));
    pair.to_source.clear();
    let (expected, found) = (digest(), 0);
    pair.tell_source(Message::Prepared(Prepared { cpu_digest: found }));
    let misdeed = Misdeed::OtherCpu { expected, found };
    let ended = Outcome::Failed(SessionError::PeerMisbehaved(misdeed));
    assert_eq!(pair.source_outcome(), Some(&ended));
    assert!(!pair.given_away && pair.source_runs && aborts(&pair));
    pair.settle();
    pair.check_end();
}

/// A target may refuse from the announcement of the last round on, as long as the guest is the
/// source's, and at no other time.
#[test]
fn a_refusal_has_its_time() {
    let refuse = || Message::Refuse(Refuse { reasons: vec![] });
    let mut taken = 0;
    for steps in 0.. {
        let mut pair = Pair::new(&Plan::default());
        let went = (0..steps).take_while(|_| pair.step()).count();
        if went < steps {
            break;
        }
        let may = pair.source.stage() == Stage::Switchover;
        let given = pair.given_away;
        if pair.source.stage() == Stage::Finished {
            break;
        }
        pair.tell_source(refuse());
        match pair.source_outcome() {
            Some(Outcome::Refused(_)) => assert!(may, "after {steps} steps"),
            Some(Outcome::Failed(SessionError::PeerMisbehaved(_))) => assert!(!may && !given),
            Some(Outcome::InTransit(SessionError::PeerMisbehaved(_))) => assert!(given),
            other => panic!("{other:?}"),
        }
        taken += usize::from(may);
        pair.settle();
        pair.check_end();
    }
    assert!(taken > 2, "{taken}");
}
