//! A host that pretends to be another one: what both can give. It serves to show on one machine
//! what two unlike hosts would do.

use crate::host::HostCpu;
use crate::pool::{PoolError, accepted_by_all, intersect};

/// `truth`, as far as `pretended` has it too: never more than the host truly can. Its time-stamp
/// counter stays its own.
///
/// # Errors
/// When the two are not of one known vendor, or have more answers together than a table holds: no
/// host can pretend that.
pub fn restrict(truth: &HostCpu, pretended: &HostCpu) -> Result<HostCpu, PoolError> {
    Ok(HostCpu {
        offer: intersect(&[truth.offer.clone(), pretended.offer.clone()])?,
        accept: accepted_by_all(&[truth.accept.clone(), pretended.accept.clone()])?,
        about: pretended.about.clone(),
        ..*truth
    })
}
