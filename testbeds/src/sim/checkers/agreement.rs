//! Agreement: no page moves before both sides have judged that the guest fits and have agreed, and
//! no guest runs on a host that can't give its processor.
//!
//! Checked: the source opens no page stream, and with it sends no page, before it has said that it
//! agrees; the target lets no page stream in before it has heard so; and a host that is unfit, or
//! has become so by the time of the switchover, never runs the guest.
//!
//! **Not checked**: whether the judgement of two processors is right, which is `limosa-compat`'s
//! business, and whether every reason is named, which tests of the session and the engine are for.

use super::Findings;

const NAME: &str = "agreement";

/// The checker, for one attempt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AgreementChecker {
    said: bool,
    heard: bool,
    is_unfit: bool,
}

impl AgreementChecker {
    /// The source says that it agrees.
    pub(crate) const fn says(&mut self) {
        self.said = true;
    }

    /// The target hears it.
    pub(crate) const fn hears(&mut self) {
        self.heard = true;
    }

    /// From now on the target's host can't give the guest's processor.
    pub(crate) const fn host_is_unfit(&mut self) {
        self.is_unfit = true;
    }

    /// The source opens its page streams.
    pub(crate) fn opens(self, findings: &mut Findings) {
        if !self.said {
            findings.add(NAME, "the source opens streams and has not agreed".into());
        }
    }

    /// The target lets page streams in.
    pub(crate) fn lets_in(self, findings: &mut Findings) {
        if !self.heard {
            let text = "the target lets streams in and has not heard that the source agrees";
            findings.add(NAME, text.into());
        }
    }

    /// The guest is about to run at the target.
    pub(crate) fn resumes_there(self, findings: &mut Findings) {
        if self.is_unfit {
            findings.add(NAME, "the guest runs on a host that is unfit for it".into());
        }
    }
}
