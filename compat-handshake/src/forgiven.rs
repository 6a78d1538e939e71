//! Differences that are forgiven, and why. Everything else that differs is a reason to refuse.
//!
//! Source: Linux Documentation/admin-guide/hw-vuln (mds, processor_mmio_stale_data,
//! reg-file-data-sampling, attack_vector_controls).

use crate::names::has;
use crate::processor::Processor;
use crate::rules::{Field, Inverse, Kind};

/// A guest may lose such a bit on a host that shows all of these: there VERW has nothing to flush.
struct Row {
    lost: &'static str,
    unless: &'static [&'static str],
    reason: &'static str,
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row {
        lost: "md-clear",
        unless: &["mds-no", "taa-no"],
        reason: "not affected by MDS and TAA: VERW has nothing to flush here",
    },
    Row {
        lost: "fb-clear",
        unless: &["mds-no", "taa-no", "sbdr-ssdp-no", "fbsdp-no", "psdp-no"],
        reason: "not affected by MDS, TAA and stale MMIO data: VERW has nothing to flush here",
    },
    Row {
        lost: "rfds-clear",
        unless: &["rfds-no"],
        reason: "not affected by register file data sampling: VERW has nothing to flush here",
    },
    Row {
        lost: "verw-clear",
        unless: &["tsa-sq-no", "tsa-l1-no"],
        reason: "not affected by transient scheduler attacks: VERW has nothing to flush here",
    },
];

/// Why a guest may lose this field on this host; `None` where it may not.
pub(crate) fn reason(field: &Field, host: &Processor) -> Option<&'static str> {
    if field.kind != Kind::Inverse(Inverse::Mitigation) {
        return None;
    }
    let row = ROWS.iter().find(|row| row.lost == field.name)?;
    let unaffected = row.unless.iter().all(|name| is_unaffected(host, name));
    unaffected.then_some(row.reason)
}

/// KVM takes `taa-no` away together with `rtm`: what needs a transaction can't happen without them.
fn is_unaffected(host: &Processor, name: &str) -> bool {
    has(host, name) || name == "taa-no" && !has(host, "rtm")
}
