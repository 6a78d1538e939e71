//! What must hold at any time, whatever happens; and what must be able to happen, so that the rules
//! say something.

use limosa_session::{Custody, Outcome, SessionError};
use stateright::Property;

use super::Migration;
use super::world::{Fit, Guest, World};

type Rule = fn(&Migration, &World) -> bool;

/// Every rule where the guest can live on the target.
pub(crate) fn of_alike_hosts() -> Vec<Property<Migration>> {
    let mut rules = vec![Property::eventually("both sides come to an end", ends)];
    rules.extend(possible());
    rules.extend(custody());
    rules.extend(agreement());
    rules
}

/// Every rule where it can't.
pub(crate) fn of_unlike_hosts() -> Vec<Property<Migration>> {
    let mut rules = vec![
        Property::eventually("both sides come to an end", ends),
        Property::always(
            "a guest that does not fit gets no page stream",
            |_: &Migration, world: &World| !world.pages.opened && !world.pages.let_in,
        ),
        Property::sometimes("both sides refuse", |_: &Migration, world: &World| {
            world.is_refused()
        }),
    ];
    rules.extend(custody());
    rules.extend(agreement());
    rules
}

fn agreement() -> Vec<Property<Migration>> {
    let always = |name, rule: Rule| Property::always(name, rule);
    vec![
        always(
            "no page stream is let in before both sides agreed",
            |_, world| !world.pages.too_early,
        ),
        always(
            "no guest runs on a host that can't give its processor",
            |_, world| world.host == Fit::Fits || world.target.guest != Guest::Runs,
        ),
        always("both sides refuse for the same reasons", |_, world| match (
            &world.source.outcome,
            &world.target.outcome,
        ) {
            (Some(Outcome::Refused(here)), Some(Outcome::Refused(there))) => {
                here == there && !here.is_empty()
            }
            _ => true,
        }),
    ]
}

fn ends(_: &Migration, world: &World) -> bool {
    !world.goes_on()
}

fn custody() -> Vec<Property<Migration>> {
    let always = |name, rule: Rule| Property::always(name, rule);
    vec![
        always("at most one host runs the guest", |_, world| {
            !(world.source.guest == Guest::Runs && world.target.guest == Guest::Runs)
        }),
        always(
            "the target runs only what the source gave away",
            |_, world| !world.ran_there || world.source.machine.custody() != Custody::Source,
        ),
        always("the target runs only what is its own", |_, world| {
            world.target.guest != Guest::Runs || world.target.machine.custody() == Custody::Target
        }),
        always(
            "what was given away stands still at the source",
            |_, world| {
                world.source.machine.custody() == Custody::Source
                    || world.source.guest != Guest::Runs
            },
        ),
        always(
            "a failure before the hand-over leaves the guest",
            |_, world| {
                let failed = matches!(
                    world.source.outcome,
                    Some(Outcome::Failed(_) | Outcome::Refused(_))
                );
                !failed || (world.source.guest == Guest::Runs && !world.ran_there)
            },
        ),
        always(
            "the guest is let go only once it runs elsewhere",
            |_, world| {
                let let_go = world.source.guest == Guest::Gone && !world.source.is_dead;
                !let_go || world.ran_there
            },
        ),
        always("a guest that nobody runs is in transit", |_, world| {
            let any_dead = world.source.is_dead || world.target.is_dead;
            let runs = [world.source.guest, world.target.guest].contains(&Guest::Runs);
            world.goes_on() || any_dead || runs || world.is_in_transit()
        }),
        always(
            "a guest that was taken runs unless its host fails",
            |_, world| match &world.target.outcome {
                Some(Outcome::InTransit(error)) => matches!(error, SessionError::Local(_)),
                _ => true,
            },
        ),
        always("machine and outcome agree on custody", |_, world| {
            let source = world.source.outcome.as_ref().map(Outcome::custody);
            let target = world.target.outcome.as_ref().map(Outcome::custody);
            source.is_none_or(|custody| custody == world.source.machine.custody())
                && target.is_none_or(|custody| custody == world.target.machine.custody())
        }),
    ]
}

fn possible() -> Vec<Property<Migration>> {
    let sometimes = |name, rule: Rule| Property::sometimes(name, rule);
    vec![
        sometimes("it completes", |_, world| {
            world.source.outcome == Some(Outcome::Completed)
                && world.target.outcome == Some(Outcome::Completed)
        }),
        sometimes("in transit, and it runs at the target", |_, world| {
            world.is_in_transit() && world.target.guest == Guest::Runs
        }),
        sometimes("in transit, and nobody runs it", |_, world| {
            !world.goes_on() && world.is_in_transit() && world.target.guest == Guest::Gone
        }),
        sometimes("it fails and the guest runs on", |_, world| {
            matches!(world.source.outcome, Some(Outcome::Failed(_)))
                && world.source.guest == Guest::Runs
        }),
        sometimes("a host that has changed is refused", |_, world| {
            world.host == Fit::Unfit && world.is_refused() && world.source.guest == Guest::Runs
        }),
    ]
}

impl World {
    /// Do both sides say that the guest can't live on the target?
    const fn is_refused(&self) -> bool {
        matches!(self.source.outcome, Some(Outcome::Refused(_)))
            && matches!(self.target.outcome, Some(Outcome::Refused(_)))
    }

    /// Has a side not come to its end?
    fn goes_on(&self) -> bool {
        self.source.is_active() || self.target.is_active()
    }

    /// Does the source say that an operator must look?
    const fn is_in_transit(&self) -> bool {
        matches!(self.source.outcome, Some(Outcome::InTransit(_)))
    }
}
