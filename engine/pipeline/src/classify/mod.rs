//! Which runs of pages are encoded, and how. It compares costs; the encoding itself is `encode.rs`.

mod auto;
mod meter;
mod rule;

use std::time::Duration;

use limosa_wire::EncodingSet;

pub use meter::Sent;
pub use rule::{Block, CodecCost, StreamCost};

use crate::config::Codec;
use auto::Auto;

/// Most runs that are sent raw without a look after samples did not shrink.
const SKIPPED_RUNS_MAX: u32 = 31;

/// Most blocks between which [`Codec::Auto`] chooses.
pub const BLOCKS_MAX: usize = 3;

/// Blocks of which a sample is to be taken of a run.
pub type Samples = [Option<Block>; BLOCKS_MAX];

/// Decides run by run with what it is encoded, by these rules:
///
/// 1. **Sample.** One page, the middle one, stands for a run. Only a sample that comes to three
///    quarters or less lets the run be encoded.
/// 2. **Look less often.** After *n* samples in a row that did not shrink, the next `2^n - 1` runs,
///    31 at most, go raw without a sample: pages that do not shrink come in herds. One sample that
///    shrinks ends that.
/// 3. **Keep what is shorter.** An encoded run that is not below seven eighths of its pages goes
///    raw: the target would pay for nothing.
/// 4. **Take the least time** ([`Codec::Auto`] only). A stream's one thread works (lifts, encodes,
///    hands over), while the link empties what it was handed before and the target unpacks. The
///    slowest of the three sets the pace, so a byte of pages takes
///    `max(work + encode + send × share, link × share, landing)`
///    ([`StreamCost::seconds_per_byte`]), and the encoding in which it takes least is chosen
///    ([`StreamCost::best`]) for the runs that follow. All of it is measured on this stream, every
///    2 MiB sent or 20 ms: the link from raw pages, `share` and `encode` from samples and encoded
///    runs. A link is slow once three measurements of raw pages in a row are: what makes only one
///    of them slow took the processor away. Encoded pages are measured three times together:
///    streams that share a link take turns.
/// 5. **Look again.** Where the thread never waits for the link while it encodes, the link may have
///    become faster than it can show; where bytes take longer than they did, it is slower, or it is
///    the target that can't unpack in time. Raw pages tell: two measurements of them, half a second
///    after the choice at the earliest, and after twice as long each time that they changed
///    nothing. Other encodings are tried on one run in 512 where they could be better. Where even a
///    codec that made pages vanish would cost more time than it saves, nothing is tried and no
///    sample taken.
#[derive(Debug)]
pub struct Classifier {
    choice: Choice,
    herd: Herd,
    /// The block that the sampled run may be encoded as.
    of_run: Option<Block>,
}

#[derive(Debug)]
enum Choice {
    None,
    Fixed(Block),
    /// What changed of pages; all others go raw.
    Delta,
    Auto(Box<Auto>),
}

/// Rule 2.
#[derive(Clone, Copy, Debug, Default)]
struct Herd {
    misses: u32,
    skip: u32,
}

impl Herd {
    /// Whether the next run is sampled.
    fn looks(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        true
    }

    fn judge(&mut self, shrinks: bool) {
        if shrinks {
            *self = Self::default();
            return;
        }
        self.misses = (self.misses + 1).min(SKIPPED_RUNS_MAX.ilog2() + 1);
        self.skip = ((1 << self.misses) - 1).min(SKIPPED_RUNS_MAX);
    }

    /// How many runs the next sample stands for.
    fn weight(&self) -> u32 {
        match self.misses {
            0 => 1,
            misses => (1 << misses).min(SKIPPED_RUNS_MAX + 1),
        }
    }
}

/// Whether a sample lets its run be encoded: rule 1.
fn shrinks(raw_bytes: usize, encoded_bytes: Option<usize>) -> bool {
    encoded_bytes.is_some_and(|bytes| bytes <= raw_bytes / 4 * 3)
}

impl Classifier {
    /// Nothing is known yet. Of the codecs among which [`Codec::Auto`] chooses, those that are not
    /// in `encodings` are left out.
    pub fn new(codec: Codec, encodings: EncodingSet) -> Self {
        let choice = match codec {
            Codec::None => Choice::None,
            Codec::Lz4 => Choice::Fixed(Block::Lz4),
            Codec::Zstd(level) => Choice::Fixed(Block::Zstd(level)),
            Codec::Delta => Choice::Delta,
            Codec::Auto => Choice::Auto(Box::new(Auto::new(encodings))),
        };
        Self {
            choice,
            herd: Herd::default(),
            of_run: None,
        }
    }

    /// For a stream whose raw pages pass through no buffer: see [`Staging`](crate::Staging).
    pub fn with_live_pages(mut self) -> Self {
        if let Choice::Auto(auto) = &mut self.choice {
            auto.expect_live();
        }
        self
    }

    /// Whether any run may be encoded as a block at all.
    pub fn may_encode(&self) -> bool {
        match &self.choice {
            Choice::None | Choice::Delta => false,
            Choice::Fixed(_) => true,
            Choice::Auto(auto) => auto.may_encode(),
        }
    }

    /// Whether the next run may be encoded or looked at: rules 4 and 5. Else its pages are sent as
    /// they are.
    pub fn may_encode_next(&self) -> bool {
        match &self.choice {
            Choice::None | Choice::Delta => false,
            Choice::Fixed(_) => true,
            Choice::Auto(auto) => auto.may_encode_next(),
        }
    }

    /// Whether the next run is at most sampled, and not encoded.
    pub fn only_looks(&self) -> bool {
        match &self.choice {
            Choice::None | Choice::Delta => true,
            Choice::Fixed(_) => false,
            Choice::Auto(auto) => auto.only_looks(),
        }
    }

    /// Whether what changed of a page is sent where it is known: always or never, but for
    /// [`Codec::Auto`], which does so where the link takes longer for a byte than finding out does.
    pub fn wants_delta(&self) -> bool {
        match &self.choice {
            Choice::None | Choice::Fixed(_) => false,
            Choice::Delta => true,
            Choice::Auto(auto) => auto.wants_delta(),
        }
    }

    /// Blocks with which the next run of `page_count` pages is to be sampled: rules 2, 4 and 5.
    /// Where there is none it goes raw.
    pub fn next_run(&mut self, page_count: usize) -> Samples {
        self.of_run = None;
        match &mut self.choice {
            Choice::None | Choice::Delta => [None; BLOCKS_MAX],
            Choice::Fixed(block) => {
                let mut samples = [None; BLOCKS_MAX];
                samples[0] = Some(*block).filter(|_| self.herd.looks());
                samples
            }
            Choice::Auto(auto) => auto.next_run(page_count, &mut self.herd),
        }
    }

    /// Learns what a sample of `raw_bytes` came to as `block`; `None` where it became no shorter.
    pub fn sampled(
        &mut self,
        block: Block,
        raw_bytes: usize,
        encoded_bytes: Option<usize>,
        elapsed: Duration,
    ) {
        let shrinks = shrinks(raw_bytes, encoded_bytes);
        match &mut self.choice {
            Choice::None | Choice::Delta => {}
            Choice::Fixed(fixed) => {
                self.herd.judge(shrinks);
                self.of_run = Some(*fixed).filter(|_| shrinks);
            }
            Choice::Auto(auto) => {
                let share = encoded_bytes.unwrap_or(raw_bytes) as f64 / raw_bytes.max(1) as f64;
                auto.looked(elapsed);
                auto.sampled(block, shrinks.then_some(share), self.herd.weight());
                if auto.judges(block) {
                    self.herd.judge(shrinks);
                }
                if shrinks {
                    self.of_run = self.of_run.or(auto.block_of_run(block));
                }
            }
        }
    }

    /// The block that the run is to be encoded as, now that it was sampled: rule 1.
    pub fn block_of_run(&self) -> Option<Block> {
        self.of_run
    }

    /// Learns what a run of `raw_bytes` came to, and says whether it is sent so: rule 3.
    pub fn encoded(
        &mut self,
        block: Block,
        raw_bytes: usize,
        encoded_bytes: Option<usize>,
        elapsed: Duration,
    ) -> bool {
        let encoded_bytes = encoded_bytes.unwrap_or(raw_bytes);
        if let Choice::Auto(auto) = &mut self.choice {
            auto.encoded(block, raw_bytes, encoded_bytes, elapsed);
        }
        encoded_bytes < raw_bytes / 8 * 7
    }

    /// Learns that `page_count` pages with data went by unseen, as they are.
    pub fn passed(&mut self, page_count: usize) {
        if let Choice::Auto(auto) = &mut self.choice {
            auto.pass(page_count);
        }
    }

    /// A round begins: what the link has under way is gone.
    pub fn begin_round(&mut self) {
        if let Choice::Auto(auto) = &mut self.choice {
            auto.begin_round();
        }
    }

    /// Learns what handing frames over took.
    pub fn sent(&mut self, sent: &Sent) {
        if let Choice::Auto(auto) = &mut self.choice {
            auto.sent(sent);
        }
    }
}
