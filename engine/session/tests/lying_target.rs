//! What a target says that it must not: the source blames it for the exact deed, and keeps the
//! guest unless it has given it away.

mod common;

use common::fixture::{AVX2, ID, INTEL, SECRET, digest, host};
use common::{Pair, Plan, Wire, round};
use limosa_session::source::{Action as SourceAction, Input as SourceInput};
use limosa_session::target::Input as TargetInput;
use limosa_session::{Misdeed, Outcome, SessionError, Stage};
use limosa_wire::{
    AbortReason, Agreed, EncodingSet, HandOver, Hello, Message, MessageKind, MigrationId,
    PageEncoding, Prepared, Refuse, RoundEnd, RoundKind, RoundLanded, RoundStart, Running, State,
    StreamsBound, Verdict, VersionRange,
};

fn accepted(stream_count: u16, encodings: EncodingSet) -> Message {
    Message::Verdict(Verdict::Accepted {
        stream_count,
        encodings,
        secret: SECRET,
        host: host(INTEL, AVX2).encode(),
        cpu_digest: digest(),
    })
}

fn hello(migration_id: MigrationId) -> Message {
    Message::Hello(Hello {
        versions: VersionRange::SUPPORTED,
        migration_id,
        agent: "target".into(),
    })
}

fn round_landed(number: u32, pages: u64) -> Message {
    let round = round(number);
    Message::RoundLanded(RoundLanded { round, pages })
}

fn prepared() -> Message {
    let cpu_digest = digest();
    Message::Prepared(Prepared { cpu_digest })
}

/// Every message with which no state of a source has a use for its content.
fn every_message() -> Vec<Message> {
    vec![
        hello(ID),
        Message::Offer(common::fixture::offer()),
        accepted(1, EncodingSet::ALL),
        Message::Verdict(Verdict::Refused { reasons: vec![] }),
        Message::StreamsBound(StreamsBound { stream_count: 2 }),
        Message::RoundStart(RoundStart {
            round: round(0),
            kind: RoundKind::Full,
        }),
        Message::RoundEnd(RoundEnd {
            round: round(0),
            frames: vec![10, 10],
            pages: 7,
        }),
        round_landed(0, 0),
        Message::State(State {
            cpu_digest: digest(),
            sections: vec![],
        }),
        prepared(),
        Message::Agreed(Agreed {
            cpu_digest: digest(),
        }),
        Message::Refuse(Refuse { reasons: vec![] }),
        Message::HandOver(HandOver {}),
        Message::Running(Running {}),
    ]
}

/// Which messages a source has a use for in the state that it is in, by what it did last.
fn may_hear(pair: &Pair) -> &'static [MessageKind] {
    use MessageKind as K;
    let did = |which: fn(&SourceAction) -> bool| pair.source_did.iter().any(which);
    let said = |kind: K| {
        let kinds = pair.source_did.iter().filter_map(|action| match action {
            SourceAction::Send(message) => Some(message.kind()),
            _ => None,
        });
        kinds.filter(|said| *said == kind).count()
    };
    let bound = did(|action| *action == SourceAction::StartTracking);
    let landed = |pair: &Pair| {
        pair.source_did
            .iter()
            .filter(|it| **it == SourceAction::Harvest)
            .count()
    };
    match pair.source.stage() {
        Stage::Handshake if said(K::Offer) == 0 => &[K::Hello, K::Verdict],
        Stage::Handshake => &[K::Verdict],
        Stage::Prepare if !bound => &[K::StreamsBound],
        // After each round but the last, one harvest follows its landing.
        Stage::Rounds if said(K::RoundEnd) == landed(pair) => &[K::RoundLanded],
        Stage::Switchover => &[K::RoundLanded, K::Prepared, K::Refuse],
        Stage::HandOver => &[K::Running],
        _ => &[],
    }
}

fn misdeed_of(pair: &Pair) -> Misdeed {
    match pair.source_outcome() {
        Some(
            Outcome::Failed(SessionError::PeerMisbehaved(misdeed))
            | Outcome::InTransit(SessionError::PeerMisbehaved(misdeed)),
        ) => misdeed.clone(),
        other => panic!("{other:?}"),
    }
}

/// The source ends with `expected`, and the target hears that it broke the protocol.
#[track_caller]
fn blamed(mut pair: Pair, lie: Message, expected: &Misdeed) {
    pair.to_source.clear();
    pair.tell_source(lie);
    assert_eq!(misdeed_of(&pair), *expected);
    let told = pair.to_target.iter().find_map(|wire| match wire {
        Wire::Said(Message::Abort(abort)) => Some(abort.reason),
        _ => None,
    });
    assert_eq!(told, Some(AbortReason::Protocol));
    pair.settle();
    pair.check_end();
}

fn before_source_hears(such: fn(&Message) -> bool) -> Pair {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_source_hears(such);
    pair
}

#[test]
fn messages_out_of_place_are_blamed_after_every_step() {
    let mut blames = 0;
    for steps in 0.. {
        let reached = || {
            let mut pair = Pair::new(&Plan {
                dirty: vec![200_000],
                ..Plan::default()
            });
            let went = (0..steps).take_while(|_| pair.step()).count();
            (went == steps && pair.source.stage() != Stage::Finished).then_some(pair)
        };
        if reached().is_none() {
            break;
        }
        for lie in every_message() {
            let Some(pair) = reached() else { break };
            let (message, stage) = (lie.kind(), pair.source.stage());
            if may_hear(&pair).contains(&message) {
                continue;
            }
            blamed(pair, lie, &Misdeed::OutOfPlace { message, stage });
            blames += 1;
        }
    }
    assert!(blames > 200, "{blames}");
}

#[test]
fn an_answer_for_another_migration() {
    let pair = before_source_hears(|message| matches!(message, Message::Hello(_)));
    let other = hello(MigrationId::new([8; 16]));
    blamed(pair, other, &Misdeed::OtherMigration);
}

#[test]
fn more_than_was_offered() {
    let raw = EncodingSet::of(&[PageEncoding::Raw]);
    let alien = EncodingSet::from_bits(u32::MAX);
    for (stream_count, encodings, what) in [
        (0, EncodingSet::ALL, "page streams"),
        (3, EncodingSet::ALL, "page streams"),
        (2, alien, "page encodings"),
        (2, raw, "page encodings"),
        (2, EncodingSet::EMPTY, "page encodings"),
    ] {
        let pair = before_source_hears(|message| matches!(message, Message::Verdict(_)));
        let lie = accepted(stream_count, encodings);
        blamed(pair, lie, &Misdeed::AcceptedUnoffered { what });
    }
}

#[test]
fn other_streams_than_agreed() {
    for found in [0, 1, 3] {
        let pair = before_source_hears(|message| matches!(message, Message::StreamsBound(_)));
        let lie = Message::StreamsBound(StreamsBound {
            stream_count: found,
        });
        blamed(
            pair,
            lie,
            &Misdeed::AcceptedUnoffered {
                what: "page streams",
            },
        );
    }
}

#[test]
fn a_round_that_did_not_land_as_it_was_sent() {
    let first = || before_source_hears(|message| matches!(message, Message::RoundLanded(_)));
    let last = || {
        before_source_hears(
            |message| matches!(message, Message::RoundLanded(landed) if landed.round.get() == 1),
        )
    };
    for (pair, number, pages) in [(first(), 0, common::PAGES), (last(), 1, 7)] {
        let lies = [
            (
                round_landed(number, pages - 1),
                Misdeed::TotalsDiffer {
                    round: round(number),
                    what: "pages",
                },
            ),
            (
                round_landed(number + 1, pages),
                Misdeed::WrongRound {
                    expected: round(number),
                    found: round(number + 1),
                },
            ),
        ];
        drop(pair);
        for (lie, misdeed) in lies {
            let pair = if number == 0 { first() } else { last() };
            blamed(pair, lie, &misdeed);
        }
    }
}

/// The last round's landing may be told once, and only after its end was.
#[test]
fn the_last_round_lands_once() {
    let stage = Stage::Switchover;
    let message = MessageKind::RoundLanded;
    let mut early = Pair::new(&Plan::default());
    early.hold_source =
        |input| matches!(input, SourceInput::RoundDone(report) if report.round.get() == 1);
    early.run();
    blamed(
        early,
        round_landed(1, 7),
        &Misdeed::OutOfPlace { message, stage },
    );
    let mut twice = Pair::new(&Plan::default());
    twice.hold_source = |input| matches!(input, SourceInput::StateExported(_));
    twice.run();
    blamed(
        twice,
        round_landed(1, 7),
        &Misdeed::OutOfPlace { message, stage },
    );
}

/// Prepared before everything has left and landed: the guest is not given to such a target.
#[test]
fn a_target_that_is_prepared_too_early() {
    let message = MessageKind::Prepared;
    let holds: [fn(&SourceInput) -> bool; 2] = [
        |input| matches!(input, SourceInput::StateExported(_)),
        |input| matches!(input, SourceInput::RoundDone(report) if report.round.get() == 1),
    ];
    for hold in holds {
        let mut pair = Pair::new(&Plan::default());
        pair.hold_source = hold;
        pair.run();
        let stage = Stage::Switchover;
        blamed(pair, prepared(), &Misdeed::OutOfPlace { message, stage });
    }
}

/// A target that claims to run the guest before it was handed over, or after.
#[test]
fn a_target_that_claims_to_run_the_guest() {
    let mut pair = before_source_hears(|message| matches!(message, Message::Prepared(_)));
    pair.hold_target = |input| *input == TargetInput::GuestResumed;
    let (message, stage) = (MessageKind::Running, Stage::Switchover);
    let lie = Message::Running(Running {});
    blamed(pair, lie, &Misdeed::OutOfPlace { message, stage });
}

/// After the hand-over a misdeed ends the wait, and does not give the guest back.
#[test]
fn a_misdeed_after_the_hand_over_gives_nothing_back() {
    for lie in every_message() {
        if lie.kind() == MessageKind::Running {
            continue;
        }
        let mut pair = Pair::new(&Plan::default());
        pair.run_until(|pair| pair.given_away);
        pair.tell_source(lie);
        assert!(matches!(
            misdeed_of(&pair),
            Misdeed::OutOfPlace {
                stage: Stage::HandOver,
                ..
            }
        ));
        assert!(matches!(pair.source_outcome(), Some(Outcome::InTransit(_))));
        pair.settle();
        pair.check_end();
    }
}
