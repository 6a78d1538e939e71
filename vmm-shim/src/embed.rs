//! Guests and hosts of both kinds as the migration engine asks for them. Nothing is done here that
//! they do not do themselves.

use std::sync::Arc;
use std::time::Instant;

use limosa::{GuestError, Rehearsal, Slowdown, SourceGuest, TargetGuest, TargetHost, TargetPolicy};
use limosa_dirty::DirtySource;
use limosa_pipeline::GuestMemory;
use limosa_wire::{Offer, StateSection};

use crate::guest::{KVM_MACHINE, KvmGuest};
use crate::host::{HostSpec, KvmHost, ProcessHost};
use crate::process::{PROCESS_MACHINE, ProcessGuest, process_section_kinds};
use crate::state::section_kinds;
use crate::workload::Workload;

/// The engine's view of one kind of guest and its host.
macro_rules! embed {
    ($guest:ty, $host:ty, $machine:expr, $sections:expr) => {
        impl SourceGuest for $guest {
            fn offer(&self) -> Result<Offer, GuestError> {
                Ok(<$guest>::offer(self))
            }

            fn memory(&self) -> Arc<dyn GuestMemory> {
                Arc::clone(Workload::pages(self)) as Arc<dyn GuestMemory>
            }

            fn dirty_source(&mut self) -> Result<Box<dyn DirtySource>, GuestError> {
                <$guest>::dirty_source(self).map_err(GuestError::new)
            }

            fn rehearse(&mut self) -> Result<Option<Rehearsal>, GuestError> {
                let begun = Instant::now();
                let exported = <$guest>::pause(self).and_then(|()| {
                    let pause = begun.elapsed();
                    <$guest>::export_state(self)?;
                    let export = begun.elapsed() - pause;
                    Ok(Rehearsal { pause, export })
                });
                let resumed = <$guest>::resume(self);
                let rehearsal = exported.map_err(GuestError::new)?;
                resumed.map_err(GuestError::new)?;
                Ok(Some(rehearsal))
            }

            fn slow(&mut self, slowdown: Slowdown) -> Result<(), GuestError> {
                <$guest>::slow(self, slowdown).map_err(GuestError::new)
            }

            fn pause(&mut self) -> Result<(), GuestError> {
                <$guest>::pause(self).map_err(GuestError::new)
            }

            fn export_state(&mut self) -> Result<Vec<StateSection>, GuestError> {
                <$guest>::export_state(self).map_err(GuestError::new)
            }

            fn resume(&mut self) -> Result<(), GuestError> {
                <$guest>::resume(self).map_err(GuestError::new)
            }

            fn release(&mut self) -> Result<(), GuestError> {
                <$guest>::release(self).map_err(GuestError::new)
            }
        }

        impl TargetGuest for $guest {
            fn memory(&self) -> Arc<dyn GuestMemory> {
                Arc::clone(Workload::pages(self)) as Arc<dyn GuestMemory>
            }

            fn restore_state(&mut self, sections: Vec<StateSection>) -> Result<(), GuestError> {
                <$guest>::restore_state(self, sections).map_err(GuestError::new)
            }

            fn resume(&mut self) -> Result<(), GuestError> {
                <$guest>::resume(self).map_err(GuestError::new)
            }
        }

        impl TargetHost for $host {
            type Guest = $guest;

            fn policy(&self) -> Result<TargetPolicy, GuestError> {
                let HostSpec {
                    memory_bytes_max,
                    vcpu_count_max,
                    stream_count_max,
                    ..
                } = *self.spec();
                Ok(TargetPolicy {
                    host: self.survey().map_err(GuestError::new)?,
                    machine: $machine.into(),
                    memory_bytes_max,
                    vcpu_count_max,
                    stream_count_max,
                    sections: $sections,
                })
            }

            fn prepare(&mut self, offer: &Offer) -> Result<$guest, GuestError> {
                <$host>::prepare(self, offer).map_err(GuestError::new)
            }
        }
    };
}

embed!(KvmGuest, KvmHost, KVM_MACHINE, section_kinds());
embed!(
    ProcessGuest,
    ProcessHost,
    PROCESS_MACHINE,
    process_section_kinds()
);
