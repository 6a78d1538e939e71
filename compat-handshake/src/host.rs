//! What a host says about itself: data that an embedder gathers, never read here.

use alloc::string::String;
use alloc::vec::Vec;

use limosa_wire::DecodeFault;
use limosa_wire::codec::{Reader, Writer};

use crate::controls::{HINTS, stays};
use crate::envelope::{Content, CpuDecodeError, open, seal};
use crate::processor::Processor;

/// Most bytes of what a host says about itself for people.
pub const ABOUT_BYTES_MAX: usize = 256;

/// Whether a host can run a guest's time-stamp counter at a frequency other than its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TscScaling {
    /// It can (`KVM_CAP_TSC_CONTROL`).
    Yes,
    /// It can not: guests run at the host's frequency.
    No,
}

/// What a host can give its guests, as its own hypervisor answers; never what the silicon says.
///
/// There are two sets. A bit that is not shown is a bit that is missing: what the kernel emulates
/// without listing it, such as `tsc-deadline` on older kernels, must be added by whoever gathers
/// this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostCpu {
    /// What a new guest may get.
    pub offer: Processor,
    /// What an incoming guest may have: at least the offer, and what works here although new guests
    /// are not given it.
    pub accept: Processor,
    /// Frequency of the host's time-stamp counter in kHz; 0 when it is not known.
    pub tsc_khz: u32,
    /// Whether guests may run at another frequency.
    pub tsc_scaling: TscScaling,
    /// Kernel and microcode, for people who look for the reason of a refusal. At most
    /// [`ABOUT_BYTES_MAX`] bytes are sent; never judged.
    pub about: String,
}

impl HostCpu {
    /// A host that takes in what it offers, and no more.
    pub fn plain(offer: Processor, tsc_khz: u32, tsc_scaling: TscScaling) -> Self {
        Self {
            accept: offer.clone(),
            offer,
            tsc_khz,
            tsc_scaling,
            about: String::new(),
        }
    }

    /// A host that also takes in guests to which it can't give all hints about speed (`erms` and
    /// the like): what they hint at works here too, only slower. It takes in no guest with what
    /// [`stays`] behind: whatever it shows of that, none of it can arrive.
    pub fn new(offer: Processor, tsc_khz: u32, tsc_scaling: TscScaling) -> Self {
        let mut host = Self::plain(offer, tsc_khz, tsc_scaling);
        for name in HINTS {
            host.accept.cpuid.show(name);
        }
        for row in stays() {
            host.accept.cpuid.hide(row.name);
        }
        host
    }

    /// Seals the description: at most [`CPU_ENVELOPE_BYTES_MAX`](crate::CPU_ENVELOPE_BYTES_MAX)
    /// bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u32(self.tsc_khz);
        writer.u8(match self.tsc_scaling {
            TscScaling::No => 0,
            TscScaling::Yes => 1,
        });
        writer.text(&self.about, ABOUT_BYTES_MAX);
        self.offer.encode(&mut writer);
        self.accept.encode(&mut writer);
        seal(Content::Host, &writer.into_bytes())
    }

    /// Opens an envelope; as [`GuestCpu::decode`](crate::GuestCpu::decode).
    ///
    /// # Errors
    /// Truncated, damaged, overlong, unsorted or newer bytes; the peer that sent them is at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, CpuDecodeError> {
        let mut reader = Reader::new(open(Content::Host, bytes)?);
        let tsc_khz = reader.u32()?;
        let tsc_scaling = match reader.u8()? {
            0 => TscScaling::No,
            1 => TscScaling::Yes,
            number => {
                let field = "TSC scaling";
                let found = number.into();
                return Err(reader.error(DecodeFault::Unknown { field, found }).into());
            }
        };
        let about = reader.text("about", ABOUT_BYTES_MAX)?;
        let offer = Processor::decode(&mut reader)?;
        let accept = Processor::decode(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            offer,
            accept,
            tsc_khz,
            tsc_scaling,
            about,
        })
    }
}
