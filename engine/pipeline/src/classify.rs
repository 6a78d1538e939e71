//! Which runs of pages deserve to be encoded. It compares costs; the encoding itself is `pack.rs`.

use std::time::Duration;

use limosa_pages::PAGE_BYTES;

use crate::config::Codec;

/// Most runs that are sent raw without a look after samples did not shrink.
const SKIPPED_RUNS_MAX: u32 = 31;

/// Decides run by run whether LZ4 is tried, by these rules:
///
/// 1. **Sample.** One page, the middle one, stands for a run. Only a sample that LZ4 brings to
///    three quarters or less lets the run be encoded.
/// 2. **Look less often.** After *n* samples in a row that did not shrink, the next `2^n - 1` runs,
///    31 at most, go raw without a sample: pages that do not shrink come in herds. One sample that
///    shrinks ends that.
/// 3. **Keep what is shorter.** An encoded run that is not below seven eighths of its pages goes
///    raw: the target would pay for nothing.
/// 4. **Pay its way** ([`Codec::Auto`] only). Encoding costs time on the thread that also feeds the
///    link. It is done while `encode time per byte < send time per byte × (1 - 1 / ratio)`, with
///    the times measured on this stream and the ratio that of its last runs. Where the link does
///    not make the thread wait, that is never true; where it does, encoding is free.
#[derive(Debug)]
pub struct Classifier {
    codec: Codec,
    misses: u32,
    skip: u32,
    send: Rate,
    encode: Rate,
    /// What encoding leaves of a byte.
    share: f64,
}

/// Time per byte, as a moving average.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    seconds_per_byte: Option<f64>,
}

impl Rate {
    fn learn(&mut self, bytes: usize, elapsed: Duration) {
        let seen = elapsed.as_secs_f64() / bytes.max(1) as f64;
        let mean = self
            .seconds_per_byte
            .map_or(seen, |mean| mean + WEIGHT * (seen - mean));
        self.seconds_per_byte = Some(mean);
    }
}

/// How much the last observation counts.
const WEIGHT: f64 = 1.0 / 8.0;

impl Classifier {
    /// Nothing is known yet.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            misses: 0,
            skip: 0,
            send: Rate::default(),
            encode: Rate::default(),
            share: 0.5,
        }
    }

    /// Whether any page may be encoded at all.
    pub fn may_encode(&self) -> bool {
        self.codec != Codec::None
    }

    /// Whether the next run might be encoded, and so must be lifted: rule 4.
    pub fn may_encode_next(&self) -> bool {
        match self.codec {
            Codec::None => false,
            Codec::Lz4 => true,
            Codec::Auto => self.pays(),
        }
    }

    /// Whether the next run is to be sampled: rules 2 and 4.
    pub fn wants_sample(&mut self) -> bool {
        let pays = self.may_encode_next();
        if pays && self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        pays
    }

    /// Rule 4. What a thing costs that was not tried yet is found by trying it, once the link was
    /// seen to cost anything.
    fn pays(&self) -> bool {
        let Some(send) = self.send.seconds_per_byte else {
            return false;
        };
        let encode = self.encode.seconds_per_byte.unwrap_or(0.0);
        encode < send * (1.0 - self.share)
    }

    /// Whether a sample of one page that came to `encoded_bytes` lets its run be encoded: rule 1.
    pub fn judge_sample(&mut self, encoded_bytes: usize) -> bool {
        if encoded_bytes <= PAGE_BYTES / 4 * 3 {
            self.misses = 0;
            return true;
        }
        self.misses = (self.misses + 1).min(SKIPPED_RUNS_MAX.ilog2() + 1);
        self.skip = (1 << self.misses) - 1;
        self.skip = self.skip.min(SKIPPED_RUNS_MAX);
        false
    }

    /// Whether a run of `raw_bytes` that came to `encoded_bytes` is sent so: rule 3.
    pub fn judge_run(&mut self, raw_bytes: usize, encoded_bytes: usize) -> bool {
        let share = encoded_bytes as f64 / raw_bytes.max(1) as f64;
        self.share += WEIGHT * (share - self.share);
        encoded_bytes < raw_bytes / 8 * 7
    }

    /// Learns what encoding `bytes` took.
    pub fn encoded(&mut self, bytes: usize, elapsed: Duration) {
        self.encode.learn(bytes, elapsed);
    }

    /// Learns for how long sending `bytes` kept the thread.
    pub fn sent(&mut self, bytes: usize, elapsed: Duration) {
        self.send.learn(bytes, elapsed);
    }
}
