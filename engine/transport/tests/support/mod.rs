//! Worlds for the transport's tests: an address of each kind, pairs of links over it, and raw
//! sockets for those who do not keep to the protocol. It checks nothing itself.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part of these"
)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use limosa_transport::{
    ControlLink, ControlReader, ControlWriter, Endpoint, IoChoice, LinkConfig, Listener, PageLink,
    StreamsExpected, Wait, connect_control, connect_stream,
};
use limosa_wire::{Bind, Hello, Message, MigrationId, StreamIndex, StreamSecret, VersionRange};
use tempfile::TempDir;

pub const MIGRATION: MigrationId = MigrationId::new(*b"one migration ..");
pub const SECRET: StreamSecret = StreamSecret::new(*b"its stream secret".first_chunk().unwrap());

/// The bound of silence in tests that wait for it.
pub const SILENCE: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Net {
    Tcp4,
    Tcp6,
    Unix,
}

/// An address family, a way to the kernel, and a folder for sockets.
pub struct World {
    pub net: Net,
    pub config: LinkConfig,
    folder: TempDir,
}

impl World {
    pub fn new(net: Net, io: IoChoice) -> Self {
        let config = LinkConfig {
            io,
            io_silence_max: Duration::from_secs(10),
            ..LinkConfig::default()
        };
        let folder = tempfile::tempdir().unwrap();
        Self {
            net,
            config,
            folder,
        }
    }

    pub fn endpoint(&self) -> Endpoint {
        match self.net {
            Net::Tcp4 => "tcp://127.0.0.1:0".parse().unwrap(),
            Net::Tcp6 => "tcp://[::1]:0".parse().unwrap(),
            Net::Unix => Endpoint::Unix(self.folder.path().join("limosa.sock")),
        }
    }

    pub fn listener(&self) -> Listener {
        Listener::bind(&self.endpoint(), &self.config).unwrap()
    }

    /// `stream_count` page streams: the source's ends, and the target's.
    pub fn streams(&self, stream_count: u16) -> (Vec<PageLink>, Vec<PageLink>) {
        let mut listener = self.listener();
        let endpoint = listener.endpoint().clone();
        let sending = (0..stream_count)
            .map(|stream| self.connect(&endpoint, stream, &bind(stream_count)))
            .collect();
        let receiving = listener
            .accept_streams(&expected(stream_count), &soon())
            .unwrap();
        (sending, receiving)
    }

    /// One page stream: the source's end, and the target's.
    pub fn stream(&self) -> (PageLink, PageLink) {
        let (mut sending, mut receiving) = self.streams(1);
        (sending.remove(0), receiving.remove(0))
    }

    pub fn connect(&self, endpoint: &Endpoint, stream: u16, bind: &Bind) -> PageLink {
        let stream = StreamIndex::new(stream);
        connect_stream(endpoint, &self.config, MIGRATION, stream, bind, &soon()).unwrap()
    }

    /// A control link: the source's ends, whose `Hello` is sent, and the target's link.
    pub fn control(&self) -> ((ControlWriter, ControlReader), ControlLink) {
        let mut listener = self.listener();
        let source = connect_control(listener.endpoint(), &self.config, &soon()).unwrap();
        let (mut writer, reader) = source.split();
        writer.send(&hello()).unwrap();
        ((writer, reader), listener.accept_control(&soon()).unwrap())
    }
}

pub fn soon() -> Wait<'static> {
    Wait::at_most(Duration::from_secs(20))
}

pub fn bind(stream_count: u16) -> Bind {
    let secret = SECRET;
    Bind {
        secret,
        stream_count,
    }
}

pub fn expected(stream_count: u16) -> StreamsExpected {
    StreamsExpected {
        migration_id: MIGRATION,
        secret: SECRET,
        stream_count,
    }
}

/// The bytes of a `Hello`.
pub fn hello() -> Vec<u8> {
    let versions = VersionRange::SUPPORTED;
    let hello = Hello {
        versions,
        migration_id: MIGRATION,
        agent: "limosa test".to_owned(),
    };
    Message::Hello(hello).encode().unwrap()
}

/// Runs `work` and says how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let value = work();
    (value, begun.elapsed())
}

/// A peer that keeps to no protocol.
pub enum Stranger {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stranger {
    pub fn connect(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Tcp(address) => Self::Tcp(TcpStream::connect(address).unwrap()),
            Endpoint::Unix(path) => Self::Unix(UnixStream::connect(path).unwrap()),
            Endpoint::TcpName { .. } => unreachable!("listeners have addresses"),
        }
    }

    pub fn say(&mut self, bytes: &[u8]) {
        // Who is a stranger may have been dropped already.
        let _ = self.write_all(bytes);
    }

    /// Has the other side dropped it, within a generous time?
    pub fn is_dropped(&mut self) -> bool {
        let longest = Some(Duration::from_secs(10));
        match self {
            Self::Tcp(socket) => socket.set_read_timeout(longest).unwrap(),
            Self::Unix(socket) => socket.set_read_timeout(longest).unwrap(),
        }
        match self.read(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

impl Read for Stranger {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Unix(socket) => socket.read(into),
        }
    }
}

impl Write for Stranger {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A small reproducible source of numbers. Source: Vigna, xorshift64*.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for piece in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        bytes
    }
}
