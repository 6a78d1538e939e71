//! Every order of events of a migration to which up to three faults happen, checked exhaustively
//! with the real machines: never do two hosts run the guest, and never does it get lost unnoticed.
//!
//! **Not checked**: pages, more than one round before the last, and what an operator makes of a
//! guest in transit.

mod model;

use std::time::Duration;

use model::{Bug, Migration, World};
use stateright::{Checker, Model, Path};

/// Far more than it takes; a model that grows beyond it is to be looked at.
const LONGEST: Duration = Duration::from_secs(120);

fn check(faults: u8, bug: Bug) -> impl Checker<Migration> {
    let checker = Migration { faults, bug }
        .checker()
        .threads(2)
        .timeout(LONGEST)
        .spawn_bfs()
        .join();
    println!(
        "{faults} faults, {bug:?}: {} states, {} events deep",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker
}

/// What happened up to the state that breaks a rule.
fn story(path: Path<World, model::Happening>) -> Vec<model::Happening> {
    path.into_actions()
}

#[test]
fn whatever_happens_at_most_one_host_runs_the_guest() {
    let checker = check(3, Bug::None);
    checker.assert_properties();
    assert!(checker.unique_state_count() > 50_000, "too few to say much");
}

#[test]
fn planted_bugs_are_found() {
    for (bug, rule) in [
        (Bug::ResumesInTransit, "at most one host runs the guest"),
        (
            Bug::ForgetsToResume,
            "a failure before the hand-over leaves the guest",
        ),
        (
            Bug::NeverPauses,
            "what was given away stands still at the source",
        ),
        (
            Bug::RunsOncePrepared,
            "the target runs only what the source gave away",
        ),
        (
            Bug::HearsAfterTheEnd,
            "the target runs only what is its own",
        ),
    ] {
        let found = check(1, bug).discovery(rule);
        let found = found.unwrap_or_else(|| panic!("{bug:?} does not break: {rule}"));
        println!("{bug:?}: {:?}", story(found));
    }
}
