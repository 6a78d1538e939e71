//! Somebody on the way between two hosts, who counts what passes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use limosa::Endpoint;
use limosa_wire::{CONTROL_MAGIC, FRAME_MAGIC};

/// What has passed, by the first four bytes of each connection.
#[derive(Default)]
pub(crate) struct Passed {
    pub(crate) controls: AtomicU64,
    pub(crate) page_streams: AtomicU64,
    /// Connections that said nothing, or something else.
    pub(crate) others: AtomicU64,
    /// Bytes on page streams.
    pub(crate) page_bytes: AtomicU64,
}

/// Passes every connection on to `target`; ends with the process.
pub(crate) fn proxy_to(target: SocketAddr) -> (Endpoint, Arc<Passed>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let passed = Arc::new(Passed::default());
    let counts = Arc::clone(&passed);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let counts = Arc::clone(&counts);
            let Ok(server) = TcpStream::connect(target) else {
                continue;
            };
            let (back_from, back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || copy(back_from, back_to, |_| {}));
            std::thread::spawn(move || {
                let mut kind: Option<[u8; 4]> = None;
                let counts = &*counts;
                copy(client, server, |bytes| {
                    let known = kind.is_some();
                    let kind = *kind.get_or_insert_with(|| {
                        let mut first = [0; 4];
                        let count = bytes.len().min(4);
                        first[..count].copy_from_slice(&bytes[..count]);
                        first
                    });
                    let connections = match kind {
                        CONTROL_MAGIC => &counts.controls,
                        FRAME_MAGIC => &counts.page_streams,
                        _ => &counts.others,
                    };
                    connections.fetch_add(u64::from(!known), Ordering::SeqCst);
                    if kind == FRAME_MAGIC {
                        counts
                            .page_bytes
                            .fetch_add(bytes.len() as u64, Ordering::SeqCst);
                    }
                });
            });
        }
    });
    (endpoint.parse().unwrap(), passed)
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 {
            break;
        }
        see(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
