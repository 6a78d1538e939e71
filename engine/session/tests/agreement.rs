//! Both sides judge the guest's processor and agree on it before any page stream is let in: what
//! each refuses, whom it blames, and that a peer which only says that it has judged gets nothing.

mod common;

use common::fixture::{AMD, AVX2, INTEL, SECRET, cpu, digest, host, table};
use common::{Pair, Plan, Wire};
use limosa_compat::{CpuidEntry, CpuidTable, HostCpu, MsrTable, Processor, TscScaling};
use limosa_session::source::Action as SourceAction;
use limosa_session::target::{Action as TargetAction, Input as TargetInput};
use limosa_session::{Event, Misdeed, Outcome, SessionError, Warning};
use limosa_wire::{
    AbortReason, Agreed, EncodingSet, Message, Reason, ReasonKind, Refuse, StreamIndex, Verdict,
};

/// What a target says that takes everything in: of its host, and of the guest.
fn accepted(host: Vec<u8>, cpu_digest: u64) -> Message {
    Message::Verdict(Verdict::Accepted {
        stream_count: 2,
        encodings: EncodingSet::ALL,
        secret: SECRET,
        host,
        cpu_digest,
    })
}

/// A source that hears `verdict` instead of its target's true one.
fn after(verdict: Message) -> Pair {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_source_hears(|message| matches!(message, Message::Verdict(_)));
    pair.to_source.clear();
    pair.tell_source(verdict);
    pair
}

/// No stream was opened or let in, nothing was recorded or stopped, and nothing is left.
#[track_caller]
fn nothing_moved(pair: &Pair) {
    pair.check_end();
    let touched = |action: &SourceAction| {
        matches!(
            action,
            SourceAction::OpenStreams { .. }
                | SourceAction::StartTracking
                | SourceAction::PauseGuest
                | SourceAction::StartRound(_)
        )
    };
    assert!(
        !pair.source_did.iter().any(touched),
        "{:?}",
        pair.source_did
    );
    let lets_in = |action: &TargetAction| matches!(action, TargetAction::AcceptStreams { .. });
    assert!(
        !pair.target_did.iter().any(lets_in),
        "{:?}",
        pair.target_did
    );
    let made = |action: &TargetAction| matches!(action, TargetAction::PrepareGuest(_));
    assert_eq!(
        pair.target_did.iter().any(made),
        pair.target_did.contains(&TargetAction::DropGuest)
    );
}

/// The reasons with which both sides end.
#[track_caller]
fn reasons_of(pair: &Pair) -> &[Reason] {
    let ends = (pair.source_outcome(), pair.target_outcome());
    let (Some(Outcome::Refused(at_source)), Some(Outcome::Refused(at_target))) = ends else {
        panic!("{ends:?}");
    };
    assert_eq!(at_source, at_target, "both tell the same");
    at_source
}

#[track_caller]
fn blamed_by_source(mut pair: Pair, expected: impl Fn(&Misdeed) -> bool) {
    match pair.source_outcome() {
        Some(Outcome::Failed(SessionError::PeerMisbehaved(misdeed))) => {
            assert!(expected(misdeed), "{misdeed}");
        }
        other => panic!("{other:?}"),
    }
    let told = pair.to_target.iter().find_map(|wire| match wire {
        Wire::Said(Message::Abort(abort)) => Some(abort.reason),
        _ => None,
    });
    assert_eq!(told, Some(AbortReason::Protocol));
    pair.settle();
    pair.check_end();
}

#[test]
fn a_target_that_accepts_what_its_host_can_not_give_is_refused() {
    for (host, kind, words) in [
        (host(AMD, AVX2), ReasonKind::Vendor, "vendor"),
        (host(INTEL, 0), ReasonKind::Cpu, "avx2"),
    ] {
        let mut pair = after(accepted(host.encode(), digest()));
        pair.run();
        nothing_moved(&pair);
        let reasons = reasons_of(&pair);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert_eq!(reasons[0].kind, kind);
        assert!(reasons[0].what.contains(words), "{}", reasons[0].what);
        assert!(!reasons[0].remedy.is_empty());
    }
}

/// The source names every reason at once, as the target would have.
#[test]
fn the_source_names_every_reason() {
    const BITS: u32 = AVX2 | 1 << 3 | 1 << 8;
    let mut plan = Plan::default();
    plan.offer.cpu = cpu(table(INTEL, BITS), 2);
    plan.policy.host = host(INTEL, BITS);
    let mut pair = Pair::new(&plan);
    pair.run_until_source_hears(|message| matches!(message, Message::Verdict(_)));
    let Some(Wire::Said(Message::Verdict(Verdict::Accepted { cpu_digest, .. }))) =
        pair.to_source.pop_front()
    else {
        panic!("the target accepts");
    };
    pair.tell_source(accepted(host(INTEL, 0).encode(), cpu_digest));
    pair.run();
    nothing_moved(&pair);
    let names: Vec<&str> = reasons_of(&pair)
        .iter()
        .filter_map(|reason| reason.what.split(' ').next())
        .collect();
    assert_eq!(names, ["bmi1", "avx2", "bmi2"]);
}

#[test]
fn a_host_that_cannot_be_read_is_the_targets_fault() {
    let whole = host(INTEL, AVX2).encode();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 4;
    let guest = Plan::default().offer.cpu;
    let longer = [&whole[..], &[0]].concat();
    for bytes in [
        vec![],
        vec![0x55; 100],
        whole[..40].to_vec(),
        damaged,
        guest,
        longer,
    ] {
        let pair = after(accepted(bytes, digest()));
        blamed_by_source(pair, |misdeed| {
            matches!(misdeed, Misdeed::UnreadableHost { .. })
        });
    }
}

#[test]
fn a_verdict_on_another_processor_is_blamed() {
    let found = digest() ^ 1;
    let pair = after(accepted(host(INTEL, AVX2).encode(), found));
    let expected = digest();
    blamed_by_source(pair, |misdeed| {
        *misdeed == Misdeed::OtherCpu { expected, found }
    });
}

/// Page streams are let in once the source has said that it agrees, and not a moment earlier.
#[test]
fn no_stream_is_let_in_before_both_agree() {
    let mut pair = Pair::new(&Plan::default());
    let lets_in = |action: &TargetAction| matches!(action, TargetAction::AcceptStreams { .. });
    pair.run_until_target_hears(|message| matches!(message, Message::Agreed(_)));
    assert!(!pair.target_did.iter().any(lets_in));
    let said = |action: &SourceAction| matches!(action, SourceAction::Send(Message::Agreed(_)));
    let opens = |action: &SourceAction| matches!(action, SourceAction::OpenStreams { .. });
    let at = |which: fn(&SourceAction) -> bool| pair.source_did.iter().position(which);
    assert!(at(said).is_some() && at(said) < at(opens));
    pair.run();
    pair.check_end();
    assert!(pair.target_did.iter().any(lets_in) && pair.target_runs);
}

#[test]
fn a_source_that_agrees_on_another_processor_is_blamed() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_target_hears(|message| matches!(message, Message::Agreed(_)));
    pair.to_target.clear();
    let found = !digest();
    pair.tell_target(Message::Agreed(Agreed { cpu_digest: found }));
    let expected = digest();
    let misdeed = Misdeed::OtherCpu { expected, found };
    let ended = Outcome::Failed(SessionError::PeerMisbehaved(misdeed));
    assert_eq!(pair.target_outcome(), Some(&ended));
    let lets_in = |action: &TargetAction| matches!(action, TargetAction::AcceptStreams { .. });
    assert!(!pair.target_did.iter().any(lets_in));
    assert!(pair.target_did.contains(&TargetAction::DropGuest));
    pair.settle();
    pair.check_end();
}

/// A source may refuse once it was accepted, and no earlier or later.
#[test]
fn a_refusal_of_the_source_ends_the_target() {
    let reasons = vec![Reason {
        kind: ReasonKind::Cpu,
        what: "no".into(),
        remedy: "none".into(),
    }];
    let refuse = || {
        Message::Refuse(Refuse {
            reasons: reasons.clone(),
        })
    };
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_target_hears(|message| matches!(message, Message::Agreed(_)));
    pair.tell_target(refuse());
    assert_eq!(
        pair.target_outcome(),
        Some(&Outcome::Refused(reasons.clone()))
    );
    assert!(pair.target_did.contains(&TargetAction::DropGuest));
    let aborts = |action: &TargetAction| matches!(action, TargetAction::Send(Message::Abort(_)));
    assert!(!pair.target_did.iter().any(aborts), "it knows");
    let mut late = Pair::new(&Plan::default());
    late.run_until_target_hears(|message| matches!(message, Message::RoundStart(_)));
    late.tell_target(refuse());
    let out_of_place = matches!(
        late.target_outcome(),
        Some(Outcome::Failed(SessionError::PeerMisbehaved(
            Misdeed::OutOfPlace { .. }
        )))
    );
    assert!(out_of_place, "{:?}", late.target_outcome());
}

/// A source that can't read its own guest's processor has not judged it: it fails by itself.
#[test]
fn a_guest_that_its_own_source_cannot_read_does_not_move() {
    let plan = Plan {
        offer: limosa_wire::Offer {
            cpu: vec![1, 2, 3],
            ..Plan::default().offer
        },
        ..Plan::default()
    };
    let mut pair = Pair::new(&plan);
    pair.run_until_target_hears(|message| matches!(message, Message::Offer(_)));
    pair.to_target.clear();
    pair.tell_source(accepted(host(INTEL, AVX2).encode(), 0));
    let Some(Outcome::Failed(SessionError::Local(fault))) = pair.source_outcome() else {
        panic!("{:?}", pair.source_outcome());
    };
    assert!(fault.text.contains("processor description"), "{fault}");
    pair.settle();
    nothing_moved(&pair);
}

/// What the streams do before they are let in is nobody's business yet.
#[test]
fn a_stream_that_breaks_before_it_is_let_in_is_missed_later() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_target_hears(|message| matches!(message, Message::Agreed(_)));
    pair.give_target(TargetInput::StreamLost(StreamIndex::new(0), "cut".into()));
    pair.run();
    pair.check_end();
    assert!(pair.target_runs);
}

/// `md-clear` may be lost on a host that MDS does not affect. The guest sees it, the host lacks it.
fn forgiven() -> Plan {
    const MD_CLEAR: u32 = 1 << 10;
    const ARCH_CAPABILITIES: u32 = 1 << 29;
    const MDS_NO_AND_TAA_NO: u64 = 1 << 5 | 1 << 8;
    let with = |edx: u32| {
        let entries = table(INTEL, AVX2).entries().to_vec().into_iter();
        let entries = entries.map(|entry| CpuidEntry {
            edx: if entry.leaf == 7 { edx } else { entry.edx },
            ..entry
        });
        CpuidTable::new(entries.collect()).expect("a table")
    };
    let host = Processor {
        cpuid: with(ARCH_CAPABILITIES),
        msrs: MsrTable::new(vec![(0x10a, MDS_NO_AND_TAA_NO)]).expect("a table"),
    };
    let mut plan = Plan::default();
    plan.offer.cpu = cpu(with(MD_CLEAR), 2);
    plan.policy.host = HostCpu::plain(host, 0, TscScaling::No);
    plan
}

#[test]
fn what_is_forgiven_is_told_on_both_sides_once() {
    let mut pair = Pair::new(&forgiven());
    pair.run();
    pair.check_end();
    assert!(pair.target_runs, "{:?}", pair.source_outcome());
    let warning = |event: &Event| match event {
        Event::Warning(warning) => Some(warning.clone()),
        _ => None,
    };
    let at_source = pair.source_did.iter().filter_map(|action| match action {
        SourceAction::Observe(event) => warning(event),
        _ => None,
    });
    let at_target = pair.target_did.iter().filter_map(|action| match action {
        TargetAction::Observe(event) => warning(event),
        _ => None,
    });
    let (at_source, at_target): (Vec<Warning>, Vec<Warning>) =
        (at_source.collect(), at_target.collect());
    assert_eq!(at_source, at_target);
    let [warning] = &at_source[..] else {
        panic!("{at_source:?}");
    };
    assert_eq!(warning.name, "md-clear");
    assert!(warning.forgiven.contains("VERW"), "{}", warning.forgiven);
    let line = warning.to_string();
    assert!(
        line.contains("md-clear") && line.contains("forgiven"),
        "{line}"
    );
}
