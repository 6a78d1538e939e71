//! Where a target waits for its source: accepts newcomers and lets in whom it awaits. What follows
//! on a link is not its business.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::AsFd as _;

use limosa_wire::{Bind, FrameHeader, MigrationId, StreamIndex, StreamSecret};
use socket2::{SockAddr, Socket, Type};

use crate::config::LinkConfig;
use crate::control::ControlLink;
use crate::endpoint::Endpoint;
use crate::error::{LinkName, LinkRole, TransportError, TransportFault};
use crate::link::Link;
use crate::newcomer::{Flaw, Newcomer, Shown, Strangers};
use crate::options;
use crate::page::PageLink;
use crate::sys::{self, Awaited};
use crate::unix_path::SocketFile;
use crate::wait::Wait;

/// Connections that the kernel holds while nobody accepts; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Most connections taken from the kernel at one go, so that a flood does not keep those that are
/// here from being read.
const ACCEPTS_AT_ONCE: usize = 16;

/// The page streams that a target awaits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamsExpected {
    /// The migration they belong to.
    pub migration_id: MigrationId,
    /// The secret that the source was told with the verdict.
    pub secret: StreamSecret,
    /// How many there are: 1 to [`STREAMS_MAX`](limosa_wire::STREAMS_MAX).
    pub stream_count: u16,
}

impl StreamsExpected {
    fn fits(&self, header: &FrameHeader, bind: &Bind) -> bool {
        // `Bind::decode` holds the stream's number below the count.
        header.migration_id == self.migration_id
            && bind.secret == self.secret
            && bind.stream_count == self.stream_count
    }
}

/// Waits on an endpoint for the links of migrations, one migration after the other.
///
/// Between calls nothing is read: newcomers wait in the kernel's queue. Strangers cost a call
/// nothing but their turn, whatever they send or don't: all newcomers are read at once, without
/// blocking, each for at most [`newcomer_max`](LinkConfig::newcomer_max), and when there are more
/// than [`newcomers_max`](LinkConfig::newcomers_max) the oldest goes. A source sends its first
/// message as soon as it is connected, so it is never the one that goes.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    endpoint: Endpoint,
    config: LinkConfig,
    newcomers: VecDeque<Newcomer>,
    strangers: Strangers,
    _socket_file: Option<SocketFile>,
}

impl Listener {
    /// Listens on `endpoint`. Of a name's addresses the first that can be listened on is taken.
    ///
    /// A Unix socket's file is made for the owner only, replaces the file of a listener that is
    /// dead, and is removed with the listener.
    ///
    /// # Errors
    ///
    /// [`AddressInUse`](TransportFault::AddressInUse),
    /// [`AddressUnusable`](TransportFault::AddressUnusable).
    pub fn bind(endpoint: &Endpoint, config: &LinkConfig) -> Result<Self, TransportError> {
        let failed = |source: io::Error| {
            let fault = match source.kind() {
                io::ErrorKind::AddrInUse => TransportFault::AddressInUse,
                _ => TransportFault::AddressUnusable { source },
            };
            fault.of(LinkName {
                role: LinkRole::Listener,
                peer: endpoint.clone(),
            })
        };
        let mut last = io::Error::other("the name has no address");
        for address in endpoint.addresses().map_err(failed)? {
            match listen(&address, config) {
                Ok((socket, file)) => {
                    let own = socket.local_addr().map_err(failed)?;
                    return Ok(Self {
                        socket,
                        endpoint: Endpoint::of_address(&own, endpoint),
                        config: config.clone(),
                        newcomers: VecDeque::new(),
                        strangers: Strangers::default(),
                        _socket_file: file,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Where it listens, with the port that the kernel chose for port 0.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The newcomers that were dropped so far.
    #[must_use]
    pub fn strangers(&self) -> Strangers {
        self.strangers
    }

    /// Waits for a source: the first newcomer that shows a whole `Hello`. Its bytes are the first
    /// that the link's reader returns. Page streams that come meanwhile are strangers.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](TransportFault::TimedOut) and [`Cancelled`](TransportFault::Cancelled) as
    /// `wait` says, after which the listener can be asked again.
    pub fn accept_control(&mut self, wait: &Wait<'_>) -> Result<ControlLink, TransportError> {
        loop {
            let mut arrived = self.next_shown("a source", wait)?.into_iter();
            while let Some((newcomer, shown)) = arrived.next() {
                let Shown::Control(hello) = shown else {
                    self.strangers.unbidden += 1;
                    continue;
                };
                match self.admit(newcomer, LinkRole::Control, options::of_control) {
                    Ok(link) => {
                        self.strangers.unbidden += arrived.len() as u64;
                        return Ok(ControlLink::new(link, hello));
                    }
                    Err(_) => self.strangers.closed += 1,
                }
            }
        }
    }

    /// Waits until all of a migration's page streams are bound; they come in the order of their
    /// numbers. Sources that come meanwhile are strangers, and so is a second stream of one number.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](TransportFault::TimedOut) and [`Cancelled`](TransportFault::Cancelled) as
    /// `wait` says; streams that were bound until then are closed.
    pub fn accept_streams(
        &mut self,
        expected: &StreamsExpected,
        wait: &Wait<'_>,
    ) -> Result<Vec<PageLink>, TransportError> {
        let mut places: Vec<Option<PageLink>> = Vec::new();
        places.resize_with(expected.stream_count.into(), || None);
        while places.iter().any(Option::is_none) {
            for (newcomer, shown) in self.next_shown("every page stream", wait)? {
                let Shown::Stream(header, bind) = shown else {
                    self.strangers.unbidden += 1;
                    continue;
                };
                let stream: StreamIndex = header.stream;
                match places.get_mut(usize::from(stream.get())) {
                    Some(place) if place.is_none() && expected.fits(&header, &bind) => {
                        let role = LinkRole::Stream(stream);
                        match self.admit(newcomer, role, options::of_stream) {
                            Ok(link) => *place = Some(PageLink::new(link, stream, &self.config)),
                            Err(_) => self.strangers.closed += 1,
                        }
                    }
                    _ => self.strangers.unbidden += 1,
                }
            }
        }
        Ok(places.into_iter().flatten().collect())
    }

    /// Makes a newcomer's socket a link.
    fn admit(
        &self,
        newcomer: Newcomer,
        role: LinkRole,
        set_options: fn(&Socket, &LinkConfig) -> io::Result<()>,
    ) -> io::Result<Link> {
        set_options(&newcomer.socket, &self.config)?;
        let peer = newcomer.peer;
        let name = LinkName { role, peer };
        Ok(Link::new(newcomer.socket, name, self.config.silence()))
    }

    /// Waits until newcomers have shown what they are.
    fn next_shown(
        &mut self,
        awaited: &'static str,
        wait: &Wait<'_>,
    ) -> Result<Vec<(Newcomer, Shown)>, TransportError> {
        let mut ready = Vec::new();
        loop {
            let nap = wait.nap(awaited).map_err(|fault| self.failed(fault))?;
            let mut sockets = vec![(self.socket.as_fd(), Awaited::Readable)];
            let waiting = self.newcomers.iter();
            sockets.extend(waiting.map(|one| (one.socket.as_fd(), Awaited::Readable)));
            sys::poll(&sockets, nap, &mut ready).map_err(|source| {
                let deed = "wait for connections";
                self.failed(TransportFault::Kernel { deed, source })
            })?;
            let shown = self.read_newcomers(ready.get(1..).unwrap_or_default());
            if ready.first() == Some(&true) {
                self.accept()?;
            }
            if !shown.is_empty() {
                return Ok(shown);
            }
        }
    }

    /// Reads the newcomers that are `ready`, and drops those that are flawed or too slow.
    fn read_newcomers(&mut self, ready: &[bool]) -> Vec<(Newcomer, Shown)> {
        let mut shown = Vec::new();
        let newcomers = mem::take(&mut self.newcomers);
        let is_ready = ready.iter().copied().chain(std::iter::repeat(false));
        for (mut newcomer, is_ready) in newcomers.into_iter().zip(is_ready) {
            match if is_ready { newcomer.read() } else { Ok(None) } {
                Ok(Some(what)) => shown.push((newcomer, what)),
                Ok(None) if newcomer.since.elapsed() >= self.config.newcomer_max => {
                    self.strangers.slow += 1;
                }
                Ok(None) => self.newcomers.push_back(newcomer),
                Err(Flaw::Garbage) => self.strangers.garbage += 1,
                Err(Flaw::Closed) => self.strangers.closed += 1,
            }
        }
        shown
    }

    /// Takes new connections from the kernel.
    fn accept(&mut self) -> Result<(), TransportError> {
        for _ in 0..ACCEPTS_AT_ONCE.min(self.config.newcomers_bound()) {
            let (socket, address) = match self.socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) if is_shortage(&error) && self.newcomers.pop_front().is_some() => {
                    self.strangers.crowded_out += 1;
                    continue;
                }
                Err(source) => {
                    let deed = "accept a connection";
                    return Err(self.failed(TransportFault::Kernel { deed, source }));
                }
            };
            if socket.set_nonblocking(true).is_err() {
                self.strangers.closed += 1;
                continue;
            }
            let peer = Endpoint::of_address(&address, &self.endpoint);
            if self.newcomers.len() >= self.config.newcomers_bound() {
                self.newcomers.pop_front();
                self.strangers.crowded_out += 1;
            }
            self.newcomers.push_back(Newcomer::new(socket, peer));
        }
        Ok(())
    }

    fn failed(&self, fault: TransportFault) -> TransportError {
        fault.of(LinkName {
            role: LinkRole::Listener,
            peer: self.endpoint.clone(),
        })
    }
}

fn listen(address: &SockAddr, config: &LinkConfig) -> io::Result<(Socket, Option<SocketFile>)> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    options::before_connection(&socket, config)?;
    socket.set_nonblocking(true)?;
    let file = match address.as_pathname() {
        Some(path) => Some(SocketFile::listen(&socket, path, BACKLOG)?),
        None => {
            // Connections of an earlier attempt that linger in TIME_WAIT don't hold the port.
            socket.set_reuse_address(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)?;
            None
        }
    };
    Ok((socket, file))
}

/// Does the error concern only the connection that was about to be accepted?
/// Source: accept(2), "Error handling": pending network errors of the new socket.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

/// Can it be helped by letting a newcomer go?
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
