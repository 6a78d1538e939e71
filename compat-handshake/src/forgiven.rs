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

/// Why this field may differ between this guest and this host; `None` where it may not.
pub(crate) fn reason(field: &Field, guest: &Processor, host: &Processor) -> Option<&'static str> {
    match field.kind {
        Kind::Inverse(Inverse::Mitigation) => harmless(field.name, host),
        Kind::Inverse(Inverse::Behaviour) if field.name == "rtm-always-abort" => {
            (!has(guest, "rtm")).then_some("the guest sees no transactions that could abort")
        }
        _ => None,
    }
}

/// The mitigations that a host may lack without harm.
pub(crate) fn mitigations() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.lost)
}

/// Why nothing is leaked on this host without the mitigation of this name.
pub(crate) fn harmless(name: &str, host: &Processor) -> Option<&'static str> {
    let row = ROWS.iter().find(|row| row.lost == name)?;
    let unaffected = row.unless.iter().all(|name| is_unaffected(host, name));
    unaffected.then_some(row.reason)
}

/// KVM takes `taa-no` away together with `rtm`: what needs a transaction can't happen without them.
fn is_unaffected(host: &Processor, name: &str) -> bool {
    has(host, name) || name == "taa-no" && !has(host, "rtm")
}
