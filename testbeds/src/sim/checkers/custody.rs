//! Custody: who may run the guest, and who does. It is not told what the machines are thinking.
//!
//! Checked, after every input of either machine and every piece of work:
//! * never may two sides run the guest, and never do two;
//! * the guest runs at the target only after the hand-over has arrived there;
//! * from the moment that the hand-over is sent, the guest does not run at the source, and it was
//!   paused before;
//! * the source lets its guest go for good only once it runs at the target.
//!
//! Checked, at the end of every attempt:
//! * the source says `Failed` or `Refused` only where it never sent the hand-over, and the guest
//!   runs there then;
//! * it says `InTransit` wherever it has sent the hand-over and never heard that the guest runs,
//!   and nowhere else; `Completed` only where the guest has run at the target;
//! * the target says `Completed` only where the guest has run there, `InTransit` only where it had
//!   taken the guest, and `Failed` only where it had not;
//! * a target that has taken the guest runs it, whatever happens to links and peer, unless the
//!   guest itself can't be made to run there;
//! * a source that has completed has let its guest go, and one that was told to cancel after the
//!   hand-over waits for the word of the target all the same.
//!
//! **Not checked**: whether an operator who finds a guest in transit decides rightly; here the
//! operator waits until both machines have ended, as a real one must. Nothing is checked of a side
//! whose process is gone, but that it does not run the guest.

use limosa_session::{Custody, Outcome, SessionError};

use super::Findings;

const NAME: &str = "custody";

/// Who may run the guest and who does, now. A side that is gone has no custody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    /// What the source's machine says.
    pub(crate) source: Option<Custody>,
    /// What the target's machine says.
    pub(crate) target: Option<Custody>,
    /// Does the guest run at the source?
    pub(crate) runs_here: bool,
    /// Does the guest run at the target?
    pub(crate) runs_there: bool,
}

/// How the machines ended; none for a side that is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'a> {
    /// The source's outcome.
    pub(crate) source: Option<&'a Outcome>,
    /// The target's outcome.
    pub(crate) target: Option<&'a Outcome>,
    /// Does the guest run at the source?
    pub(crate) runs_here: bool,
}

/// The checker, for one attempt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CustodyChecker {
    handed_over: bool,
    arrived: bool,
    ran_there: bool,
    heard_running: bool,
    released: bool,
    resume_failed: bool,
}

impl CustodyChecker {
    /// The source sends the hand-over.
    pub(crate) fn hands_over(&mut self, holds: Holds, findings: &mut Findings) {
        self.handed_over = true;
        if holds.runs_here {
            findings.add(NAME, "the source hands a running guest over".into());
        }
    }

    /// The hand-over is at the target.
    pub(crate) const fn hand_over_arrives(&mut self) {
        self.arrived = true;
    }

    /// The word that the guest runs is at the source.
    pub(crate) const fn hears_running(&mut self) {
        self.heard_running = true;
    }

    /// Has the guest run at the target?
    pub(crate) const fn has_run_there(&self) -> bool {
        self.ran_there
    }

    /// The source lets its guest go for good.
    pub(crate) fn releases(&mut self, findings: &mut Findings) {
        self.released = true;
        if !self.ran_there {
            findings.add(
                NAME,
                "the source releases a guest that never ran elsewhere".into(),
            );
        }
    }

    /// The guest can't be made to run at the target.
    pub(crate) const fn fails_to_resume(&mut self) {
        self.resume_failed = true;
    }

    /// Looks at who may run the guest, and who does.
    pub(crate) fn look(&mut self, holds: Holds, findings: &mut Findings) {
        self.ran_there |= holds.runs_there;
        if holds.source == Some(Custody::Source) && holds.target == Some(Custody::Target) {
            findings.add(NAME, "both sides may run the guest".into());
        }
        if holds.runs_here && holds.runs_there {
            findings.add(NAME, "the guest runs on both sides".into());
        }
        if holds.runs_there && !self.arrived {
            findings.add(
                NAME,
                "the guest runs at the target, and was not handed over".into(),
            );
        }
        if holds.runs_here && self.handed_over {
            findings.add(
                NAME,
                "the guest runs at the source, which handed it over".into(),
            );
        }
        let says_taken = matches!(holds.target, Some(Custody::Target));
        if says_taken && !self.arrived {
            findings.add(
                NAME,
                "the target took a guest that was not handed over".into(),
            );
        }
    }

    /// Looks at how an attempt ended.
    pub(crate) fn end(&self, ends: Ends<'_>, findings: &mut Findings) {
        let undecided = self.handed_over && !self.heard_running;
        let wrong_source = match ends.source {
            None => None,
            Some(Outcome::Failed(_) | Outcome::Refused(_)) if self.handed_over => {
                Some("says that the guest is its own, and handed it over")
            }
            Some(Outcome::Failed(_) | Outcome::Refused(_)) if !ends.runs_here => {
                Some("failed before the hand-over, and its guest does not run")
            }
            Some(Outcome::InTransit(_)) if !undecided => {
                Some("says in transit of a guest whose place is known")
            }
            Some(Outcome::InTransit(SessionError::Cancelled)) => {
                Some("lets an operator call back a guest that it handed over")
            }
            Some(Outcome::Completed) if undecided || !self.ran_there => {
                Some("says completed of a guest that is not known to run")
            }
            Some(Outcome::Completed) if !self.released => {
                Some("says completed, and still holds its guest")
            }
            Some(_) => None,
        };
        let wrong_target = match ends.target {
            Some(Outcome::Completed) if !self.ran_there => {
                Some("says completed, and the guest never ran there")
            }
            Some(Outcome::InTransit(_)) if !self.arrived => {
                Some("says in transit of a guest that it never took")
            }
            Some(Outcome::Failed(_) | Outcome::Refused(_)) if self.arrived => {
                Some("says failed of a guest that it had taken")
            }
            Some(_) if self.arrived && !self.ran_there && !self.resume_failed => {
                Some("took the guest, and gave it up without a try")
            }
            _ => None,
        };
        for (side, wrong) in [("source", wrong_source), ("target", wrong_target)] {
            if let Some(wrong) = wrong {
                findings.add(NAME, format!("the {side} {wrong}"));
            }
        }
    }
}
