//! The target's way: recorded frames through a lander, into a guest's memory.

use std::sync::{Arc, Mutex, PoisonError};

use limosa_pages::CHUNK_PAGES;
use limosa_pipeline::{Codec, FrameSource, GuestMemory, Landed, Lander, Ledger};
use limosa_wire::EncodingSet;
use vm_memory::VolatileSlice;

use crate::corridor::{MIGRATION, recorded};
use crate::guest::{Fill, Guest};
use crate::kernel::{KernelError, Pass};
use crate::streams::StreamCount;

/// How raw pages come to the guest's memory, which on a true target is the socket's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivery {
    /// They are there: the lander's own work, and nothing else.
    InPlace,
    /// By one copy, as a socket makes it.
    Copied,
}

/// Lands a recorded round: each stream its own frames, all of them in each pass.
pub(crate) fn land(
    chunk_count: u64,
    streams: StreamCount,
    (fill, codec): (Fill, Codec),
    delivery: Delivery,
) -> Result<Vec<(Pass, u64)>, KernelError> {
    let guest_chunks = streams.chunks_of_all(chunk_count);
    let source = Guest::new(guest_chunks, fill)?;
    let tapes = recorded(&source, streams, codec)?;
    let target = match delivery {
        Delivery::InPlace => source,
        Delivery::Copied => Guest::new(guest_chunks, Fill::Noise)?,
    };
    let ledgers = Arc::new(Ledgers {
        of_passes: Mutex::default(),
        guest: Arc::clone(&target),
        streams,
    });
    let each = streams.indices().zip(tapes).map(|(stream, tape)| {
        let (target, ledgers) = (Arc::clone(&target), Arc::clone(&ledgers));
        let mut pass_number = 0;
        let pass = move || {
            let ledger = ledgers.of_pass(pass_number);
            pass_number += 1;
            let memory = Arc::clone(&target) as Arc<dyn GuestMemory>;
            let lander = Lander::new(memory, ledger, MIGRATION, stream, EncodingSet::ALL);
            land_tape(lander, &tape, delivery)
        };
        (Box::new(pass) as Pass, chunk_count * CHUNK_PAGES)
    });
    Ok(each.collect())
}

fn land_tape(mut lander: Lander, bytes: &[u8], delivery: Delivery) -> Result<(), KernelError> {
    let mut tape = Tape {
        rest: bytes,
        delivery,
    };
    while !matches!(lander.land(&mut tape)?, Landed::Barrier { .. }) {}
    if tape.rest.is_empty() {
        Ok(())
    } else {
        Err(damaged("the round ends ahead of the tape"))
    }
}

/// A ledger knows each round once: one for each pass, shared by all streams.
struct Ledgers {
    of_passes: Mutex<Vec<Arc<Ledger>>>,
    guest: Arc<Guest>,
    streams: StreamCount,
}

impl Ledgers {
    fn of_pass(&self, number: usize) -> Arc<Ledger> {
        let mut of_passes = self
            .of_passes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while of_passes.len() <= number {
            let ledger = Ledger::new(self.guest.map(), self.streams.get());
            of_passes.push(Arc::new(ledger));
        }
        Arc::clone(&of_passes[number])
    }
}

fn damaged(what: &str) -> KernelError {
    KernelError::Tape { what: what.into() }
}

/// One recorded stream.
struct Tape<'a> {
    rest: &'a [u8],
    delivery: Delivery,
}

impl<'a> Tape<'a> {
    fn next(&mut self, count: usize) -> Result<&'a [u8], KernelError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| damaged("it ends early"))?;
        self.rest = rest;
        Ok(bytes)
    }
}

impl FrameSource for Tape<'_> {
    type Error = KernelError;

    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), KernelError> {
        into.copy_from_slice(self.next(into.len())?);
        Ok(())
    }

    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), KernelError> {
        for slice in landing {
            let bytes = self.next(slice.len())?;
            if self.delivery == Delivery::Copied {
                slice.copy_from(bytes);
            }
        }
        Ok(())
    }
}
