//! The processor that a guest was promised: what travels inside an offer. Judges nothing.

use alloc::string::String;
use alloc::vec::Vec;

use limosa_wire::codec::{Reader, Writer};

use crate::envelope::{Content, CpuDecodeError, open, seal};
use crate::processor::Processor;

/// Most bytes of the name of a guest's baseline.
pub const BASELINE_NAME_BYTES_MAX: usize = 64;

/// What the guest sees of its processor: fixed from its first instruction, whatever host it is on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestCpu {
    /// CPUID and feature MSRs, as the VMM installed them and KVM then showed them.
    pub processor: Processor,
    /// Frequency of the guest's time-stamp counter in kHz; 0 for a guest that has none.
    pub tsc_khz: u32,
    /// How many virtual processors look like this.
    pub vcpu_count: u16,
    /// How the processor was chosen when the guest started, for people: `off`, `minimum-intel-v1`,
    /// `x86-64-v3`, `common`. At most [`BASELINE_NAME_BYTES_MAX`] bytes are sent; never judged.
    pub baseline: String,
}

impl GuestCpu {
    /// Seals the description: at most [`CPU_ENVELOPE_BYTES_MAX`](crate::CPU_ENVELOPE_BYTES_MAX)
    /// bytes, the same for equal guests.
    pub fn encode(&self) -> Vec<u8> {
        seal(Content::Guest, &self.body())
    }

    fn body(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u32(self.tsc_khz);
        writer.u16(self.vcpu_count);
        writer.text(&self.baseline, BASELINE_NAME_BYTES_MAX);
        self.processor.encode(&mut writer);
        writer.into_bytes()
    }

    /// Opens an envelope: `decode(encode(x)) == x`, and nothing else that this host can't read in
    /// full is accepted. Allocates no more than the envelope's limit allows.
    ///
    /// # Errors
    /// Truncated, damaged, overlong, unsorted or newer bytes; the peer that sent them is at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, CpuDecodeError> {
        let mut reader = Reader::new(open(Content::Guest, bytes)?);
        let tsc_khz = reader.u32()?;
        let vcpu_count = reader.u16()?;
        let baseline = reader.text("baseline", BASELINE_NAME_BYTES_MAX)?;
        let processor = Processor::decode(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            processor,
            tsc_khz,
            vcpu_count,
            baseline,
        })
    }

    /// A number by which both sides can say that they speak of the same processor.
    ///
    /// FNV-1a over the description, 64 bits: equal for equal guests on every host and in every
    /// build. It shows mistakes, not malice: whoever can send an offer can also make two collide.
    pub fn digest(&self) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x100_0000_01b3;
        let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        self.body().iter().fold(OFFSET, step)
    }
}
