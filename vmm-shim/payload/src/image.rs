//! The payload as an ELF file and as segments to load, and the state in which a vCPU enters it; it
//! does not touch vCPUs.

use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, elf};
use zerocopy::IntoBytes;

use crate::probe::GuestBytes;
use crate::protocol::{AP_ENTRY, IMAGE_END, MAPPED_END, PARAMS, Params, RESERVED_END};

static PAYLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/payload.elf"));

/// Type of the Xen note that holds the PVH entry.
/// Source: Xen `xen/include/public/elfnote.h`, XEN_ELFNOTE_PHYS32_ENTRY.
const PHYS32_ENTRY: u32 = 18;

/// Why an ELF file is no payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageError {
    /// It is no little-endian 64-bit ELF file, or cut short.
    #[error("not a readable 64-bit ELF file: {0}")]
    Unreadable(#[from] object::Error),
    /// It has no Xen note with a 32-bit entry.
    #[error("no PVH entry note")]
    NoEntry,
    /// A segment lies outside the memory that the payload may use.
    #[error("a segment of {bytes} bytes at {address:#x} is out of place")]
    OutOfPlace {
        /// Where it wants to be.
        address: u64,
        /// How long it is.
        bytes: u64,
    },
    /// No segment holds the parameters.
    #[error("no segment holds the parameters")]
    NoParams,
}

/// Bytes to place in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// Guest-physical address of the first byte.
    pub address: u64,
    /// What the file holds.
    pub bytes: &'a [u8],
    /// Length in memory; what the file does not hold is zero.
    pub memory_bytes: u64,
}

/// The registers with which a vCPU enters the payload: flat 32-bit protected mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryState {
    /// CR0: protection on, paging off.
    pub cr0: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// RFLAGS: interrupts off.
    pub rflags: u64,
    /// Base of every segment.
    pub segment_base: u64,
    /// Limit of CS, DS, ES, FS, GS and SS, in bytes (granularity bit set).
    pub segment_limit: u32,
    /// Type of CS (present, code-or-data, 32-bit default size, privilege level 0).
    pub code_type: u8,
    /// Type of DS, ES, FS, GS and SS (the same other bits).
    pub data_type: u8,
    /// Type of TR (present, system).
    pub task_type: u8,
    /// Limit of TR.
    pub task_limit: u32,
}

/// The one entry state: RIP is [`Image::pvh_entry`] for vCPU 0 (`ebx` = start info, may be 0) and
/// [`Image::ap_entry`] for the others (`edi` = vCPU index). Selectors are free; 0x08 for CS, 0x10
/// for data and 0x18 for TR are customary. Application processors must be made runnable by the VMM
/// (`KVM_SET_MP_STATE`); nobody sends them a start-up interrupt.
pub const ENTRY_STATE: EntryState = EntryState {
    cr0: 0x11,
    cr4: 0,
    efer: 0,
    rflags: 2,
    segment_base: 0,
    segment_limit: 0xffff_ffff,
    code_type: 0xb,
    data_type: 0x3,
    task_type: 0xb,
    task_limit: 0x67,
};

/// A payload ready to load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image<'a> {
    segments: Vec<Segment<'a>>,
    pvh_entry: u64,
}

impl Image<'static> {
    /// The payload of this crate.
    ///
    /// # Errors
    /// None with a file as this crate builds it.
    pub fn embedded() -> Result<Self, ImageError> {
        Self::parse(PAYLOAD)
    }
}

impl<'a> Image<'a> {
    /// Reads an ELF file and checks that every segment lies where the payload may be.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        let parsed = ElfFile64::<Endianness>::parse(file)?;
        let endian = parsed.endian();
        let mut segments = Vec::new();
        let mut pvh_entry = None;
        for header in parsed.elf_header().program_headers(endian, file)? {
            match header.p_type(endian) {
                elf::PT_LOAD => segments.push(segment(header, file, endian)?),
                elf::PT_NOTE => pvh_entry = pvh_entry.or(entry_note(header, file, endian)?),
                _ => {}
            }
        }
        let pvh_entry = pvh_entry.ok_or(ImageError::NoEntry)?;
        Ok(Self {
            segments,
            pvh_entry,
        })
    }

    /// What to place where.
    #[must_use]
    pub fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// First instruction of vCPU 0.
    #[must_use]
    pub const fn pvh_entry(&self) -> u64 {
        self.pvh_entry
    }

    /// First instruction of every other vCPU.
    #[must_use]
    pub const fn ap_entry(&self) -> u64 {
        AP_ENTRY
    }

    /// Places the segments and the parameters in guest memory, which must be fresh (zero).
    pub fn load(&self, memory: &dyn GuestBytes, params: &Params) {
        for segment in &self.segments {
            memory.write(segment.address, segment.bytes);
        }
        memory.write(PARAMS, params.as_bytes());
    }
}

type Header = elf::ProgramHeader64<Endianness>;

fn segment<'a>(
    header: &Header,
    file: &'a [u8],
    endian: Endianness,
) -> Result<Segment<'a>, ImageError> {
    let address = header.p_paddr(endian);
    let memory_bytes = header.p_memsz(endian);
    let out_of_place = ImageError::OutOfPlace {
        address,
        bytes: memory_bytes,
    };
    let bytes = header.data(endian, file).map_err(|()| out_of_place)?;
    let end = address.checked_add(memory_bytes).ok_or(out_of_place)?;
    if end > RESERVED_END || bytes.len() as u64 > memory_bytes {
        return Err(out_of_place);
    }
    Ok(Segment {
        address,
        bytes,
        memory_bytes,
    })
}

fn entry_note(header: &Header, file: &[u8], endian: Endianness) -> Result<Option<u64>, ImageError> {
    let Some(mut notes) = header.notes(endian, file)? else {
        return Ok(None);
    };
    while let Some(note) = notes.next()? {
        if note.name() == b"Xen" && note.n_type(endian) == elf::NoteType(PHYS32_ENTRY) {
            let mut entry = [0; 8];
            if let Some(bytes) = note.desc().get(..entry.len()) {
                entry.copy_from_slice(bytes);
                return Ok(Some(u64::from_le_bytes(entry)));
            }
        }
    }
    Ok(None)
}

/// The ELF file with its parameters replaced: for VMMs that boot a PVH kernel themselves
/// (`qemu-system-x86_64 -kernel`, `cloud-hypervisor --kernel`). One vCPU, because nobody starts the
/// others there; where not all of the memory is touched, the regions should leave out the last
/// 18 MiB below the hole, where firmware keeps its tables and leaves scratch memory behind.
///
/// # Errors
/// [`ImageError::NoParams`] where the file has no room for them, which this crate's build prevents.
pub fn pvh_elf(params: &Params) -> Result<Vec<u8>, ImageError> {
    let parsed = ElfFile64::<Endianness>::parse(PAYLOAD)?;
    let endian = parsed.endian();
    let mut file = PAYLOAD.to_vec();
    for header in parsed.elf_header().program_headers(endian, PAYLOAD)? {
        if header.p_type(endian) != elf::PT_LOAD || header.p_paddr(endian) != PARAMS {
            continue;
        }
        let start = usize::try_from(header.p_offset(endian)).map_err(|_| ImageError::NoParams)?;
        let bytes = params.as_bytes();
        let room = file
            .get_mut(start..)
            .and_then(|rest| rest.get_mut(..bytes.len()));
        room.ok_or(ImageError::NoParams)?.copy_from_slice(bytes);
        return Ok(file);
    }
    Err(ImageError::NoParams)
}

const _: () = assert!(IMAGE_END <= PARAMS && RESERVED_END <= MAPPED_END);
