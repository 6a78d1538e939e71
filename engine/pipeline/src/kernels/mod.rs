//! The inner loops over bytes, one file per kind of processor behind safe doors. They know no page
//! index, record or frame.
//!
//! # Safety rules
//!
//! Guest memory changes under the reader: vCPUs and devices write while a page is lifted.
//! 1. Guest memory is only reached through a [`VolatileSlice`], never through a `&[u8]`: a
//!    reference would promise the compiler that the bytes hold still.
//! 2. Where a page is copied, each byte is read **once**, by a volatile load, and both the copy and
//!    the zero test use the value in the register. A second read could see another value, and a
//!    page would count as zero whose copy is not.
//! 3. A loop that needs a processor feature is reached through a value which exists only where that
//!    feature was found.
#![expect(unsafe_code, reason = "SIMD over memory that a running guest writes")]

use limosa_pages::PAGE_BYTES;
use vm_memory::VolatileSlice;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Alignment that the SIMD loops want of the source, in bytes: volatile loads must be aligned.
const SOURCE_ALIGNMENT: usize = 64;

/// What a lifted page holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing but zero bytes.
    Zero,
    /// At least one byte that is not zero.
    Data,
}

/// One page of memory that others may write, as the loops want it: 4096 readable bytes, aligned.
#[derive(Clone, Copy)]
struct SourcePage<'a> {
    pointer: *const u8,
    memory: core::marker::PhantomData<&'a u8>,
}

impl<'a> SourcePage<'a> {
    /// `None` where the slice is no whole page or lies askew.
    fn new(slice: &'a VolatileSlice<'_>) -> Option<Self> {
        let guard = slice.ptr_guard();
        let pointer = guard.as_ptr();
        let fits = guard.len() == PAGE_BYTES && pointer.align_offset(SOURCE_ALIGNMENT) == 0;
        fits.then_some(Self {
            pointer,
            memory: core::marker::PhantomData,
        })
    }
}

/// The loops for one kind of processor.
///
/// Every kind gives the same answers; [`Kernels::portable`] is the oracle of the others.
#[derive(Clone, Copy, Debug)]
pub struct Kernels(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Kernels {
    /// The fastest loops that this processor can run.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(avx512) = avx512::Avx512::new() {
                return Self(Kind::Avx512(avx512));
            }
            if let Some(avx2) = avx2::Avx2::new() {
                return Self(Kind::Avx2(avx2));
            }
        }
        Self::portable()
    }

    /// The loops that every processor can run.
    pub const fn portable() -> Self {
        Self(Kind::Portable)
    }

    /// Every kind that this processor can run, the portable one first: for tests and benches.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = [
            avx2::Avx2::new().map(Kind::Avx2),
            avx512::Avx512::new().map(Kind::Avx512),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let special: [Option<Kind>; 0] = [];
        core::iter::once(Kind::Portable)
            .chain(special.into_iter().flatten())
            .map(Self)
    }

    /// A short name for reports.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512",
        }
    }

    /// Copies one page of memory that others may write, and says what the copy holds.
    ///
    /// The answer is about the copy, always: a page that is being written may be torn, but never
    /// counts as zero while its copy is not. A source that is not exactly one page is copied as far
    /// as it goes, with zeros behind.
    #[inline]
    pub fn copy_and_test_zero(
        self,
        source: &VolatileSlice<'_>,
        into: &mut [u8; PAGE_BYTES],
    ) -> Content {
        let Some(page) = SourcePage::new(source) else {
            return copy_askew(source, into);
        };
        let is_zero = match self.0 {
            Kind::Portable => portable::copy_and_test_zero(page, into),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(avx2) => avx2.copy_and_test_zero(page, into),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(avx512) => avx512.copy_and_test_zero(page, into),
        };
        if is_zero {
            Content::Zero
        } else {
            Content::Data
        }
    }

    /// Says what a page of memory that others may write holds, and reads no more of it than that
    /// takes: of most pages with data a few cache lines.
    ///
    /// A source that is not exactly one page counts as data.
    #[inline]
    pub fn test_zero(self, source: &VolatileSlice<'_>) -> Content {
        let is_zero = SourcePage::new(source).is_some_and(|page| match self.0 {
            Kind::Portable => portable::is_zero_page(page),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(avx2) => avx2.test_zero(page),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(avx512) => avx512.test_zero(page),
        });
        if is_zero {
            Content::Zero
        } else {
            Content::Data
        }
    }
}

/// The checksum of memory that others may write, as that of [`limosa_wire::checksum`] over a copy.
///
/// It takes the copy page by page, in the cache: 28 GiB/s with it where the checksum alone runs at
/// 74, beside a link that brings less than 7.
pub struct Checksum {
    kernels: Kernels,
    hasher: crc32fast::Hasher,
}

impl Checksum {
    /// Of no bytes yet.
    pub fn new(kernels: Kernels) -> Self {
        Self {
            kernels,
            hasher: crc32fast::Hasher::new(),
        }
    }

    /// Goes on over `slice`.
    pub fn update(&mut self, slice: &VolatileSlice<'_>) {
        let mut still = [0; PAGE_BYTES];
        for at in (0..slice.len()).step_by(PAGE_BYTES) {
            let part_bytes = PAGE_BYTES.min(slice.len() - at);
            if let Ok(part) = slice.subslice(at, part_bytes) {
                self.kernels.copy_and_test_zero(&part, &mut still);
                self.hasher.update(&still[..part_bytes]);
            }
        }
    }

    /// Goes on over bytes that nobody else writes.
    pub fn update_still(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn finish(self) -> u32 {
        self.hasher.finalize()
    }
}

/// The way for sources that the loops can't take: two passes, the second over the still copy.
#[cold]
fn copy_askew(source: &VolatileSlice<'_>, into: &mut [u8; PAGE_BYTES]) -> Content {
    let copied = source.copy_to(&mut into[..]);
    into[copied..].fill(0);
    if portable::is_zero(into) {
        Content::Zero
    } else {
        Content::Data
    }
}
