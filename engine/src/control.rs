//! The control link's two ends in the engine: messages out, and a thread that reads messages in.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use limosa_transport::{
    ControlLink, ControlReader, ControlWriter, StopHandle, TransportError, TransportFault, Wait,
};
use limosa_wire::{DecodeError, KeepAlive, Message};

use crate::error::Cause;
use crate::urgency::ComesFirst;

/// Longest wait for a peer to close its end too.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// How long after a link has failed the peer's word on why is waited for.
const LAST_WORD_MAX: Duration = Duration::from_millis(100);

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
    /// A message was not sent whole: whatever followed would be garbage to the peer.
    is_cut_off: bool,
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
            is_cut_off: false,
        })
    }

    /// Has the reading thread ended, because the link did?
    pub(crate) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Sends one message, and waits as `wait` says for a peer that does not read. Once that has
    /// failed there is nobody to tell anything, and nothing is sent any more.
    pub(crate) fn send(&mut self, message: &Message, wait: &Wait<'_>) -> Result<(), Cause> {
        if self.is_cut_off {
            return Ok(());
        }
        let bytes = message
            .encode()
            .map_err(|error| Cause::Host(error.to_string()))?;
        let sent = self.writer.send_within(&bytes, wait);
        self.is_cut_off = sent.is_err();
        Ok(sent?)
    }

    /// Does `work`, which may take longer than the peer bears silence, and says every so often
    /// that this side is still here.
    pub(crate) fn alive_during<T>(&mut self, every: Duration, work: impl FnOnce() -> T) -> T {
        let (done, is_done) = bounded::<()>(0);
        std::thread::scope(|scope| {
            let speak = move || {
                for sequence in 0.. {
                    if is_done.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                    let message = Message::KeepAlive(KeepAlive { sequence });
                    if self.send(&message, &Wait::at_most(every)).is_err() {
                        // What became of the link its reader tells.
                        return;
                    }
                }
            };
            // Without a thread the work is done in silence, and the peer may give up.
            let _ = std::thread::Builder::new().spawn_scoped(scope, speak);
            let result = work();
            drop(done);
            result
        })
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
    // It mostly sleeps, and the pause waits for what it reads.
    let _first = ComesFirst::here();
    loop {
        let item = match reader.recv() {
            Ok((envelope, body)) => match Message::decode(&envelope, &body) {
                Ok(message) => ControlNews::Message(message),
                Err(error) => ControlNews::Garbage(error),
            },
            Err(TransportError {
                fault: TransportFault::Garbage(error),
                ..
            }) => ControlNews::Garbage(error),
            Err(error) => ControlNews::Lost(error),
        };
        let last = !matches!(item, ControlNews::Message(_));
        if news.send(item).is_err() || last {
            return;
        }
    }
}

/// What the peer has said, or says in a moment, when another of its links has failed: a peer that
/// gives up says why, and that tells more than a link which has ended.
pub(crate) fn last_words(control: &Receiver<ControlNews>) -> Vec<ControlNews> {
    let patience = Instant::now() + LAST_WORD_MAX;
    let mut words = Vec::new();
    while let Ok(news) = control.recv_deadline(patience) {
        let goes_on =
            matches!(&news, ControlNews::Message(said) if !matches!(said, Message::Abort(_)));
        words.push(news);
        if !goes_on {
            break;
        }
    }
    words
}
