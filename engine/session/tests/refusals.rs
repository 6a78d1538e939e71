//! What a target refuses, and how both sides then tell it: every reason at once, and nothing moved.
//! What the source refuses is in `agreement.rs`.

mod common;

use common::fixture::{AVX2, INTEL, cpu, table};
use common::{Pair, Plan, section};
use limosa_compat::{CpuidEntry, CpuidTable, GuestCpu, judge};
use limosa_session::source::Action as SourceAction;
use limosa_session::target::{Action as TargetAction, Input as TargetInput};
use limosa_session::{Custody, FaultKind, LocalFault, Outcome, SessionError};
use limosa_wire::limits::REASONS_MAX;
use limosa_wire::{
    EncodingSet, Hello, Message, MigrationId, PageEncoding, ProtocolVersion, Reason, ReasonKind,
    Verdict, VersionRange,
};

/// The reasons that both sides end with.
fn reasons_of(pair: &Pair) -> &[Reason] {
    pair.check_end();
    let Some(Outcome::Refused(at_source)) = pair.source_outcome() else {
        panic!("{:?}", pair.source_outcome());
    };
    let Some(Outcome::Refused(at_target)) = pair.target_outcome() else {
        panic!("{:?}", pair.target_outcome());
    };
    assert_eq!(at_source, at_target, "both tell the same");
    at_source
}

fn refused(plan: &Plan) -> Vec<Reason> {
    let mut pair = Pair::new(plan);
    pair.run();
    let reasons = reasons_of(&pair);
    for reason in reasons {
        assert!(
            !reason.what.is_empty() && !reason.remedy.is_empty(),
            "{reason:?}"
        );
    }
    let moved = |action: &TargetAction| {
        matches!(
            action,
            TargetAction::PrepareGuest(_) | TargetAction::AcceptStreams { .. }
        )
    };
    assert!(!pair.target_did.iter().any(moved), "nothing is made for it");
    let touched = |action: &SourceAction| {
        matches!(
            action,
            SourceAction::StartTracking | SourceAction::PauseGuest
        )
    };
    assert!(!pair.source_did.iter().any(touched));
    reasons.to_vec()
}

fn kinds(reasons: &[Reason]) -> Vec<ReasonKind> {
    reasons.iter().map(|reason| reason.kind).collect()
}

/// The reason's kind, a part of its words, and what gives cause for it.
type Case = (ReasonKind, &'static str, fn(&mut Plan));

#[test]
fn each_reason_has_its_kind() {
    let cases: [Case; 8] = [
        (ReasonKind::Machine, "kvm-x86", |plan| {
            plan.offer.machine = "kvm-x86".into();
        }),
        (ReasonKind::Memory, "memory", |plan| {
            plan.policy.memory_bytes_max -= 1;
        }),
        (ReasonKind::Capacity, "2 vCPUs", |plan| {
            plan.policy.vcpu_count_max = 1;
        }),
        (ReasonKind::Capacity, "9 vCPUs", |plan| {
            plan.offer.cpu = cpu(table(INTEL, AVX2), 9);
        }),
        (ReasonKind::State, "disk v3", |plan| {
            plan.offer.sections.push(section("disk", 3));
        }),
        (ReasonKind::State, "cpu v2", |plan| {
            plan.offer.sections = vec![section("cpu", 2)];
        }),
        (ReasonKind::Vendor, "AuthenticAMD", |plan| {
            plan.offer.cpu = cpu(table(*b"AuthenticAMD", AVX2), 2);
        }),
        (ReasonKind::Cpu, "avx2", |plan| {
            plan.policy.host.accept = table(INTEL, 0).into();
        }),
    ];
    for (kind, what, change) in cases {
        let mut plan = Plan::default();
        change(&mut plan);
        let reasons = refused(&plan);
        assert_eq!(kinds(&reasons), [kind], "{reasons:?}");
        assert!(reasons[0].what.contains(what), "{}", reasons[0].what);
    }
}

#[test]
fn where_there_are_more_reasons_than_a_refusal_carries_it_says_how_many() {
    const UNKNOWN_LEAVES: usize = 250;
    let mut entries = table(INTEL, AVX2).entries().to_vec();
    let all_set = |leaf| CpuidEntry {
        leaf,
        subleaf: 0,
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
    };
    entries.retain(|entry| entry.leaf != 7);
    entries[0].eax = u32::MAX >> 2;
    entries.push(all_set(7));
    entries.extend((0..UNKNOWN_LEAVES as u32).map(|leaf| all_set(0x100 + leaf)));
    let mut plan = Plan::default();
    plan.policy.host.accept = table(INTEL, 0).into();
    plan.offer.cpu = cpu(CpuidTable::new(entries).unwrap(), 2);
    let guest = GuestCpu::decode(&plan.offer.cpu).unwrap();
    let count = judge(&guest, &plan.policy.host).mismatches.len();
    assert!(count > REASONS_MAX);
    let reasons = refused(&plan);
    assert_eq!(reasons.len(), REASONS_MAX);
    let more = count - (REASONS_MAX - 1);
    assert_eq!(reasons[REASONS_MAX - 1].what, format!("and {more} more"));
}

#[test]
fn every_reason_is_told_at_once() {
    let mut plan = Plan::default();
    plan.offer.machine = "kvm-x86".into();
    plan.offer.sections = vec![section("disk", 3), section("net", 1)];
    plan.policy.memory_bytes_max = 0;
    plan.policy.vcpu_count_max = 0;
    plan.policy.host.accept = table(INTEL, 0).into();
    let found = kinds(&refused(&plan));
    for (kind, count) in [
        (ReasonKind::Machine, 1),
        (ReasonKind::Memory, 1),
        (ReasonKind::Capacity, 1),
        (ReasonKind::State, 2),
        (ReasonKind::Cpu, 1),
    ] {
        let of_kind = found.iter().filter(|one| **one == kind).count();
        assert_eq!(of_kind, count, "{kind:?} in {found:?}");
    }
}

/// Another kind of guest may describe its processor in another way; that is no misdeed.
#[test]
fn another_kind_of_guest_is_refused_for_being_one() {
    let mut plan = Plan::default();
    plan.offer.machine = "process".into();
    plan.offer.cpu = vec![];
    plan.policy.memory_bytes_max = 0;
    let found = kinds(&refused(&plan));
    assert_eq!(found, [ReasonKind::Machine, ReasonKind::Memory]);
}

/// A source that can't write what every source must; ours always can.
#[test]
fn encodings_that_every_source_has_are_needed() {
    for encoding in [PageEncoding::Raw, PageEncoding::Zero] {
        let mut pair = Pair::new(&Plan::default());
        pair.run_until_target_hears(|message| matches!(message, Message::Offer(_)));
        pair.to_target.clear();
        let mut offer = Plan::default().offer;
        offer.encodings = EncodingSet::ALL.without(encoding);
        pair.tell_target(Message::Offer(offer));
        pair.run();
        let reasons = reasons_of(&pair);
        assert_eq!(kinds(reasons), [ReasonKind::Protocol]);
        assert!(reasons[0].what.contains(&format!("{encoding:?}")));
    }
}

const fn newer() -> VersionRange {
    VersionRange {
        oldest: ProtocolVersion::new(1000),
        newest: ProtocolVersion::new(1001),
    }
}

fn hello(versions: VersionRange, migration_id: MigrationId) -> Message {
    Message::Hello(Hello {
        versions,
        migration_id,
        agent: "other".into(),
    })
}

#[test]
fn a_source_of_another_version_is_refused() {
    let mut pair = Pair::new(&Plan::default());
    pair.to_target.clear();
    pair.tell_target(hello(newer(), common::fixture::ID));
    pair.run();
    let reasons = reasons_of(&pair);
    assert_eq!(kinds(reasons), [ReasonKind::Protocol]);
    assert!(reasons[0].what.contains("1000"), "{}", reasons[0].what);
    // A source of any version reads a hello, and with it why it is refused.
    let hellos = |action: &TargetAction| matches!(action, TargetAction::Send(Message::Hello(_)));
    assert!(pair.target_did.iter().any(hellos));
}

#[test]
fn a_target_of_another_version_is_not_offered_anything() {
    let mut pair = Pair::new(&Plan::default());
    pair.to_target.clear();
    pair.tell_source(hello(newer(), common::fixture::ID));
    let Some(Outcome::Failed(SessionError::PeerIncompatible(reasons))) = pair.source_outcome()
    else {
        panic!("{:?}", pair.source_outcome());
    };
    assert_eq!(kinds(reasons), [ReasonKind::Protocol]);
    assert_eq!(pair.source.custody(), Custody::Source);
    let offers = |action: &SourceAction| matches!(action, SourceAction::Send(Message::Offer(_)));
    assert!(!pair.source_did.iter().any(offers));
}

/// What only the attempt to make the guest shows is a refusal, too.
#[test]
fn a_guest_that_cannot_be_made_is_refused() {
    let mut pair = Pair::new(&Plan::default());
    pair.hold_target = |input| *input == TargetInput::GuestPrepared;
    pair.run();
    let fault = LocalFault {
        kind: FaultKind::Capacity,
        text: "no huge pages are left".into(),
    };
    pair.give_target(TargetInput::LocalFailure(fault.clone()));
    assert!(pair.target_did.contains(&TargetAction::DropGuest));
    pair.run();
    pair.check_end();
    let Some(Outcome::Refused(reasons)) = pair.source_outcome() else {
        panic!("{:?}", pair.source_outcome());
    };
    assert_eq!(kinds(reasons), [ReasonKind::Capacity]);
    assert_eq!(reasons[0].what, "no huge pages are left");
    let failed = Outcome::Failed(SessionError::Local(fault));
    assert_eq!(pair.target_outcome(), Some(&failed));
}

/// Of more reasons than a verdict holds the first ones are told.
#[test]
fn a_refusal_has_an_end() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_target_hears(|message| matches!(message, Message::Offer(_)));
    pair.to_target.clear();
    let mut offer = Plan::default().offer;
    offer.sections = (0..3000).map(|version| section("x", version)).collect();
    pair.tell_target(Message::Offer(offer));
    let verdict = pair.target_did.iter().find_map(|action| match action {
        TargetAction::Send(message @ Message::Verdict(Verdict::Refused { .. })) => Some(message),
        _ => None,
    });
    verdict.expect("a refusal").encode().expect("it fits");
}
