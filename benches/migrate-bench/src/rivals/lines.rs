//! A Unix socket that speaks in lines, waited for with patience. It knows no protocol.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How soon an interruption is noticed.
const INTERRUPT_CHECK: Duration = Duration::from_millis(50);

/// Until when to wait for something, unless a signal comes first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience<'a> {
    stop: &'a AtomicBool,
    end: Instant,
}

impl<'a> Patience<'a> {
    /// `longest` from now.
    pub(crate) fn new(stop: &'a AtomicBool, longest: Duration) -> Self {
        Self {
            stop,
            end: Instant::now() + longest,
        }
    }

    /// Whether time is up; an error when interrupted.
    pub(crate) fn is_over(&self) -> Result<bool> {
        if self.stop.load(Ordering::Acquire) {
            bail!("interrupted");
        }
        Ok(Instant::now() >= self.end)
    }
}

/// A connected socket, and what came of it in full lines.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: UnixStream,
    ready: VecDeque<Vec<u8>>,
    rest: Vec<u8>,
}

impl Lines {
    /// Connects; none where nobody listens there yet.
    pub(crate) fn connect(path: &Path) -> Result<Option<Self>> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(None),
                    _ => Err(error).with_context(|| format!("can't connect to {}", path.display())),
                };
            }
        };
        stream.set_read_timeout(Some(INTERRUPT_CHECK))?;
        Ok(Some(Self {
            stream,
            ready: VecDeque::new(),
            rest: Vec::new(),
        }))
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The next line without its end; none when time is up.
    pub(crate) fn next(&mut self, patience: Patience<'_>) -> Result<Option<Vec<u8>>> {
        let mut block = [0; 4096];
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if patience.is_over()? {
                return Ok(None);
            }
            match self.stream.read(&mut block) {
                Ok(0) => bail!("it has closed its socket"),
                Ok(count) => self.take(&block[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(error.into()),
                },
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = self.rest.drain(..=end).collect();
            line.pop();
            self.ready.push_back(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn lines_come_whole_however_they_were_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(Lines::connect(&path).unwrap().is_none());
        let listener = UnixListener::bind(&path).unwrap();
        let mut lines = Lines::connect(&path).unwrap().unwrap();
        let (mut other, _) = listener.accept().unwrap();
        let stop = AtomicBool::new(false);
        let patience = || Patience::new(&stop, Duration::from_secs(20));
        other.write_all(b"one\ntw").unwrap();
        assert_eq!(lines.next(patience()).unwrap().unwrap(), b"one");
        let short = Patience::new(&stop, Duration::from_millis(1));
        assert_eq!(lines.next(short).unwrap(), None);
        other.write_all(b"o\n\n").unwrap();
        assert_eq!(lines.next(patience()).unwrap().unwrap(), b"two");
        assert_eq!(lines.next(patience()).unwrap().unwrap(), b"");
        stop.store(true, Ordering::Release);
        assert!(lines.next(patience()).is_err());
        stop.store(false, Ordering::Release);
        drop(other);
        assert!(lines.next(patience()).is_err());
    }
}
