//! Opens links to a target that listens. Trying again is the caller's.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use limosa_wire::{Bind, MigrationId, StreamIndex};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::LinkConfig;
use crate::control::ControlLink;
use crate::endpoint::Endpoint;
use crate::error::{LinkName, LinkRole, TransportError, TransportFault};
use crate::link::Link;
use crate::options;
use crate::page::PageLink;
use crate::sys::{self, Awaited};
use crate::wait::Wait;

/// Opens the control link to the target at `endpoint`. The caller's first message on it must be its
/// `Hello`: by that the target knows it.
///
/// # Errors
///
/// [`Refused`](TransportFault::Refused), [`Unreachable`](TransportFault::Unreachable),
/// [`TimedOut`](TransportFault::TimedOut) after [`LinkConfig::connect_max`] or the wait's end,
/// whichever is sooner, [`Cancelled`](TransportFault::Cancelled).
pub fn connect_control(
    endpoint: &Endpoint,
    config: &LinkConfig,
    wait: &Wait<'_>,
) -> Result<ControlLink, TransportError> {
    let role = LinkRole::Control;
    let link = connect(endpoint, config, wait, role, options::of_control)?;
    Ok(ControlLink::new(link, Vec::new()))
}

/// Opens page stream `stream` to the target at `endpoint`, and binds it to the migration with the
/// secret of the accepted verdict: the `Bind` frame, sequence 0, is sent here.
///
/// That the target lets the stream in is said by its `StreamsBound` message; a target that does
/// not closes it.
///
/// # Errors
///
/// Those of [`connect_control`], and those of a stream that fails while the `Bind` is sent.
pub fn connect_stream(
    endpoint: &Endpoint,
    config: &LinkConfig,
    migration_id: MigrationId,
    stream: StreamIndex,
    bind: &Bind,
    wait: &Wait<'_>,
) -> Result<PageLink, TransportError> {
    let role = LinkRole::Stream(stream);
    let link = connect(endpoint, config, wait, role, options::of_stream)?;
    link.send_all(&bind.frame(migration_id, stream))?;
    Ok(PageLink::new(link, stream, config))
}

fn connect(
    endpoint: &Endpoint,
    config: &LinkConfig,
    wait: &Wait<'_>,
    role: LinkRole,
    set_options: fn(&Socket, &LinkConfig) -> io::Result<()>,
) -> Result<Link, TransportError> {
    let name = |peer| LinkName { role, peer };
    let failed = |fault: TransportFault| fault.of(name(endpoint.clone()));
    let addresses = endpoint
        .addresses()
        .map_err(|source| failed(TransportFault::Unreachable { source }))?;
    let begun = Instant::now();
    let mut last = TransportFault::Refused;
    for address in &addresses {
        let left = config.connect_max.saturating_sub(begun.elapsed());
        match connect_address(address, config, wait, left) {
            Ok(socket) => {
                set_options(&socket, config).map_err(|source| {
                    let deed = "set the options of a link";
                    failed(TransportFault::Kernel { deed, source })
                })?;
                let peer = Endpoint::of_address(address, endpoint);
                return Ok(Link::new(socket, name(peer), config.silence()));
            }
            Err(fault @ (TransportFault::Cancelled | TransportFault::TimedOut { .. })) => {
                return Err(failed(fault));
            }
            Err(fault) => last = fault,
        }
    }
    Err(failed(last))
}

const AWAITED: &str = "the connection";

fn connect_address(
    address: &SockAddr,
    config: &LinkConfig,
    wait: &Wait<'_>,
    longest: Duration,
) -> Result<Socket, TransportFault> {
    let refused = |source: io::Error| match source.kind() {
        // A socket file that is not there has no listener either.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => TransportFault::Refused,
        _ => TransportFault::Unreachable { source },
    };
    let kernel = |source| TransportFault::Kernel {
        deed: "make a socket",
        source,
    };
    let socket = Socket::new(address.domain(), Type::STREAM, None).map_err(kernel)?;
    options::before_connection(&socket, config).map_err(kernel)?;
    socket.set_nonblocking(true).map_err(kernel)?;
    let own = Wait::at_most(longest);
    loop {
        let nap = wait.nap(AWAITED)?.min(own.nap(AWAITED).map_err(|_| {
            let (what, longest) = (AWAITED, config.connect_max);
            TransportFault::TimedOut { what, longest }
        })?);
        match socket.connect(address) {
            Ok(()) => return Ok(socket),
            Err(error) if error.raw_os_error() == Some(libc::EISCONN) => return Ok(socket),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) if error.raw_os_error() == Some(libc::EALREADY) => {}
            // Unix only: the listener's queue is full, and there is nothing to poll for.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && address.domain() == Domain::UNIX =>
            {
                std::thread::sleep(nap.min(Duration::from_millis(2)));
                continue;
            }
            Err(error) => return Err(refused(error)),
        }
        let mut ready = Vec::with_capacity(1);
        sys::poll(&[(socket.as_fd(), Awaited::Writable)], nap, &mut ready).map_err(kernel)?;
        if let Some(error) = socket.take_error().map_err(kernel)? {
            return Err(refused(error));
        }
    }
}
