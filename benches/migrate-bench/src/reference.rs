//! Bare sockets that carry as many bytes into the same kind of memory: the yardstick beside each
//! run.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use limosa_pages::{CHUNK_BYTES, MemoryMap, PAGE_BYTES, PageIndex, PageRange};
use limosa_shim::{Backing, GuestRam, HugePages};
use socket2::SockRef;
use vm_memory::{Bytes, ReadVolatile, VolatileSlice, WriteVolatile};

/// What one stream moves with one call; larger ones were not faster.
const CALL_BYTES: usize = 1 << 20;

/// Receive buffer of TCP sockets, the best size found: as our own page streams have.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// One connected socket of either family.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Where the receiving end waits.
pub(crate) enum Waiting {
    Tcp(TcpListener),
    Unix(UnixListener, String),
}

impl Waiting {
    /// Listens where `endpoint` says; port 0 is any free one.
    pub(crate) fn new(endpoint: &str) -> Result<Self> {
        Ok(match endpoint.split_once(':') {
            Some(("unix", path)) => Self::Unix(UnixListener::bind(path)?, path.to_owned()),
            Some(("tcp", rest)) => {
                let listener = TcpListener::bind(rest.trim_start_matches('/'))?;
                // The yardstick gets what serves our own streams; accepted sockets inherit it.
                let _ = SockRef::from(&listener).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
                Self::Tcp(listener)
            }
            _ => bail!("`{endpoint}` is no address"),
        })
    }

    /// What a peer connects to.
    pub(crate) fn endpoint(&self) -> Result<String> {
        Ok(match self {
            Self::Tcp(listener) => format!("tcp://{}", listener.local_addr()?),
            Self::Unix(_, path) => format!("unix:{path}"),
        })
    }

    fn accept(&self) -> Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => Socket::Tcp(listener.accept()?.0),
            Self::Unix(listener, _) => Socket::Unix(listener.accept()?.0),
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Socket {
    fn connect(endpoint: &str) -> Result<Self> {
        let socket = match endpoint.split_once(':') {
            Some(("unix", path)) => Self::Unix(UnixStream::connect(path)?),
            Some(("tcp", rest)) => Self::Tcp(TcpStream::connect(rest.trim_start_matches('/'))?),
            _ => bail!("`{endpoint}` is no address"),
        };
        if let Self::Tcp(stream) = &socket {
            // The system's default may be one that paces; where cubic can't be had, it stays.
            let _ = SockRef::from(stream).set_tcp_congestion(b"cubic");
        }
        Ok(socket)
    }

    fn send(&mut self, from: &VolatileSlice<'_>) -> Result<usize> {
        Ok(match self {
            Self::Tcp(stream) => stream.write_volatile(from)?,
            Self::Unix(stream) => stream.write_volatile(from)?,
        })
    }

    fn receive(&mut self, into: &mut VolatileSlice<'_>) -> Result<usize> {
        Ok(match self {
            Self::Tcp(stream) => stream.read_volatile(into)?,
            Self::Unix(stream) => stream.read_volatile(into)?,
        })
    }

    fn tell(&mut self) -> Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(b"k")?,
            Self::Unix(stream) => stream.write_all(b"k")?,
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        let mut word = [0; 1];
        match self {
            Self::Tcp(stream) => stream.read_exact(&mut word)?,
            Self::Unix(stream) => stream.read_exact(&mut word)?,
        }
        Ok(())
    }
}

/// Fresh memory like a guest's: huge pages advised, nothing populated.
pub(crate) fn fresh_memory(bytes: u64, backing: Backing) -> Result<GuestRam> {
    let pages = bytes.div_ceil(PAGE_BYTES as u64);
    let range =
        PageRange::new(PageIndex::new(0), PageIndex::new(pages)).context("an empty range")?;
    Ok(GuestRam::new(
        MemoryMap::new(vec![range])?,
        backing,
        HugePages::Advised,
    )?)
}

/// Takes everything in; returns the milliseconds from the first connection to the last byte.
pub(crate) fn sink(waiting: &Waiting, streams: u16, memory: &GuestRam) -> Result<f64> {
    let sockets: Vec<Socket> = (0..streams)
        .map(|_| waiting.accept())
        .collect::<Result<_>>()?;
    let start = Instant::now();
    each_share(sockets, memory, |socket, mut slice| {
        while !slice.is_empty() {
            let mut piece = slice.subslice(0, slice.len().min(CALL_BYTES))?;
            let count = socket.receive(&mut piece)?;
            if count == 0 {
                bail!("the sending end stopped early");
            }
            slice = slice.offset(count)?;
        }
        socket.tell()
    })?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Sends everything out of memory that was written before; returns the milliseconds from the first
/// connect until the other end had all of it.
pub(crate) fn blast(endpoint: &str, streams: u16, memory: &GuestRam) -> Result<f64> {
    let start = Instant::now();
    let sockets: Vec<Socket> = (0..streams)
        .map(|_| Socket::connect(endpoint))
        .collect::<Result<_>>()?;
    each_share(sockets, memory, |socket, mut slice| {
        while !slice.is_empty() {
            let piece = slice.subslice(0, slice.len().min(CALL_BYTES))?;
            slice = slice.offset(socket.send(&piece)?)?;
        }
        socket.hear()
    })?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Writes something that is not zero to every page, so that each has memory of its own.
pub(crate) fn touch(memory: &GuestRam) -> Result<()> {
    let all = whole_slice(memory)?;
    let block = vec![0xa5; CHUNK_BYTES.min(all.len())];
    for at in (0..all.len()).step_by(CHUNK_BYTES) {
        let count = block.len().min(all.len() - at);
        all.write_slice(&block[..count], at)?;
    }
    Ok(())
}

/// One thread a stream, each over its own part.
fn each_share(
    sockets: Vec<Socket>,
    memory: &GuestRam,
    work: impl Fn(&mut Socket, VolatileSlice<'_>) -> Result<()> + Sync,
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
                scope.spawn(move || work(&mut socket, whole_slice(memory)?.subslice(start, count)?))
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

fn whole_slice(memory: &GuestRam) -> Result<VolatileSlice<'_>> {
    let region = memory.map().regions().first().context("no memory")?;
    memory.slice(*region).context("no memory")
}
