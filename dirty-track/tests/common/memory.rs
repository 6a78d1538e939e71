//! Memory that writers and checks share, as atomic words. No source is involved.
#![expect(
    unsafe_code,
    reason = "mapping memory, and calls on it that no safe crate covers"
)]

use std::sync::atomic::AtomicU64;

use limosa_dirty::Mapping;
use limosa_pages::{PAGE_BYTES, PageIndex, PageRange};

/// A mapping of anonymous memory.
pub(crate) struct HostMemory {
    start: *mut libc::c_void,
    bytes: usize,
}

// SAFETY: the memory is only accessed as atomics, and is unmapped when the last owner goes.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// Private memory in base pages, of which reports are exact.
    pub(crate) fn new(pages: u64) -> Self {
        Self::mapped(pages, libc::MAP_PRIVATE, libc::MADV_NOHUGEPAGE)
    }

    /// Private memory in huge pages, where the kernel has them.
    pub(crate) fn huge(pages: u64) -> Self {
        Self::mapped(pages, libc::MAP_PRIVATE, libc::MADV_HUGEPAGE)
    }

    pub(crate) fn shared(pages: u64) -> Self {
        Self::mapped(pages, libc::MAP_SHARED, libc::MADV_NOHUGEPAGE)
    }

    fn mapped(pages: u64, sharing: libc::c_int, advice: libc::c_int) -> Self {
        let bytes = pages as usize * PAGE_BYTES;
        let flags = sharing | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: advice about the mapping just made; a kernel without huge pages refuses it.
        unsafe { libc::madvise(start, bytes, advice) };
        Self { start, bytes }
    }

    pub(crate) fn address(&self) -> u64 {
        self.start.addr() as u64
    }

    pub(crate) fn mapping(&self, pages: PageRange) -> Mapping {
        Mapping {
            host_address: self.address() + pages.start().address().get(),
            pages,
        }
    }

    /// The word at a guest address.
    pub(crate) fn word(&self, address: u64) -> &AtomicU64 {
        let address = address as usize;
        assert!(address.is_multiple_of(8) && address + 8 <= self.bytes);
        // SAFETY: aligned and within the mapping, which lives as long as the reference.
        unsafe { AtomicU64::from_ptr(self.start.byte_add(address).cast()) }
    }

    /// The first word of a page, which the writers count up.
    pub(crate) fn counter(&self, page: PageIndex) -> &AtomicU64 {
        self.word(page.address().get())
    }

    /// Writes a word through the kernel, not by a store of this thread.
    pub(crate) fn write_through_kernel(&self, page: PageIndex, value: u64) {
        let local = libc::iovec {
            iov_base: std::ptr::from_ref(&value).cast_mut().cast(),
            iov_len: size_of::<u64>(),
        };
        let remote = libc::iovec {
            iov_base: self.counter(page).as_ptr().cast(),
            ..local
        };
        // SAFETY: both places hold eight bytes; the kernel copies from the first to the second.
        let written = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
        assert_eq!(written, 8);
    }

    /// Gives pages back: they read as zeros from then on.
    pub(crate) fn discard(&self, pages: PageRange) {
        let offset = pages.start().address().get() as usize;
        let bytes = pages.count().bytes() as usize;
        assert!(offset + bytes <= self.bytes);
        // SAFETY: within the mapping; atomics tolerate that their value changes.
        let result =
            unsafe { libc::madvise(self.start.byte_add(offset), bytes, libc::MADV_DONTNEED) };
        assert_eq!(result, 0);
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference to it any more.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}
