//! The knobs of links. Each has a default that suits a data centre and loopback.

use std::time::Duration;

/// How links behave. Both hosts may differ in each of these.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkConfig {
    /// Longest time to connect one link, all addresses of a name together.
    ///
    /// 1 ms and up; default 5 s: three lost SYNs on a working network.
    pub connect_max: Duration,
    /// Longest time in which no byte of a begun message or frame moves, before the link counts as
    /// dead.
    ///
    /// A stalled peer is noticed after one to two times this long. It bounds sends (the peer reads
    /// nothing) and the rest of what has begun to arrive; it does not bound the wait for a next
    /// message or frame, which is the session's business. 1 ms to a day, default 30 s: a target
    /// that is short of memory may take seconds to make room for a chunk, and a peer that is gone
    /// is noticed by [`vanished_max`](Self::vanished_max) on the control link, and by the session's
    /// keep-alives, long before.
    pub io_silence_max: Duration,
    /// Longest time in which the peer's kernel acknowledges nothing, before host or network count
    /// as gone. TCP only: `TCP_USER_TIMEOUT` and `SO_KEEPALIVE` (first probe after half of this,
    /// then five).
    ///
    /// Whole seconds; 2 s and up, default 10 s. On page streams the larger of this and
    /// [`io_silence_max`](Self::io_silence_max) is used, because Linux counts a receiver that has
    /// no room as one that does not acknowledge.
    pub vanished_max: Duration,
    /// Longest time that a newcomer may take to show its whole first message.
    ///
    /// 1 ms and up, default 5 s.
    pub newcomer_max: Duration,
    /// Most newcomers that may be without a whole first message at once; the oldest has to go when
    /// one more comes.
    ///
    /// 1 to 1024, default 128: twice the streams that a migration can have, so that a whole
    /// migration's streams can arrive at once.
    pub newcomers_max: usize,
    /// `SO_SNDBUF` of links, in bytes; `None` leaves the kernel to size it.
    ///
    /// 4 KiB to 1 GiB, cut by `net.core.wmem_max`, and left to the kernel where that grants less
    /// than half. Default `None`: on loopback no size from 512 KiB to 4 MiB was better.
    pub send_buffer_bytes: Option<usize>,
    /// `SO_RCVBUF` of links, in bytes; `None` leaves the kernel to size it.
    ///
    /// 4 KiB to 1 GiB, cut by `net.core.rmem_max`, and left to the kernel where that grants less
    /// than half. Default 4 MiB: a TCP stream over loopback then costs 0.40 instead of 0.56 s of
    /// CPU time for a GiB, as it does with 2 MiB and does not with 1 MiB. It also bounds what a
    /// stream has under way to about as much, so a stream is no faster than 4 MiB for each round
    /// trip: on paths longer than some 10 ms leave it to the kernel, or open more streams.
    pub receive_buffer_bytes: Option<usize>,
    /// Congestion control of TCP page streams.
    pub congestion: Congestion,
    /// How page streams reach the kernel.
    pub io: IoChoice,
    /// How memory of the guest that need not hold still reaches it.
    pub splice: Splice,
    /// Most frames that a page sender on io_uring holds at once. When as many are on their way, the
    /// next [`send`](crate::PageSender::send) waits for the oldest.
    ///
    /// 1 to 64, default 4. Each keeps one buffer of the caller's pool. They let a thread pack on
    /// while the peer catches up; the rate over loopback is the same from 1 to 8.
    pub frames_in_flight_max: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            connect_max: Duration::from_secs(5),
            io_silence_max: Duration::from_secs(30),
            vanished_max: Duration::from_secs(10),
            newcomer_max: Duration::from_secs(5),
            newcomers_max: 128,
            send_buffer_bytes: None,
            receive_buffer_bytes: Some(4 << 20),
            congestion: Congestion::default(),
            io: IoChoice::Auto,
            splice: Splice::default(),
            frames_in_flight_max: 4,
        }
    }
}

impl LinkConfig {
    /// The silence bound as sockets take it: zero would mean "for ever" to the kernel.
    pub(crate) fn silence(&self) -> Duration {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        self.io_silence_max.clamp(Duration::from_millis(1), DAY)
    }

    pub(crate) fn newcomers_bound(&self) -> usize {
        self.newcomers_max.clamp(1, 1024)
    }

    pub(crate) fn frames_in_flight_bound(&self) -> usize {
        self.frames_in_flight_max.clamp(1, 64)
    }
}

/// Congestion control of TCP page streams.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Congestion {
    /// What `net.ipv4.tcp_congestion_control` says.
    System,
    /// The named one where the kernel lets this process have it, else the system's. The default is
    /// `cubic`: a migration is one bulk transfer over a short path, which pacing as `bbr` does it
    /// slows down by a third to a half on loopback.
    Prefer(String),
}

impl Default for Congestion {
    fn default() -> Self {
        Self::Prefer("cubic".to_owned())
    }
}

/// How memory that need not hold still ([`Piece::Memory`](crate::Piece::Memory)) reaches a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Splice {
    /// By reference, through a pipe, where its pages can be referred to: the sender copies nothing.
    /// Over loopback 2 GiB then cost 0.05 instead of 0.27 s of the sender's CPU time.
    #[default]
    Auto,
    /// By a copy into the kernel.
    Never,
}

/// How page streams reach the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoChoice {
    /// io_uring where this kernel lets the process have it, else blocking calls: see
    /// [`probe_io`](crate::probe_io). Over loopback both move a byte equally fast; on io_uring a
    /// sender's thread packs on while the peer has no room for what went ahead.
    #[default]
    Auto,
    /// One io_uring for each stream; an error where it can't be had.
    Uring,
    /// One blocking system call for each piece.
    Blocking,
}
