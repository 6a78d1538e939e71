//! Progress: what nothing disturbs completes, and everything ends. It does not judge speed.
//!
//! Checked: an attempt in which nothing harmful has happened completes, or ends because the guest
//! writes too fast where the plan lets that end it; every attempt ends within `ATTEMPT_MAX` of
//! simulated time; a machine's timer that has fired lies in the future afterwards; no machine calls
//! its driver's report a misuse; a machine that has finished wants nothing more, and does not leave
//! the guest's writes being recorded; a guest that nobody runs was lost with a host.
//!
//! **Not checked**: how long a migration takes, how long the guest stands still, and how many
//! rounds it needs.

use std::time::Duration;

use limosa_session::{Outcome, SessionError};

use super::Findings;

const NAME: &str = "progress";

/// Longest attempt, in simulated time: far above the sum of all time-outs and stalls.
pub(crate) const ATTEMPT_MAX: Duration = Duration::from_secs(60);

/// The checker. It remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProgressChecker;

impl ProgressChecker {
    /// An attempt has taken so long.
    pub(crate) fn look(self, took: Duration, findings: &mut Findings) {
        if took > ATTEMPT_MAX {
            findings.add(
                NAME,
                format!("an attempt did not end within {ATTEMPT_MAX:?}"),
            );
        }
    }

    /// A timer fired, and is set anew.
    pub(crate) fn timer_fires(
        self,
        fired: Duration,
        next: Option<Duration>,
        findings: &mut Findings,
    ) {
        if next.is_some_and(|next| next <= fired) {
            findings.add(
                NAME,
                format!("a timer that fired at {fired:?} stands still"),
            );
        }
    }

    /// A machine did not expect what it asked for.
    pub(crate) fn misuse(self, text: &str, findings: &mut Findings) {
        findings.add(NAME, format!("a machine and its driver disagree: {text}"));
    }

    /// A machine that has finished was asked whether it wants more.
    pub(crate) fn finishes(self, wants_more: Wants, findings: &mut Findings) {
        if wants_more == Wants::More {
            findings.add(NAME, "a machine goes on after its end".into());
        }
    }

    /// The source has ended, and the guest's writes are still recorded.
    pub(crate) fn records_on(self, findings: &mut Findings) {
        findings.add(NAME, "writes are recorded for nobody".into());
    }

    /// An attempt in which nothing harmful happened has ended.
    pub(crate) fn undisturbed(self, outcome: Option<&Outcome>, findings: &mut Findings) {
        let may_end_so = matches!(
            outcome,
            Some(Outcome::Completed | Outcome::Failed(SessionError::NotConverging(_)))
        );
        if !may_end_so {
            findings.add(
                NAME,
                format!("nothing disturbed an attempt that ended in {outcome:?}"),
            );
        }
    }

    /// Nobody runs the guest, and both hosts live.
    pub(crate) fn guest_gone(self, findings: &mut Findings) {
        findings.add(NAME, "the guest is lost though no host was".into());
    }
}

/// Does a finished machine want something?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wants {
    /// It does.
    More,
    /// It does not.
    Nothing,
}
