//! Control messages and frames by hand over a socket, for peers that misbehave.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use limosa::Endpoint;
use limosa_wire::{ENVELOPE_BYTES, Envelope, KeepAlive, Message};

/// The peer has gone, or said nothing for long.
#[derive(Debug)]
pub(crate) struct RawError;

pub(crate) fn address(endpoint: &Endpoint) -> SocketAddr {
    match endpoint {
        Endpoint::Tcp(address) => *address,
        other => panic!("raw peers speak TCP to an address, not to {other}"),
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn connect(endpoint: &Endpoint) -> Self {
        Self::of(TcpStream::connect(address(endpoint)).unwrap())
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends bytes; a peer that has gone is of no interest.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    pub(crate) fn say(&mut self, message: &Message) {
        self.bytes(&message.encode().unwrap());
    }

    /// The next message that is no sign of life.
    pub(crate) fn hear(&mut self) -> Result<Message, RawError> {
        loop {
            let mut front = [0; ENVELOPE_BYTES];
            self.0.read_exact(&mut front).map_err(|_| RawError)?;
            let envelope = Envelope::decode(&front).unwrap();
            let mut body = vec![0; envelope.body_bytes as usize];
            self.0.read_exact(&mut body).map_err(|_| RawError)?;
            match Message::decode(&envelope, &body).unwrap() {
                Message::KeepAlive(_) => {}
                message => return Ok(message),
            }
        }
    }

    /// Says that it is alive, and nothing else, until the peer ends the link.
    pub(crate) fn only_live(&mut self, longest: Duration) {
        let step = Duration::from_millis(50);
        for sequence in 0..(longest.as_millis() / step.as_millis()) as u64 {
            let message = Message::KeepAlive(KeepAlive { sequence });
            if self.0.write_all(&message.encode().unwrap()).is_err() {
                return;
            }
            std::thread::sleep(step);
        }
    }

    /// Reads to the end and forgets it all.
    pub(crate) fn drain(mut self) {
        let mut bytes = vec![0; 1 << 16];
        while self.0.read(&mut bytes).is_ok_and(|count| count > 0) {}
    }

    pub(crate) fn close(self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
