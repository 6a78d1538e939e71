//! The control link's two ends in the engine: messages out, and a thread that reads messages in.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use limosa_transport::{ControlLink, ControlReader, ControlWriter, StopHandle, TransportError};
use limosa_wire::{DecodeError, Message};

use crate::error::Cause;

/// Longest wait for a peer to close its end too.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// What the reading thread tells the driver.
pub(crate) enum ControlNews {
    /// A whole, checked message.
    Message(Message),
    /// The peer sent what is no message; nothing more is read.
    Garbage(DecodeError),
    /// The link ended.
    Lost(TransportError),
}

/// A control link in use. Dropping it stops the link and waits for the reading thread.
pub(crate) struct Control {
    writer: ControlWriter,
    stop: StopHandle,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Begins to read messages, each of which is told to `news`.
    pub(crate) fn start(link: ControlLink, news: Sender<ControlNews>) -> Result<Self, Cause> {
        let stop = link.stop_handle();
        let (writer, reader) = link.split();
        let thread = std::thread::Builder::new()
            .name("control-in".into())
            .spawn(move || read_all(reader, &news))
            .map_err(|error| Cause::Host(format!("no thread for the control link: {error}")))?;
        Ok(Self {
            writer,
            stop,
            thread: Some(thread),
        })
    }

    /// Has the reading thread ended, because the link did?
    pub(crate) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Sends one message.
    pub(crate) fn send(&mut self, message: &Message) -> Result<(), Cause> {
        let bytes = message
            .encode()
            .map_err(|error| Cause::Host(error.to_string()))?;
        Ok(self.writer.send(&bytes)?)
    }
}

impl Control {
    /// Ends the link so that what was sent last arrives: this side says that it is through, and
    /// waits a moment for the peer to say the same.
    fn finish(&mut self) {
        self.writer.finish();
        let patience = Instant::now() + LINGER_MAX;
        let reads_on = |thread: &JoinHandle<()>| !thread.is_finished();
        while self.thread.as_ref().is_some_and(reads_on) && Instant::now() < patience {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.finish();
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to say here.
            let _ = thread.join();
        }
    }
}

fn read_all(mut reader: ControlReader, news: &Sender<ControlNews>) {
    loop {
        let item = match reader.recv() {
            Ok((envelope, body)) => match Message::decode(&envelope, &body) {
                Ok(message) => ControlNews::Message(message),
                Err(error) => ControlNews::Garbage(error),
            },
            Err(error) => ControlNews::Lost(error),
        };
        let last = !matches!(item, ControlNews::Message(_));
        if news.send(item).is_err() || last {
            return;
        }
    }
}
