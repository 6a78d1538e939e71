//! How the writes to a guest's memory are recorded: what is asked for, and what this host's kernel
//! has for it. The sources themselves are `limosa-dirty`'s.

use limosa_dirty::{Choice, GuestKind, NoSource, SourceKind, probe};

/// How the writes to a guest's memory are recorded. Chosen before a guest has vCPUs, because a VM
/// has either a log or rings, for its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tracking {
    /// By what serves this kind of guest best here: see [`limosa_dirty::KernelReport::choose`].
    #[default]
    Auto,
    /// By KVM's log of one bit per page.
    Log,
    /// By KVM's dirty ring of each vCPU, which tells what each of them writes: needed for
    /// `Slowdown::DirtyLimit`. It takes 1 MiB a vCPU, and protects all memory when it starts.
    Ring,
    /// By page table scans, which see all that writes through one mapping.
    Pagemap,
}

impl Tracking {
    /// What it means on this host, and why.
    ///
    /// # Errors
    /// [`NoSource`], when this host's kernel does not have it.
    pub fn choose(self, guest: GuestKind) -> Result<Choice, NoSource> {
        let report = probe();
        match self {
            Self::Auto => report.choose(guest),
            Self::Log => report.choose_named(SourceKind::KvmLog, guest),
            Self::Ring => report.choose_named(SourceKind::KvmRing, guest),
            Self::Pagemap => report.choose_named(SourceKind::PagemapScan, guest),
        }
    }

    /// The same for a guest that may never move: where nothing was asked for, a kernel that has
    /// nothing for it is told of only when its writes are to be recorded.
    pub(crate) fn settle(self, guest: GuestKind) -> Result<Choice, NoSource> {
        match (self, self.choose(guest)) {
            (Self::Auto, Err(NoSource::None { .. })) => Ok(Choice {
                source: SourceKind::PagemapScan,
                reason: "this kernel has nothing at all",
            }),
            (_, chosen) => chosen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_no_vcpus_to_be_watched_by_kvm() {
        for tracking in [Tracking::Log, Tracking::Ring] {
            let error = tracking.choose(GuestKind::Process).unwrap_err();
            assert!(error.to_string().contains("page table scans"), "{error}");
        }
    }
}
