//! A link for hosts without namespaces: connections go through threads of this process, which let
//! bytes through at a rate. What headers would take of a real link is not counted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use socket2::{Domain, SockRef, Socket, Type};

use crate::link::Rate;
use crate::link::bucket::Bucket;

/// What is let through at once.
const PIECE_BYTES: usize = 64 << 10;
/// What the kernel may hold for either connection, so that a sender learns soon how fast it is.
const BUFFER_BYTES: usize = 512 << 10;
/// Connections that may wait to be accepted: as many as a guest has streams, and its control link.
const BACKLOG: i32 = 128;

/// What all connections share.
struct Shared {
    there: Bucket,
    back: Bucket,
    target: SocketAddr,
    stop: AtomicBool,
    /// Both ends of each connection, to be closed at the end.
    open: Mutex<Vec<TcpStream>>,
}

/// A listener whose connections lead to another one. Dropping it closes them.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens on loopback for connections to `endpoint`, `tcp://ADDRESS:PORT`.
    pub(super) fn new(endpoint: &str, rate: Rate) -> Result<Self> {
        let target = endpoint
            .strip_prefix("tcp://")
            .and_then(|address| address.parse().ok())
            .with_context(|| format!("`{endpoint}` can't be relayed to"))?;
        let listener = listen().context("a relay for the link")?;
        let shared = Arc::new(Shared {
            there: Bucket::new(rate),
            back: Bucket::new(rate),
            target,
            stop: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        Ok(Self {
            address: listener.local_addr()?,
            shared,
            accepting: Some(spawn(move || accept_all(&listener, &theirs))?),
        })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in self.shared.open().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen() -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    set_options(&SockRef::from(&socket));
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepted connections inherit them. Options that can't be had cost speed, and nothing else.
fn set_options(socket: &SockRef<'_>) {
    let _ = socket.set_tcp_congestion(b"cubic");
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    let _ = socket.set_tcp_nodelay(true);
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("link".into());
    Ok(thread.spawn(work)?)
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((near, _)) = listener.accept() {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        // A peer whose way ends here sees its connection close.
        if let Err(error) = join(near, shared) {
            eprintln!("migrate-bench: the link: {}", crate::in_one_line(&error));
        }
    }
}

/// Connects onward, and lets bytes through both ways.
fn join(near: TcpStream, shared: &Arc<Shared>) -> Result<()> {
    let socket = Socket::new(Domain::for_address(shared.target), Type::STREAM, None)?;
    set_options(&SockRef::from(&socket));
    socket
        .connect(&shared.target.into())
        .with_context(|| format!("nobody listens at {}", shared.target))?;
    let far = TcpStream::from(socket);
    let copies = [near.try_clone()?, far.try_clone()?];
    shared.open().extend([near.try_clone()?, far.try_clone()?]);
    let [near_too, far_too] = copies;
    let (there, back) = (Arc::clone(shared), Arc::clone(shared));
    spawn(move || pass(near, far, &there.there))?;
    spawn(move || pass(far_too, near_too, &back.back))?;
    Ok(())
}

/// Lets everything through until one side ends; that end is passed on.
fn pass(mut from: TcpStream, mut to: TcpStream, bucket: &Bucket) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut piece) {
            Ok(count @ 1..) => {
                bucket.take(count);
                if to.write_all(&piece[..count]).is_err() {
                    let _ = from.shutdown(Shutdown::Both);
                    return;
                }
            }
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => {
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A listener that reads everything of two connections and then answers on each.
    fn listener_of_two() -> (String, JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut total = 0;
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                total += std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
                stream.write_all(b"done").unwrap();
            }
            total as usize
        });
        (endpoint, thread)
    }

    #[test]
    fn bytes_pass_at_the_rate_and_ends_are_passed_on() {
        const BYTES: usize = 2 << 20;
        let (endpoint, listener) = listener_of_two();
        let relay = Relay::new(&endpoint, "100Mbit".parse().unwrap()).unwrap();
        let start = Instant::now();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(relay.address()).unwrap();
            stream.write_all(&vec![7; BYTES / 2]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "done");
        }
        assert_eq!(listener.join().unwrap(), BYTES);
        // Never faster than the link, but for one burst.
        assert!(start.elapsed().as_secs_f64() > BYTES as f64 * 8.0 / 1e8 - 0.01);
    }

    #[test]
    fn connections_end_with_the_relay_and_with_a_target_that_is_not_there() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", gone.local_addr().unwrap());
        let relay = Relay::new(&endpoint, "1Gbit".parse().unwrap()).unwrap();
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        let (mut far, _) = gone.accept().unwrap();
        drop(relay);
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).unwrap_or(0), 0);
        assert_eq!(far.read_to_end(&mut rest).unwrap_or(0), 0);
        drop(gone);
        let relay = Relay::new(&endpoint, "1Gbit".parse().unwrap()).unwrap();
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        assert_eq!(stream.read_to_end(&mut rest).unwrap_or(0), 0);
    }
}
