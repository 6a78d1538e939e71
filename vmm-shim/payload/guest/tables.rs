//! Page tables, GDT, IDT and task state segments, all worked out by the compiler: at privilege
//! level 0 every instruction may cost a microsecond, so nothing is built at run time.

use core::mem::offset_of;

use crate::protocol::{HOLE, MAPPED_END, VCPUS_MAX};

/// Where the linker script puts [`TABLES`].
pub const BASE: u64 = 0x0011_0000;
/// Where the linker script puts the stub of vector 0; they are 16 bytes apart.
pub const VECTORS: u64 = 0x0010_1000;
/// Where the linker script puts the stacks: first those of level 0, a page each.
pub const KERNEL_STACKS: u64 = 0x0016_0000;
/// Bytes of a stack of level 0.
pub const KERNEL_STACK_BYTES: u64 = 4096;
/// The stacks of level 3.
pub const USER_STACKS: u64 = KERNEL_STACKS + KERNEL_STACK_BYTES * VCPUS_MAX as u64;
/// Bytes of a stack of level 3.
pub const USER_STACK_BYTES: u64 = 16384;

/// Selector of 64-bit code at level 0.
pub const KERNEL_CODE: u64 = 0x08;
/// Selector of data at level 0.
pub const KERNEL_DATA: u64 = 0x10;
/// Selector of data at level 3.
pub const USER_DATA: u64 = 0x18 | 3;
/// Selector of 64-bit code at level 3.
pub const USER_CODE: u64 = 0x20 | 3;
/// Selector of the first vCPU's task state segment; they are 16 apart.
pub const TASK: u64 = 0x28;

/// Vector of the service gate: `int3`, because a host that runs level 3 natively may keep other
/// software interrupts to itself.
pub const SERVICE_VECTOR: usize = 3;
/// Vector of the APIC timer.
pub const TIMER_VECTOR: u32 = 0x40;

const GIBIBYTES: usize = (MAPPED_END >> 30) as usize;
const GDT_ENTRIES: usize = TASK as usize / 8 + 2 * VCPUS_MAX;
const TASK_BYTES: usize = 104;

/// Task state segment with an I/O bitmap that opens COM1 to level 3: not every host honours the I/O
/// privilege level.
#[repr(C)]
struct Task {
    words: [u32; TASK_BYTES / 4],
    ports: [u8; 152],
}

#[repr(C, align(4096))]
struct Tables {
    root: [u64; 512],
    directory_pointers: [u64; 512],
    directories: [[u64; 512]; GIBIBYTES],
    gates: [[u64; 2]; 256],
    segments: [u64; GDT_ENTRIES],
    tasks: [Task; VCPUS_MAX],
}

/// Address for CR3.
pub const ROOT: u64 = BASE + offset_of!(Tables, root) as u64;
/// Address of the GDT.
pub const GDT: u64 = BASE + offset_of!(Tables, segments) as u64;
/// Limit of the GDT.
pub const GDT_LIMIT: u64 = GDT_ENTRIES as u64 * 8 - 1;
/// Address of the IDT.
pub const IDT: u64 = BASE + offset_of!(Tables, gates) as u64;

#[used]
#[unsafe(link_section = ".tables")]
static mut TABLES: Tables = Tables {
    root: root(),
    directory_pointers: directory_pointers(),
    directories: directories(),
    gates: gates(),
    segments: segments(),
    tasks: tasks(),
};

/// Present, writable, for level 3, accessed: the processor need not write them.
const LINK: u64 = 0x27;
/// The same, dirty, 2 MiB.
const LARGE: u64 = 0xe7;
/// Write-through and cache-disable, for the devices' hole.
const UNCACHED: u64 = 0x18;

const fn root() -> [u64; 512] {
    let mut root = [0; 512];
    root[0] = (BASE + offset_of!(Tables, directory_pointers) as u64) | LINK;
    root
}

const fn directory_pointers() -> [u64; 512] {
    let mut pointers = [0; 512];
    let first = BASE + offset_of!(Tables, directories) as u64;
    let mut at = 0;
    while at < GIBIBYTES {
        pointers[at] = (first + at as u64 * 4096) | LINK;
        at += 1;
    }
    pointers
}

const fn directories() -> [[u64; 512]; GIBIBYTES] {
    let mut directories = [[0; 512]; GIBIBYTES];
    let mut at = 0;
    while at < GIBIBYTES * 512 {
        let address = (at as u64) << 21;
        let device = address >= HOLE.start && address < HOLE.end;
        directories[at / 512][at % 512] = address | LARGE | if device { UNCACHED } else { 0 };
        at += 1;
    }
    directories
}

const fn gates() -> [[u64; 2]; 256] {
    let mut gates = [[0; 2]; 256];
    let mut vector = 0;
    while vector < 256 {
        let stub = VECTORS + vector as u64 * 16;
        // Interrupt gates: interrupts stay off. Only the service gate may be called from level 3.
        let kind = if vector == SERVICE_VECTOR { 0xee } else { 0x8e };
        gates[vector][0] =
            (stub & 0xffff) | (KERNEL_CODE << 16) | (kind << 40) | ((stub >> 16) << 48);
        vector += 1;
    }
    gates
}

const fn segments() -> [u64; GDT_ENTRIES] {
    let mut segments = [0; GDT_ENTRIES];
    segments[1] = 0x00af_9b00_0000_ffff;
    segments[2] = 0x00cf_9300_0000_ffff;
    segments[3] = 0x00cf_f300_0000_ffff;
    segments[4] = 0x00af_fb00_0000_ffff;
    let first = BASE + offset_of!(Tables, tasks) as u64;
    let mut index = 0;
    while index < VCPUS_MAX {
        let base = first + (index * size_of::<Task>()) as u64;
        let limit = size_of::<Task>() as u64 - 1;
        segments[TASK as usize / 8 + 2 * index] =
            limit | ((base & 0xff_ffff) << 16) | (0x89 << 40) | ((base >> 24) << 56);
        index += 1;
    }
    segments
}

const fn tasks() -> [Task; VCPUS_MAX] {
    let mut tasks = [const {
        Task {
            words: [0; TASK_BYTES / 4],
            ports: [0xff; 152],
        }
    }; VCPUS_MAX];
    let mut index = 0;
    while index < VCPUS_MAX {
        let stack_top = KERNEL_STACKS + KERNEL_STACK_BYTES * (index as u64 + 1);
        tasks[index].words[1] = stack_top as u32;
        tasks[index].words[25] = (TASK_BYTES as u32) << 16;
        tasks[index].ports[0x3f8 / 8] = 0;
        index += 1;
    }
    tasks
}

const _: () = {
    assert!(size_of::<Task>() == 256);
    assert!(BASE + size_of::<Tables>() as u64 <= KERNEL_STACKS);
};
