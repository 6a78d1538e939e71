//! A slow link: everything to the target passes it at a fixed rate, so that a test can act in the
//! midst of any round.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// How much passes at once; small, so that connections share the link fairly.
const PIECE_BYTES: usize = 64 << 10;
/// What may wait in a socket: the source must not be far ahead of the target.
const SOCKET_BUFFER_BYTES: usize = 128 << 10;

/// When the link is free again.
type FreeAt = Arc<Mutex<Instant>>;

/// A relay in front of a target. Its threads end with the connections through it.
pub(crate) struct SlowLink {
    endpoint: String,
}

impl SlowLink {
    /// Relays every connection to `target` (`tcp://…`), `bytes_per_second` in all towards it.
    pub(crate) fn to(target: &str, bytes_per_second: u64) -> Self {
        let target = target.strip_prefix("tcp://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Accepted sockets inherit it.
        SockRef::from(&listener)
            .set_recv_buffer_size(SOCKET_BUFFER_BYTES)
            .unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let free_at = Arc::new(Mutex::new(Instant::now()));
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                // Without a target, the source sees its connection end.
                let Ok(far) = TcpStream::connect(&target) else {
                    continue;
                };
                let _ = SockRef::from(&far).set_send_buffer_size(SOCKET_BUFFER_BYTES);
                let pace = Some((Arc::clone(&free_at), bytes_per_second));
                relay(&near, &far, pace);
                relay(&far, &near, None);
            }
        });
        Self { endpoint }
    }

    /// What the source connects to.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

fn relay(from: &TcpStream, into: &TcpStream, pace: Option<(FreeAt, u64)>) {
    let (mut from, mut into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
    let _ = into.set_nodelay(true);
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(count) = from.read(&mut piece) {
            if count == 0 || into.write_all(&piece[..count]).is_err() {
                break;
            }
            if let Some((free_at, bytes_per_second)) = &pace {
                hold(free_at, count as u64, *bytes_per_second);
            }
        }
        let _ = into.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

/// Waits as long as `bytes` take on a link that all connections share.
fn hold(free_at: &FreeAt, bytes: u64, bytes_per_second: u64) {
    let time = Duration::from_nanos(bytes * 1_000_000_000 / bytes_per_second);
    let mine = {
        let mut free_at = free_at.lock().unwrap();
        *free_at = (*free_at).max(Instant::now()) + time;
        *free_at
    };
    std::thread::sleep(mine.saturating_duration_since(Instant::now()));
}
