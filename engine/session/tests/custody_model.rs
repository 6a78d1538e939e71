//! Every order of events of a migration to which up to three faults happen, checked exhaustively
//! with the real machines: never do two hosts run the guest, never does it get lost unnoticed, and
//! never does a page stream open or the guest run where both sides have not judged that it fits.
//!
//! **Not checked**: pages, more than one round before the last, and what an operator makes of a
//! guest in transit.

mod model;

use std::time::Duration;

use model::{Bug, Hosts, Migration, World};
use stateright::{Checker, Model, Path};

/// Far more than it takes; a model that grows beyond it is to be looked at.
const LONGEST: Duration = Duration::from_secs(120);

fn check(faults: u8, bug: Bug, hosts: Hosts) -> impl Checker<Migration> {
    let checker = Migration { faults, bug, hosts }
        .checker()
        .threads(2)
        .timeout(LONGEST)
        .spawn_bfs()
        .join();
    println!(
        "{faults} faults, {hosts:?}, {bug:?}: {} states, {} events deep",
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
    let checker = check(3, Bug::None, Hosts::Alike);
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
        (
            Bug::TrustsItsHost,
            "no guest runs on a host that can't give its processor",
        ),
        (
            Bug::LetsInEarly,
            "no page stream is let in before both sides agreed",
        ),
    ] {
        let found = check(1, bug, Hosts::Alike).discovery(rule);
        let found = found.unwrap_or_else(|| panic!("{bug:?} does not break: {rule}"));
        println!("{bug:?}: {:?}", story(found));
    }
}

/// Either side's judgement is enough, whatever the other makes of it and whatever else happens.
#[test]
fn one_side_that_judges_is_enough() {
    for bug in [
        Bug::None,
        Bug::TargetJudgesNothing,
        Bug::SourceJudgesNothing,
    ] {
        check(2, bug, Hosts::Unlike).assert_properties();
    }
    let rule = "a guest that does not fit gets no page stream";
    let found = check(0, Bug::NobodyJudges, Hosts::Unlike).discovery(rule);
    println!("{:?}", story(found.expect("two blind sides are found")));
}
