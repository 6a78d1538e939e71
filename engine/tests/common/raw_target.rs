//! A target by hand, that goes along as far as it is told and then does what a test wants.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use limosa::{Endpoint, Offer};
use limosa_wire::{
    EncodingSet, Hello, Message, Prepared, RoundKind, RoundLanded, StreamSecret, StreamsBound,
    Verdict, VersionRange,
};

use super::cpu::{digest, test_host};
use super::raw::{Raw, RawError};

/// How far the target goes along with the source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Until {
    Connected,
    HelloHeard,
    OfferHeard,
    Accepted,
    StreamsOpen,
    Bound,
    FirstRoundBegun,
    FirstRoundLanded,
    LastRoundBegun,
    LastRoundLanded,
    PreparedSaid,
    HandedOver,
}

impl Until {
    pub(crate) const BEFORE_HAND_OVER: [Self; 11] = [
        Self::Connected,
        Self::HelloHeard,
        Self::OfferHeard,
        Self::Accepted,
        Self::StreamsOpen,
        Self::Bound,
        Self::FirstRoundBegun,
        Self::FirstRoundLanded,
        Self::LastRoundBegun,
        Self::LastRoundLanded,
        Self::PreparedSaid,
    ];
}

/// The target, once it is as far as it was told to go.
pub(crate) struct RawTarget {
    pub(crate) listener: TcpListener,
    pub(crate) control: Raw,
    pub(crate) streams: Vec<Raw>,
    /// Whether bytes of page streams are read and forgotten, or left with the kernel.
    pub(crate) drains: bool,
}

impl RawTarget {
    pub(crate) fn listen() -> (TcpListener, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        (listener, endpoint.parse().unwrap())
    }

    pub(crate) fn accept(listener: TcpListener) -> Self {
        let control = Raw::of(listener.accept().unwrap().0);
        Self {
            listener,
            control,
            streams: Vec::new(),
            drains: true,
        }
    }

    pub(crate) fn hello(&mut self) -> Result<(), RawError> {
        let Message::Hello(hello) = self.control.hear()? else {
            return Err(RawError);
        };
        self.control.say(&Message::Hello(Hello {
            versions: VersionRange::SUPPORTED,
            agent: "by hand".into(),
            ..hello
        }));
        Ok(())
    }

    pub(crate) fn offer(&mut self) -> Result<Offer, RawError> {
        match self.control.hear()? {
            Message::Offer(offer) => Ok(offer),
            _ => Err(RawError),
        }
    }

    pub(crate) fn verdict(&mut self, stream_count: u16, encodings: EncodingSet) {
        self.verdict_as(stream_count, encodings, test_host().encode(), digest());
    }

    /// Accepts, and says these things of its host and of the guest.
    pub(crate) fn verdict_as(
        &mut self,
        stream_count: u16,
        encodings: EncodingSet,
        host: Vec<u8>,
        cpu_digest: u64,
    ) {
        let secret = StreamSecret::new([3; 16]);
        self.control.say(&Message::Verdict(Verdict::Accepted {
            stream_count,
            encodings,
            secret,
            host,
            cpu_digest,
        }));
    }

    /// Goes along with the source as far as `until`.
    pub(crate) fn go(&mut self, until: Until) -> Result<(), RawError> {
        if until >= Until::HelloHeard {
            self.hello()?;
        }
        if until < Until::OfferHeard {
            return Ok(());
        }
        let offer = self.offer()?;
        if until >= Until::Accepted {
            self.verdict(offer.stream_count, offer.encodings);
        }
        if until >= Until::StreamsOpen {
            let Message::Agreed(_) = self.control.hear()? else {
                return Err(RawError);
            };
            for _ in 0..offer.stream_count {
                self.streams
                    .push(Raw::of(self.listener.accept().unwrap().0));
            }
        }
        if until < Until::Bound {
            return Ok(());
        }
        let stream_count = offer.stream_count;
        self.control
            .say(&Message::StreamsBound(StreamsBound { stream_count }));
        if until < Until::FirstRoundBegun {
            return Ok(());
        }
        if self.drains {
            for stream in &self.streams {
                let stream = Raw(stream.0.try_clone().unwrap());
                std::thread::spawn(move || stream.drain());
            }
        }
        self.go_rounds(until)
    }

    fn go_rounds(&mut self, until: Until) -> Result<(), RawError> {
        let mut last = false;
        let mut state = false;
        let mut landed = false;
        loop {
            match self.control.hear()? {
                Message::RoundStart(start) => {
                    last = start.kind == RoundKind::Final;
                    if until == Until::FirstRoundBegun || (last && until == Until::LastRoundBegun) {
                        return Ok(());
                    }
                }
                Message::RoundEnd(end) => {
                    let (round, pages) = (end.round, end.pages);
                    self.control
                        .say(&Message::RoundLanded(RoundLanded { round, pages }));
                    let whole = until == Until::FirstRoundLanded;
                    if whole || (last && until == Until::LastRoundLanded) {
                        return Ok(());
                    }
                    landed = last;
                }
                Message::State(_) => state = true,
                Message::HandOver(_) => return Ok(()),
                _ => return Err(RawError),
            }
            if state && landed {
                let cpu_digest = digest();
                self.control
                    .say(&Message::Prepared(Prepared { cpu_digest }));
                if until == Until::PreparedSaid {
                    return Ok(());
                }
                landed = false;
            }
        }
    }

    /// Holds all links open without a word, until the source has ended them or time is up.
    pub(crate) fn fall_silent(mut self, longest: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < longest && self.control.hear().is_ok() {}
    }
}
