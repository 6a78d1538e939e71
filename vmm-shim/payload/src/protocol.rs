//! What the payload and its host say to each other, as bytes at fixed guest-physical addresses; it
//! is compiled into both and knows neither KVM nor how the guest does its work.
//!
//! All numbers are little-endian. The host writes [`Params`] before the first instruction and
//! [`Mailbox`] at any time; the guest writes everything else. A host that writes the mailbox of a
//! guest under migration writes guest memory: it has to record that page as dirty itself, because
//! the kernel's log sees writes of vCPUs only.

#[cfg(not(limosa_guest))]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a guest page.
pub const PAGE_BYTES: u64 = 4096;
/// Where the image begins; also the first instruction of the boot processor (PVH, 32-bit protected
/// mode, `ebx` = start info, which the payload does not read).
pub const PVH_ENTRY: u64 = 0x0010_0000;
/// First instruction of an application processor: the same mode, `edi` = vCPU index.
pub const AP_ENTRY: u64 = 0x0010_0010;
/// Past the last byte of the image (code, tables, stacks), which starts at [`PVH_ENTRY`].
pub const IMAGE_END: u64 = 0x0020_0000;
/// Where [`Params`] lie: one page, part of the ELF file.
pub const PARAMS: u64 = 0x0020_0000;
/// Where [`Mailbox`] lies: one page.
pub const MAILBOX: u64 = 0x0020_1000;
/// Where [`CpuidTable`] lies: [`CPUID_TABLE_BYTES`].
pub const CPUID_TABLE: u64 = 0x0020_2000;
/// Room of the CPUID table.
pub const CPUID_TABLE_BYTES: u64 = 0x4000;
/// Where the first vCPU's [`VcpuStats`](crate::stats::VcpuStats) lie.
pub const VCPU_STATS: u64 = 0x0021_0000;
/// Distance from one vCPU's stats to the next one's.
pub const VCPU_STATS_STRIDE: u64 = 0x4000;
/// Past the last address that the payload uses whatever its parameters are. The memory to fill
/// begins here, or after the write counters where the pattern needs them.
pub const RESERVED_END: u64 = 0x0100_0000;
/// Past the last address that the payload's page tables map.
pub const MAPPED_END: u64 = 64 << 30;
/// Past the last address that a plan may name: guests that need no page tables of their own,
/// because they are threads of a process, may have memory up to here.
pub const PLANNED_END: u64 = 8 << 40;
/// The hole of a PC's memory map, which belongs to devices.
pub const HOLE: Span = Span {
    start: 3 << 30,
    end: 4 << 30,
};

/// All of a region, in parts of which is said how much is touched.
pub const TOUCHED_ALL: u32 = 1_000_000_000;

/// "LMSAPAR" and a version byte: begins [`Params`].
pub const PARAMS_MAGIC: u64 = u64::from_le_bytes(*b"LMSAPAR\x01");
/// Begins [`CpuidTable`] while it is complete.
pub const CPUID_MAGIC: u64 = u64::from_le_bytes(*b"LMSACPU\x01");
/// Version of everything in this file.
pub const VERSION: u32 = 2;
/// Most vCPUs of a guest.
pub const VCPUS_MAX: usize = 8;
/// Most memory regions of a guest.
pub const REGIONS_MAX: usize = 8;
/// Most entries of the CPUID table.
pub const CPUID_ENTRIES_MAX: usize = 256;
/// Bit of [`Params::flags`]: the boot processor prints on COM1 and takes commands from it.
pub const FLAG_SERIAL: u32 = 1;
/// A stall longer than this is not caught up: the writes that fell due during it are dropped.
pub const CATCH_UP_MAX_NS: u64 = 1_000_000;

/// Guest-physical addresses from `start` up to, not including, `end`.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// First address.
    pub start: u64,
    /// Past the last address.
    pub end: u64,
}

impl Span {
    /// No address at all.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// Length in bytes; 0 where the end lies before the start.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Numbers that travel in [`Params`] and [`Mailbox`], with a checked way back.
macro_rules! numbered {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum $name { $($(#[$vdoc])* $variant = $number),+ }

        impl $name {
            /// Every value, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number that stands for it in guest memory.
            #[must_use]
            pub const fn number(self) -> u32 { self as u32 }

            /// The value of a number; `None` for an unknown one.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

numbered! {
    /// What the touched pages hold.
    Fill {
        /// Incompressible.
        Random = 0,
        /// Zeros, but written: the pages are populated.
        Zero = 1,
        /// Log-like text; LZ4 makes a third to a quarter of it.
        Text = 2,
        /// By page: a quarter zeros, a half text, a quarter random.
        Mixed = 3,
        /// Of eight words three are incompressible, and five are those of every page; zstd makes
        /// two fifths of it.
        Semi = 4,
    }
}
numbered! {
    /// Which page of its share a vCPU writes next.
    Pattern {
        /// The next one, again and again.
        Sequential = 0,
        /// Any, all alike.
        Random = 1,
        /// Nine of ten writes go to the first tenth.
        HotCold = 2,
    }
}
numbered! {
    /// How a vCPU notices that it stood still.
    Probe {
        /// It never sleeps; the gap between two loop iterations.
        Spin = 0,
        /// It halts between timer ticks; how much later than a tick it woke.
        Sleep = 1,
    }
}
numbered! {
    /// What the host does to the guest at the moment; stalls are booked under it.
    Phase {
        /// Nothing.
        Quiet = 0,
        /// Its memory is being copied while it runs.
        Precopy = 1,
        /// It runs on the target while pages are still missing.
        Postcopy = 2,
    }
}
numbered! {
    /// What the host asks of every vCPU.
    Command {
        /// Nothing.
        Nothing = 0,
        /// Verify all memory, read CPUID anew, and answer with the sequence number.
        Check = 1,
    }
}
numbered! {
    /// Where a vCPU is.
    VcpuState {
        /// It has not run a single instruction of the payload.
        Absent = 0,
        /// Below its work: tables, CPUID.
        Booting = 1,
        /// Writing the initial content.
        Filling = 2,
        /// At work: probing, and dirtying if asked to.
        Ready = 3,
        /// Verifying memory.
        Checking = 4,
        /// Stopped by an exception; see [`Fault`](crate::stats::Fault).
        Faulted = 5,
        /// Stopped because the parameters make no sense to it; the fault's vector says which.
        Rejected = 6,
    }
}

/// What a guest is to do; written once, before it starts.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// [`PARAMS_MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// vCPUs that take part, 1..=[`VCPUS_MAX`]. Each owns a share of the pages.
    pub vcpu_count: u32,
    /// A [`Fill`].
    pub fill: u32,
    /// A [`Pattern`].
    pub pattern: u32,
    /// A [`Probe`].
    pub probe: u32,
    /// How much of each region is filled, from its start, in parts of [`TOUCHED_ALL`]; the rest is
    /// not touched before the first check, which reads it and wants zeros.
    pub touched_parts: u32,
    /// Bits `FLAG_*`.
    pub flags: u32,
    /// Regions used of `regions`, 1..=[`REGIONS_MAX`].
    pub region_count: u32,
    /// Chooses the content and the random writes.
    pub seed: u64,
    /// Bytes that are written again and again, whole pages, split over the vCPUs.
    pub working_set_bytes: u64,
    /// Page writes per second of the whole guest; 0 writes nothing. A rate, not a debt: what falls
    /// due during a stall of more than [`CATCH_UP_MAX_NS`] is dropped.
    pub dirty_pages_per_second: u64,
    /// Period of the timer of the sleeping probe, in nanoseconds.
    pub tick_ns: u64,
    /// Counts of the local APIC timer (divided by 1) in one tick. KVM and QEMU count nanoseconds.
    pub apic_counts_per_tick: u64,
    /// Frequency of the time stamp counter in kHz; 0 makes the guest measure it against the APIC
    /// timer, which it then takes to count nanoseconds.
    pub tsc_khz: u64,
    /// Distance of two dots on the serial port, in nanoseconds.
    pub heartbeat_ns: u64,
    /// One `u32` per page of the working set: how often it was written. Empty for
    /// [`Pattern::Sequential`].
    pub counters: Span,
    /// The memory to fill, page-aligned, ascending, disjoint.
    pub regions: [Span; REGIONS_MAX],
}

impl Params {
    /// What the ELF file holds until somebody patches it: a small idle guest that fits in 64 MiB.
    pub const DEFAULT: Self = {
        let mut regions = [Span::EMPTY; REGIONS_MAX];
        regions[0] = Span {
            start: RESERVED_END,
            end: 48 << 20,
        };
        Self {
            magic: PARAMS_MAGIC,
            version: VERSION,
            vcpu_count: 1,
            fill: Fill::Random.number(),
            pattern: Pattern::Sequential.number(),
            probe: Probe::Sleep.number(),
            touched_parts: TOUCHED_ALL,
            flags: FLAG_SERIAL,
            region_count: 1,
            seed: 1,
            working_set_bytes: 0,
            dirty_pages_per_second: 0,
            tick_ns: 1_000_000,
            apic_counts_per_tick: 1_000_000,
            tsc_khz: 0,
            heartbeat_ns: 5_000_000,
            counters: Span::EMPTY,
            regions,
        }
    };
}

/// What the host tells a running guest. Fields are written one by one, each atomically.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mailbox {
    /// A [`Command`]; written before `sequence`.
    pub command: u32,
    /// A [`Phase`].
    pub phase: u32,
    /// Grows by one with each command.
    pub sequence: u64,
    /// Grows by one with each switchover: the target's VMM does it in its own memory after the last
    /// page has landed and before the first vCPU resumes.
    pub switchover: u64,
}

/// One CPUID leaf as the guest saw it at privilege level 0.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuidRecord {
    /// Value of `eax` before.
    pub leaf: u32,
    /// Value of `ecx` before.
    pub subleaf: u32,
    /// Answer.
    pub eax: u32,
    /// Answer.
    pub ebx: u32,
    /// Answer.
    pub ecx: u32,
    /// Answer.
    pub edx: u32,
}

/// All CPUID leaves of the boot processor, read when it starts and again at each check.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy)]
pub struct CpuidTable {
    /// [`CPUID_MAGIC`], written last; 0 while the table is being written.
    pub magic: u64,
    /// Entries used.
    pub count: u64,
    /// Ascending by leaf, then subleaf.
    pub entries: [CpuidRecord; CPUID_ENTRIES_MAX],
}

const _: () = {
    assert!(size_of::<Params>() as u64 <= PAGE_BYTES);
    assert!(size_of::<Params>() == 240);
    assert!(size_of::<Mailbox>() as u64 <= PAGE_BYTES);
    assert!(size_of::<CpuidTable>() as u64 <= CPUID_TABLE_BYTES);
    assert!(CPUID_TABLE + CPUID_TABLE_BYTES <= VCPU_STATS);
    assert!(VCPU_STATS + VCPU_STATS_STRIDE * VCPUS_MAX as u64 <= RESERVED_END);
};
