//! The guest's processor as a side judges it, and the digest by which both know that they speak of
//! the same one. Which bits matter is not known here.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use limosa_compat::{CpuDecodeError, GuestCpu, HostCpu, Mismatch, MismatchKind, judge};
use limosa_wire::limits::REASONS_MAX;
use limosa_wire::{Reason, ReasonKind};

use crate::error::Misdeed;
use crate::event::Warning;

/// The processor that a guest was promised, for as long as its session lasts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OfferedCpu {
    guest: GuestCpu,
    digest: u64,
}

impl OfferedCpu {
    /// Opens the description in an offer.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CpuDecodeError> {
        let guest = GuestCpu::decode(bytes)?;
        let digest = guest.digest();
        Ok(Self { guest, digest })
    }

    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) const fn vcpu_count(&self) -> u16 {
        self.guest.vcpu_count
    }

    /// Is the processor that the peer speaks of this one?
    pub(crate) const fn check(&self, found: u64) -> Result<(), Misdeed> {
        if found == self.digest {
            return Ok(());
        }
        let expected = self.digest;
        Err(Misdeed::OtherCpu { expected, found })
    }

    /// Every reason why the guest can't live on `host`, as a refusal carries them; where there is
    /// none, what is forgiven.
    pub(crate) fn judge(&self, host: &HostCpu) -> Result<Vec<Warning>, Vec<Reason>> {
        self.judge_in_full(host).map_err(cut)
    }

    /// The same, however many reasons there are.
    pub(crate) fn judge_in_full(&self, host: &HostCpu) -> Result<Vec<Warning>, Vec<Reason>> {
        let judgement = judge(&self.guest, host);
        if judgement.fits() {
            let warning = |warning: &limosa_compat::Warning| Warning {
                name: warning.mismatch.name.to_string(),
                what: warning.mismatch.to_string(),
                forgiven: warning.forgiven.to_string(),
            };
            return Ok(judgement.warnings.iter().map(warning).collect());
        }
        Err(judgement.mismatches.iter().map(of_mismatch).collect())
    }
}

/// As many reasons as a refusal carries; where there are more, the last says how many.
pub(crate) fn cut(mut reasons: Vec<Reason>) -> Vec<Reason> {
    let count = reasons.len();
    if count > REASONS_MAX {
        reasons.truncate(REASONS_MAX - 1);
        reasons.push(Reason {
            kind: ReasonKind::Cpu,
            what: format!("and {} more", count - reasons.len()),
            remedy: "choose a target like the source".into(),
        });
    }
    reasons
}

fn of_mismatch(mismatch: &Mismatch) -> Reason {
    Reason {
        kind: match mismatch.kind {
            MismatchKind::Vendor | MismatchKind::NoRules => ReasonKind::Vendor,
            _ => ReasonKind::Cpu,
        },
        what: mismatch.to_string(),
        remedy: mismatch.remedy.to_string(),
    }
}
