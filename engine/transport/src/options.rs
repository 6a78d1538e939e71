//! Socket options: what each is set to, and why. Nothing is sent or received here.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive};

use crate::config::{Congestion, LinkConfig};

/// What the kernel made of a page stream's options.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkFacts {
    /// The congestion control in use; `None` on a Unix socket.
    pub congestion: Option<String>,
    /// `SO_SNDBUF` as the kernel counts it, in bytes.
    pub send_buffer_bytes: usize,
    /// `SO_RCVBUF` as the kernel counts it, in bytes.
    pub receive_buffer_bytes: usize,
}

/// Options that must be set before the connection is made, on a connecting or a listening socket:
/// the receive buffer decides about the window scale of the first packet, and a congestion control
/// that paces (bbr, the default of some systems) leaves its pacing on when another one follows it
/// on a connection that is made: a third of the throughput on loopback.
pub(crate) fn before_connection(socket: &Socket, config: &LinkConfig) -> io::Result<()> {
    if is_tcp(socket)?
        && let Congestion::Prefer(name) = &config.congestion
    {
        // Preferred, not demanded: an unknown name or a missing right leave the system's.
        let _ = socket.set_tcp_congestion(name.as_bytes());
    }
    if let Some(bytes) = granted(config.receive_buffer_bytes, "rmem_max") {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = granted(config.send_buffer_bytes, "wmem_max") {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

/// How much of `wanted` to ask for. A buffer that is set is not resized by the kernel any more; so
/// where the system grants less than half, the kernel's own sizing, whose limit is another, is
/// better.
fn granted(wanted: Option<usize>, limit: &str) -> Option<usize> {
    let wanted = wanted?;
    let limit = fs::read_to_string(Path::new("/proc/sys/net/core").join(limit));
    let limit: usize = limit.ok()?.trim().parse().ok()?;
    (limit >= wanted.div_ceil(2)).then_some(wanted.min(limit))
}

/// Options of a connected control link: small messages at once, silence noticed.
pub(crate) fn of_control(socket: &Socket, config: &LinkConfig) -> io::Result<()> {
    time_outs(socket, config.silence())?;
    if is_tcp(socket)? {
        socket.set_tcp_nodelay(true)?;
        notice_vanished(socket, config, config.vanished_max)?;
    }
    Ok(())
}

/// Options of a connected page stream.
pub(crate) fn of_stream(socket: &Socket, config: &LinkConfig) -> io::Result<()> {
    time_outs(socket, config.silence())?;
    if is_tcp(socket)? {
        // The tail of a round must not wait for an acknowledgement of what went ahead.
        socket.set_tcp_nodelay(true)?;
        notice_vanished(socket, config, config.vanished_max.max(config.silence()))?;
    }
    Ok(())
}

/// What became of the options.
pub(crate) fn facts(socket: &Socket) -> io::Result<LinkFacts> {
    let congestion = if is_tcp(socket)? {
        let name = socket.tcp_congestion()?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(name).into_owned())
    } else {
        None
    };
    Ok(LinkFacts {
        congestion,
        send_buffer_bytes: socket.send_buffer_size()?,
        receive_buffer_bytes: socket.recv_buffer_size()?,
    })
}

fn time_outs(socket: &Socket, silence: Duration) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(silence))?;
    socket.set_write_timeout(Some(silence))
}

fn is_tcp(socket: &Socket) -> io::Result<bool> {
    let domain = socket.domain()?;
    Ok(domain == Domain::IPV4 || domain == Domain::IPV6)
}

/// Probes on an idle link begin at half of `vanished_max`, and five of them fill the other half.
fn notice_vanished(
    socket: &Socket,
    config: &LinkConfig,
    unacknowledged_max: Duration,
) -> io::Result<()> {
    const PROBES: u32 = 5;
    // Source: tcp(7): whole seconds, at most 32767 of them.
    let seconds = config.vanished_max.as_secs().clamp(2, 32767);
    let interval = (seconds / 2 / u64::from(PROBES)).max(1);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(seconds / 2))
            .with_interval(Duration::from_secs(interval))
            .with_retries(PROBES),
    )?;
    // Milliseconds in an int; with keep-alive on it also ends the probing.
    let most = Duration::from_millis(i32::MAX as u64);
    let least = Duration::from_secs(2);
    socket.set_tcp_user_timeout(Some(unacknowledged_max.clamp(least, most)))
}
