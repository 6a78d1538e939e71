//! How a source is blamed at its target: lies told at a chosen moment, and what must follow them.

use limosa_session::target::Action as TargetAction;
use limosa_session::{Misdeed, Outcome, SessionError};
use limosa_wire::{AbortReason, Message, RoundEnd, RoundKind, RoundStart};

use super::{Pair, Plan, Wire, round};

pub(crate) fn start(number: u32, kind: RoundKind) -> Message {
    let round = round(number);
    Message::RoundStart(RoundStart { round, kind })
}

pub(crate) fn end(number: u32, frames: &[u64], pages: u64) -> Message {
    Message::RoundEnd(RoundEnd {
        round: round(number),
        frames: frames.to_vec(),
        pages,
    })
}

pub(crate) fn before_target_hears(such: fn(&Message) -> bool) -> Pair {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_target_hears(such);
    pair
}

/// In the middle of the first round, or of the last one: nothing of it has landed.
pub(crate) fn within(kind: RoundKind) -> Pair {
    let mut pair = match kind {
        RoundKind::Full => before_target_hears(|said| *said == start(0, RoundKind::Full)),
        _ => before_target_hears(|said| *said == start(1, RoundKind::Final)),
    };
    if let Some(Wire::Said(start)) = pair.to_target.pop_front() {
        pair.tell_target(start);
    }
    assert!(pair.to_target.is_empty() && pair.streams.is_empty());
    pair
}

pub(crate) fn misdeed_of(pair: &Pair) -> &Misdeed {
    match pair.target_outcome() {
        Some(Outcome::Failed(SessionError::PeerMisbehaved(misdeed))) => misdeed,
        other => panic!("{other:?}"),
    }
}

/// The target has ended with `expected`; it told the source so and gave everything back.
#[track_caller]
pub(crate) fn was_blamed(pair: &mut Pair, expected: &Misdeed, reason: AbortReason) {
    assert_eq!(misdeed_of(pair), expected);
    let told = pair.to_source.iter().find_map(|wire| match wire {
        Wire::Said(Message::Abort(abort)) => Some(abort.reason),
        _ => None,
    });
    assert_eq!(told, Some(reason));
    let made = |action: &TargetAction| matches!(action, TargetAction::PrepareGuest(_));
    assert_eq!(
        pair.target_did.iter().any(made),
        pair.target_did.contains(&TargetAction::DropGuest)
    );
    pair.settle();
    pair.check_end();
    assert!(pair.source_runs);
}

#[track_caller]
pub(crate) fn blamed(mut pair: Pair, lie: Message, expected: &Misdeed) {
    pair.to_target.clear();
    pair.tell_target(lie);
    was_blamed(&mut pair, expected, AbortReason::Protocol);
}
