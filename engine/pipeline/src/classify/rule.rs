//! The rule by which an encoding is chosen, as a function of measured times. It measures nothing.

use limosa_wire::PageEncoding;

use crate::codec::ZstdLevel;

/// A way to make a run of pages shorter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// One LZ4 block.
    Lz4,
    /// One zstd frame.
    Zstd(ZstdLevel),
}

impl Block {
    /// The encoding of records that hold such a block.
    pub const fn encoding(self) -> PageEncoding {
        match self {
            Self::Lz4 => PageEncoding::Lz4,
            Self::Zstd(_) => PageEncoding::Zstd,
        }
    }
}

/// What a stream's time goes to, whatever its pages are encoded with.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StreamCost {
    /// What its thread does besides encoding and sending, in seconds per byte of pages with data.
    pub other: f64,
    /// What sending keeps the thread where the link is ready at once, in seconds per byte sent.
    pub send: f64,
    /// What the link takes, in seconds per byte sent.
    pub link: f64,
}

/// What pages cost in one encoding, pages among them that stay raw because they do not shrink.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CodecCost {
    /// Seconds of encoding per byte of pages.
    pub encode: f64,
    /// What is sent of a byte of pages: 1 where nothing shrinks.
    pub share: f64,
    /// What the target was seen to take for a byte of pages where neither this side nor the link
    /// made it wait, in seconds; 0 where it was not seen to hold anything up.
    pub landing: f64,
}

impl CodecCost {
    /// Pages as they are.
    pub const RAW: Self = Self {
        encode: 0.0,
        share: 1.0,
        landing: 0.0,
    };
}

impl StreamCost {
    /// Seconds that a byte of pages takes in an encoding.
    ///
    /// The stream's one thread lifts, encodes and hands over, while the link empties what it was
    /// handed before and the target unpacks: whichever of the three is slowest sets the pace.
    /// Encoding costs nothing as long as the thread would wait for the link otherwise.
    pub fn seconds_per_byte(&self, codec: &CodecCost) -> f64 {
        let thread = self.other + codec.encode + self.send * codec.share;
        let link = self.link * codec.share;
        thread.max(link).max(codec.landing)
    }

    /// Which of `codecs` takes the least time; `None` where pages as they are do.
    ///
    /// Another one than `current` must be better by more than measurements vary.
    pub fn best(&self, codecs: &[CodecCost], current: Option<usize>) -> Option<usize> {
        let time = |choice: Option<usize>| {
            let codec = choice.and_then(|choice| codecs.get(choice));
            self.seconds_per_byte(codec.unwrap_or(&CodecCost::RAW))
        };
        let choices = core::iter::once(None).chain((0..codecs.len()).map(Some));
        let others = choices.filter(|choice| *choice != current);
        others.fold(current, |best, other| {
            let margin = if best == current { SWITCH_MARGIN } else { 1.0 };
            if time(other) < margin * time(best) {
                other
            } else {
                best
            }
        })
    }
}

/// How much of the current codec's time another one may take to replace it.
const SWITCH_MARGIN: f64 = 0.97;
