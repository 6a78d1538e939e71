//! Page streams on io_uring: one ring for each stream, at most one call under way in it, because a
//! stream's bytes have one order. It decides nothing about frames.
//!
//! # Safety rules
//!
//! 1. From `Ring::submit` until `poll`, `wait` or `cancel` has returned the call's result, the
//!    kernel may use everything that the call points to. So it must stay where it is: a sender's
//!    frames lie in boxes that nobody touches, and keep alive the guest memory that they refer to;
//!    a receiver does not return before the result is there.
//! 2. A ring that is dropped waits for its call first. A sender shuts its socket down before that,
//!    so that the wait is short.
//! 3. What is sent is only read by the kernel, what is received into only written, both through
//!    bare pointers.
//! 4. A ring is used by the thread that made it: its type is not `Send`.
#![expect(
    unsafe_code,
    reason = "the kernel works on memory that calls only point to"
)]

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};
use vm_memory::VolatileSlice;

use crate::error::TransportError;
use crate::link::{Link, Start};
use crate::page::{FrameBytes, PageReceiver, PageSender};
use crate::probe::{IoReason, PageIo};
use crate::sys::{self, Pieces};

/// Marks the completion of the call, and of its cancellation.
const CALL: u64 = 1;
const CANCELLATION: u64 = 2;

/// One call and its cancellation, with room to spare.
const ENTRIES: u32 = 4;

/// A ring with at most one call under way.
pub(crate) struct Ring {
    ring: IoUring,
    is_busy: bool,
    /// An entry is queued that the kernel would not take: the ring is never entered again.
    is_broken: bool,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl Ring {
    /// A ring, with the best flags that the kernel has.
    pub(crate) fn new() -> Result<Self, IoReason> {
        let ring = build(Flags::Deferred)
            .or_else(|_| build(Flags::Cooperative))
            .or_else(|_| build(Flags::None))
            .map_err(|error| IoReason::of(&error))?;
        check(&ring)?;
        Ok(Self {
            ring,
            is_busy: false,
            is_broken: false,
            stays_on_its_thread: PhantomData,
        })
    }

    /// Begins a call.
    ///
    /// # Safety
    ///
    /// Everything that `entry` points to stays valid, and is used as the call demands, until the
    /// call's result was returned or, when this fails, until it fails.
    unsafe fn submit(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        debug_assert!(!self.is_busy, "one call at a time");
        if self.is_broken {
            return Err(io::Error::other("the ring is broken"));
        }
        let entry = entry.clone().user_data(CALL);
        // SAFETY: the caller keeps what the entry points to.
        unsafe { self.push(&entry) }?;
        self.is_busy = true;
        Ok(())
    }

    /// Queues `entry` and tells the kernel.
    ///
    /// # Safety
    ///
    /// As of [`submit`](Self::submit).
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)?;
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if is_passing(&error) => rest_after(&error),
                Err(error) => {
                    self.is_broken = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The call's result, when it is there.
    fn poll(&mut self) -> Option<i32> {
        if self.is_busy && self.ring.submission().taskrun() {
            // Lets the kernel finish what it has deferred; a failure is met again by `wait`.
            let _ = self.ring.submit();
        }
        self.take()
    }

    fn take(&mut self) -> Option<i32> {
        let mut result = None;
        for completion in self.ring.completion() {
            if completion.user_data() == CALL {
                result = Some(completion.result());
                self.is_busy = false;
            }
        }
        result
    }

    /// Waits for the call's result, but no longer than `longest`.
    fn wait(&mut self, longest: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(result) = self.take() {
                return Some(result);
            }
            let left = longest.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return None;
            }
            let time = Timespec::from(left);
            let bounds = SubmitArgs::new().timespec(&time);
            if let Err(error) = self.ring.submitter().submit_with_args(1, &bounds) {
                rest_after(&error);
            }
        }
    }

    /// Ends the call, and waits for its result, without a bound: the memory behind the call can't
    /// be given back earlier. A socket's call ends at once.
    fn cancel(&mut self) -> i32 {
        let entry = opcode::AsyncCancel::new(CALL).build();
        // SAFETY: the entry points to nothing.
        let _ = unsafe { self.push(&entry.user_data(CANCELLATION)) };
        loop {
            if let Some(result) = self.wait(Duration::from_secs(1)) {
                return result;
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.is_busy {
            self.cancel();
        }
    }
}

#[derive(Clone, Copy)]
enum Flags {
    /// Completions are worked off when this thread asks for them, and never interrupt it.
    Deferred,
    /// Completions are worked off at this thread's next system call.
    Cooperative,
    None,
}

fn build(flags: Flags) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    match flags {
        Flags::Deferred => builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag(),
        Flags::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
        Flags::None => &mut builder,
    };
    builder.dontfork().build(ENTRIES)
}

fn check(ring: &IoUring) -> Result<(), IoReason> {
    let too_old = |lacks| Err(IoReason::TooOld { lacks });
    if !ring.params().is_feature_ext_arg() {
        return too_old("waits with a time-out (Linux 5.11)");
    }
    if !ring.params().is_feature_fast_poll() {
        return too_old("polling of sockets (Linux 5.7)");
    }
    let mut probe = Probe::new();
    let known = ring.submitter().register_probe(&mut probe);
    for code in [
        opcode::SendMsg::CODE,
        opcode::RecvMsg::CODE,
        opcode::AsyncCancel::CODE,
    ] {
        if known.is_err() || !probe.is_supported(code) {
            return too_old("sendmsg, recvmsg or their cancellation");
        }
    }
    Ok(())
}

/// Does the kernel ask to try again?
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
    )
}

/// What an error of entering the ring asks for. An ended wait or a signal: nothing. Anything else,
/// a lack of memory for instance, is unexpected and passes or does not, but busy loops help nobody.
fn rest_after(error: &io::Error) {
    if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A call's result as the socket calls would return it. A cancelled one is silence.
fn as_result(result: i32) -> io::Result<usize> {
    match usize::try_from(result) {
        Ok(bytes) => Ok(bytes),
        Err(_) if result == -libc::ECANCELED => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        Err(_) => Err(io::Error::from_raw_os_error(result.wrapping_neg())),
    }
}

/// The message header and piece list of a call. Boxed by their owners, because the kernel reads
/// them during the call.
struct Call {
    message: libc::msghdr,
    pieces: Pieces,
}

impl Call {
    fn new() -> Box<Self> {
        Box::new(Self {
            // SAFETY: all-zero is a valid `msghdr`: no address, no pieces, no control data.
            message: unsafe { mem::zeroed() },
            pieces: Pieces::default(),
        })
    }

    /// The header, of the pieces as they are now.
    fn message(&mut self) -> *mut libc::msghdr {
        self.message.msg_iov = self.pieces.0.as_mut_ptr();
        self.message.msg_iovlen = self.pieces.0.len();
        &raw mut self.message
    }
}

/// A frame in its box, and where its pieces are.
struct Held<B> {
    frame: NonNull<B>,
    pieces: Pieces,
    bytes: usize,
}

impl<B: FrameBytes> Held<B> {
    /// Holds `frame`; `pieces` is an empty list to be used.
    fn new(frame: B, mut pieces: Pieces) -> Self {
        let frame = NonNull::from(Box::leak(Box::new(frame)));
        let mut borrowed = Vec::new();
        // SAFETY: the box was just leaked and is only taken back by `release`, which takes `self`;
        // until then nothing but this shared reference touches the frame, so the pieces that safe
        // code derives from it stay valid.
        unsafe { frame.as_ref() }.pieces(&mut borrowed);
        pieces.append(&borrowed);
        let bytes = pieces.bytes();
        Self {
            frame,
            pieces,
            bytes,
        }
    }

    /// The frame itself, and the list that was used. The kernel must be through with its bytes.
    fn release(self) -> (B, Pieces) {
        let mut pieces = self.pieces;
        pieces.0.clear();
        // SAFETY: made by `Box::leak` in `new`, and taken back once, because `self` is consumed.
        (*unsafe { Box::from_raw(self.frame.as_ptr()) }, pieces)
    }
}

/// Sends frames by one `sendmsg` over all that are held; those that come meanwhile wait for the
/// next.
pub(crate) struct UringSender<B: FrameBytes> {
    link: Arc<Link>,
    ring: Ring,
    call: Box<Call>,
    /// Not fully sent, oldest first.
    held: VecDeque<Held<B>>,
    /// How much of the oldest is sent.
    oldest_sent_bytes: usize,
    done: VecDeque<B>,
    /// Lists of pieces to be used again.
    spare: Vec<Pieces>,
    held_max: usize,
}

impl<B: FrameBytes> UringSender<B> {
    pub(crate) fn new(link: Arc<Link>, ring: Ring, held_max: usize) -> Self {
        Self {
            link,
            ring,
            call: Call::new(),
            held: VecDeque::with_capacity(held_max),
            oldest_sent_bytes: 0,
            done: VecDeque::with_capacity(held_max),
            spare: Vec::with_capacity(held_max),
            held_max,
        }
    }

    /// Begins a call for all held frames, unless one is under way; takes what is there of results.
    fn start(&mut self) -> Result<(), TransportError> {
        if !self.ring.is_busy && !self.held.is_empty() {
            self.call.pieces.0.clear();
            let mut skip = self.oldest_sent_bytes;
            for held in &self.held {
                self.call.pieces.append_rest(&held.pieces, skip);
                skip = 0;
            }
            let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
            let entry = opcode::SendMsg::new(Fd(self.link.raw_fd()), self.call.message())
                .flags(flags)
                .build();
            // SAFETY: the frames are held and the call is boxed until the result is taken; `Drop`
            // waits for it.
            unsafe { self.ring.submit(&entry) }
                .map_err(|error| self.link.fail_io(error, "take a send"))?;
        }
        match self.ring.poll() {
            Some(result) => self.account(result),
            None => Ok(()),
        }
    }

    /// Sends on until the oldest held frame is through, or more.
    fn advance(&mut self) -> Result<(), TransportError> {
        let before = self.held.len();
        self.start()?;
        while self.held.len() == before && before > 0 {
            if self.ring.is_busy {
                let result = self.ring.wait(self.link.silence);
                let result = result.unwrap_or_else(|| self.ring.cancel());
                self.account(result)?;
            } else {
                self.start()?;
            }
        }
        Ok(())
    }

    /// Books a call's result: frames that are through become free.
    fn account(&mut self, result: i32) -> Result<(), TransportError> {
        let mut sent = self.oldest_sent_bytes + self.link.sent(as_result(result))?;
        while let Some(held) = self.held.pop_front() {
            if held.bytes > sent {
                self.held.push_front(held);
                break;
            }
            sent -= held.bytes;
            let (frame, pieces) = held.release();
            self.done.push_back(frame);
            self.spare.push(pieces);
        }
        self.oldest_sent_bytes = sent;
        Ok(())
    }
}

impl<B: FrameBytes> PageSender<B> for UringSender<B> {
    fn send(&mut self, frame: B) -> Result<Option<B>, TransportError> {
        while self.held.len() >= self.held_max {
            self.advance()?;
        }
        let pieces = self.spare.pop().unwrap_or_default();
        self.held.push_back(Held::new(frame, pieces));
        self.start()?;
        Ok(self.done.pop_front())
    }

    fn reclaim(&mut self) -> Result<Option<B>, TransportError> {
        if self.done.is_empty() {
            self.advance()?;
        }
        Ok(self.done.pop_front())
    }

    fn flush(&mut self) -> Result<(), TransportError> {
        while !self.held.is_empty() {
            self.advance()?;
        }
        Ok(())
    }

    fn io(&self) -> PageIo {
        PageIo::Uring
    }
}

impl<B: FrameBytes> Drop for UringSender<B> {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            // Frames are cut off: the peer must not take the next stream's bytes for their rest.
            self.link.shut_down();
        }
        if self.ring.is_busy {
            self.ring.cancel();
        }
        while let Some(held) = self.held.pop_front() {
            drop(held.release());
        }
    }
}

/// Receives by one `recvmsg` for each piece.
pub(crate) struct UringReceiver {
    link: Arc<Link>,
    ring: Ring,
    call: Box<Call>,
}

impl UringReceiver {
    pub(crate) fn new(link: Arc<Link>, ring: Ring) -> Self {
        let call = Call::new();
        Self { link, ring, call }
    }

    /// Fills the memory that the call's pieces name, and returns how much of it, once the kernel
    /// is through with it.
    ///
    /// # Safety
    ///
    /// The pieces may be written until this returns.
    unsafe fn recv_once(&mut self) -> io::Result<usize> {
        let entry = opcode::RecvMsg::new(Fd(self.link.raw_fd()), self.call.message())
            .flags(libc::MSG_WAITALL as u32)
            .build();
        // SAFETY: this function returns only after the call's result was taken.
        unsafe { self.ring.submit(&entry) }?;
        let result = match self.ring.poll() {
            Some(result) => result,
            None => match self.ring.wait(self.link.silence) {
                Some(result) => result,
                None => self.ring.cancel(),
            },
        };
        as_result(result)
    }

    fn recv_bytes(&mut self, into: &mut [u8], start: Start) -> Result<(), TransportError> {
        let mut received = 0;
        while let Some(rest) = into.get_mut(received..).filter(|rest| !rest.is_empty()) {
            let missing_bytes = rest.len();
            self.call.pieces.0.clear();
            self.call.pieces.0.push(libc::iovec {
                iov_base: rest.as_mut_ptr().cast(),
                iov_len: missing_bytes,
            });
            // SAFETY: the one piece is `rest`, which is borrowed mutably until after the call.
            let result = unsafe { self.recv_once() };
            received += self.link.received(result, received, missing_bytes, start)?;
        }
        Ok(())
    }
}

impl PageReceiver for UringReceiver {
    fn recv_header(&mut self, header: &mut [u8]) -> Result<(), TransportError> {
        self.recv_bytes(header, Start::Front)
    }

    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), TransportError> {
        self.recv_bytes(into, Start::Midway)
    }

    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), TransportError> {
        let total = sys::landing_bytes(landing);
        let mut received = 0;
        while received < total {
            self.call.pieces.fill_volatile(landing, received);
            // SAFETY: the pieces lie within `landing`, which is borrowed until after the call.
            let result = unsafe { self.recv_once() };
            let missing_bytes = total - received;
            received += self
                .link
                .received(result, received, missing_bytes, Start::Midway)?;
        }
        Ok(())
    }

    fn io(&self) -> PageIo {
        PageIo::Uring
    }
}
