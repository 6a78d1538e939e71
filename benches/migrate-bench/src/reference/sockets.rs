//! Bare sockets that carry bytes into the same kind of memory as a guest's, as fast as they can.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use limosa_pages::{CHUNK_BYTES, ChunkIndex};
use limosa_shim::GuestRam;
use limosa_transport::Splicer;
use socket2::{Domain, SockAddr, Socket, Type};
use vm_memory::{ReadVolatile, VolatileSlice, WriteVolatile};

use crate::reference::memory::whole_slice;
use crate::reference::{Landing, Sending, SocketSettings};

/// Connections that may wait to be accepted: as many as there may be streams.
const BACKLOG: i32 = 64;

/// Where the receiving end waits.
pub(crate) struct Waiting {
    socket: Socket,
    /// Of a Unix socket, to be removed.
    path: Option<String>,
}

impl Waiting {
    /// Listens where `endpoint` says; port 0 is any free one. Accepted sockets inherit `settings`.
    pub(crate) fn new(endpoint: &str, settings: &SocketSettings) -> Result<Self> {
        let (socket, address) = socket(endpoint, settings)?;
        socket.bind(&address)?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            socket,
            path: endpoint.strip_prefix("unix:").map(String::from),
        })
    }

    /// What a peer connects to.
    pub(crate) fn endpoint(&self) -> Result<String> {
        if let Some(path) = &self.path {
            return Ok(format!("unix:{path}"));
        }
        let address = self.socket.local_addr()?;
        let address = address.as_socket().context("a listener without address")?;
        Ok(format!("tcp://{address}"))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A socket that is not connected yet, and the address that `endpoint` names.
fn socket(endpoint: &str, settings: &SocketSettings) -> Result<(Socket, SockAddr)> {
    let address = match endpoint.split_once(':') {
        Some(("unix", path)) => SockAddr::unix(path)?,
        Some(("tcp", rest)) => {
            let address: SocketAddr = rest.trim_start_matches('/').parse()?;
            address.into()
        }
        _ => bail!("`{endpoint}` is no address"),
    };
    let domain = address.domain();
    let socket = Socket::new(domain, Type::STREAM, None)?;
    if let (Some(name), true) = (&settings.congestion, domain != Domain::UNIX) {
        let set = socket.set_tcp_congestion(name.as_bytes());
        set.with_context(|| format!("congestion control `{name}`"))?;
    }
    if let Some(bytes) = settings.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = settings.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok((socket, address))
}

/// The receiving end.
pub(crate) struct Sink<'a> {
    pub(crate) waiting: &'a Waiting,
    pub(crate) streams: u16,
    pub(crate) memory: &'a GuestRam,
    pub(crate) settings: &'a SocketSettings,
}

impl Sink<'_> {
    /// Takes everything in; returns the milliseconds from the last connection to the last byte.
    pub(crate) fn take_in(&self) -> Result<f64> {
        let accept = |_| Ok(OwnedFd::from(self.waiting.socket.accept()?.0));
        let sockets: Vec<OwnedFd> = (0..self.streams).map(accept).collect::<Result<_>>()?;
        let start = Instant::now();
        each_share(sockets, self.memory, |socket, at, slice| {
            self.receive(socket, at, slice)?;
            let mut word = *b"k";
            socket.write_all_volatile(&VolatileSlice::from(&mut word[..]))?;
            Ok(())
        })?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }

    /// Fills `slice`, which begins at byte `at` of the memory.
    fn receive(&self, socket: &mut OwnedFd, at: usize, mut slice: VolatileSlice<'_>) -> Result<()> {
        let end = at + slice.len();
        let mut populated = match self.settings.landing {
            Landing::Faults => end,
            Landing::UnitsAhead => at,
        };
        while !slice.is_empty() {
            let mut piece = slice.subslice(0, slice.len().min(self.settings.call_bytes))?;
            while populated < end - slice.len() + piece.len() {
                let unit = populated / CHUNK_BYTES;
                self.memory.populate(ChunkIndex::new(unit as u64))?;
                populated = (unit + 1) * CHUNK_BYTES;
            }
            let count = socket.read_volatile(&mut piece)?;
            if count == 0 {
                bail!("the sending end stopped early");
            }
            slice = slice.offset(count)?;
        }
        Ok(())
    }
}

/// Sends everything out of memory that was written before; returns the milliseconds from the first
/// connect until the other end had all of it.
pub(crate) fn blast(
    endpoint: &str,
    streams: u16,
    memory: &GuestRam,
    settings: &SocketSettings,
) -> Result<f64> {
    let start = Instant::now();
    let connect = |_| {
        let (socket, address) = socket(endpoint, settings)?;
        socket.connect(&address)?;
        Ok(OwnedFd::from(socket))
    };
    let sockets: Vec<OwnedFd> = (0..streams).map(connect).collect::<Result<_>>()?;
    each_share(sockets, memory, |socket, _, mut slice| {
        let splicer = match settings.sending {
            Sending::Copied => None,
            Sending::Spliced => Some(Splicer::new()?),
        };
        while !slice.is_empty() {
            let piece = slice.subslice(0, slice.len().min(settings.call_bytes))?;
            let count = match &splicer {
                None => socket.write_volatile(&piece)?,
                Some(splicer) => splicer.splice(socket.as_fd(), piece)?,
            };
            slice = slice.offset(count)?;
        }
        let mut word = [0; 1];
        socket.read_exact_volatile(&mut VolatileSlice::from(&mut word[..]))?;
        Ok(())
    })?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// One thread a stream, each over its own part, of which it learns where it begins.
fn each_share(
    sockets: Vec<OwnedFd>,
    memory: &GuestRam,
    work: impl Fn(&mut OwnedFd, usize, VolatileSlice<'_>) -> Result<()> + Sync,
) -> Result<()> {
    let length = whole_slice(memory)?.len();
    let share = length
        .div_ceil(sockets.len().max(1))
        .next_multiple_of(CHUNK_BYTES);
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(sockets)
            .map(|(turn, mut socket)| {
                let start = (turn * share).min(length);
                let count = share.min(length - start);
                scope.spawn(move || {
                    let share = whole_slice(memory)?.subslice(start, count)?;
                    work(&mut socket, start, share)
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => bail!("a reference thread ended by itself"),
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use limosa_shim::Backing;
    use vm_memory::Bytes;

    use super::*;
    use crate::args::Transport;
    use crate::reference::{fresh_memory, touch};

    #[test]
    fn every_byte_arrives_whatever_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("unix:{}", folder.path().join("socket").display());
        for (transport, endpoint) in [
            (Transport::Tcp, "tcp://127.0.0.1:0"),
            (Transport::Unix, path.as_str()),
        ] {
            for (streams, landing, sending) in [
                (1, Landing::Faults, Sending::Copied),
                (3, Landing::UnitsAhead, Sending::Copied),
                (2, Landing::Faults, Sending::Spliced),
            ] {
                let settings = SocketSettings {
                    landing,
                    sending,
                    call_bytes: 700_000,
                    ..SocketSettings::best(transport)
                };
                let bytes = 9 << 20;
                let from = fresh_memory(bytes, Backing::Anonymous).unwrap();
                let into = fresh_memory(bytes, Backing::Memfd).unwrap();
                touch(&from).unwrap();
                let waiting = Waiting::new(endpoint, &settings).unwrap();
                let endpoint = waiting.endpoint().unwrap();
                std::thread::scope(|scope| {
                    let sending =
                        scope.spawn(|| blast(&endpoint, streams, &from, &settings).unwrap());
                    let sink = Sink {
                        waiting: &waiting,
                        streams,
                        memory: &into,
                        settings: &settings,
                    };
                    assert!(sink.take_in().unwrap() > 0.0);
                    assert!(sending.join().unwrap() > 0.0);
                });
                let mut found = vec![0; bytes as usize];
                whole_slice(&into)
                    .unwrap()
                    .read_slice(&mut found, 0)
                    .unwrap();
                assert!(found.iter().all(|byte| *byte == 0xa5), "{endpoint}");
            }
        }
    }
}
