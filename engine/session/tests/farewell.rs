//! The last actions of a session that fails: what is done first, and what is not said to nobody.

mod common;

use common::{Cut, Pair, Plan};
use limosa_session::source::{Action as SourceAction, Input as SourceInput};
use limosa_session::target::Action as TargetAction;
use limosa_session::{Outcome, SessionError, Stage};
use limosa_wire::Message;

/// The order of the last actions: the guest goes on before anything that may take its time.
#[test]
fn a_paused_guest_goes_on_first() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until_source_hears(|message| matches!(message, Message::Prepared(_)));
    pair.source_did.clear();
    pair.give_source(SourceInput::Cancelled);
    let order: Vec<&SourceAction> = pair.source_did.iter().collect();
    assert!(
        matches!(
            order[..],
            [
                SourceAction::ResumeGuest,
                SourceAction::Send(Message::Abort(_)),
                SourceAction::StopTracking,
                SourceAction::CloseLink,
                SourceAction::Observe(_),
                SourceAction::Finished(Outcome::Failed(SessionError::Cancelled)),
            ]
        ),
        "{order:?}"
    );
    assert!(pair.source_runs);
}

/// Nobody is told anything over a link that is gone.
#[test]
fn a_lost_link_is_not_spoken_to() {
    let mut pair = Pair::new(&Plan::default());
    pair.run_until(|pair| pair.source.stage() == Stage::Rounds);
    pair.cut(Cut::Told);
    let aborts = |action: &SourceAction| matches!(action, SourceAction::Send(Message::Abort(_)));
    assert!(!pair.source_did.iter().any(aborts));
    assert!(pair.source_did.contains(&SourceAction::StopTracking));
    assert!(pair.target_did.contains(&TargetAction::DropGuest));
}
