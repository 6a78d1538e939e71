//! The choice of a codec: the rule against tables of links and codecs where the best one is known,
//! and the whole classifier against a simulated link whose rate changes. Time is simulated.

use std::time::Duration;

use limosa_pages::PAGE_BYTES;
use limosa_pipeline::classify::{Block, Classifier, CodecCost, Sent, StreamCost};
use limosa_pipeline::{Codec, ZstdLevel};
use limosa_wire::{EncodingSet, PageEncoding};

const NONE: Option<usize> = None;
const LZ4: Option<usize> = Some(0);
const ZSTD: Option<usize> = Some(1);

/// Costs of LZ4 and zstd, by seconds per byte and share.
fn codecs(lz4: (f64, f64), zstd: (f64, f64)) -> [CodecCost; 2] {
    [lz4, zstd].map(|(encode, share)| CodecCost {
        encode,
        share,
        landing: 0.0,
    })
}

/// A stream over a link of so many bytes a second.
fn stream(link_bytes_per_second: f64) -> StreamCost {
    StreamCost {
        other: 0.15e-9,
        send: 0.15e-9,
        link: 1.0 / link_bytes_per_second,
    }
}

#[test]
fn the_rule_takes_what_takes_the_least_time() {
    let semi = codecs((1.5e-9, 0.4), (2.5e-9, 0.27));
    let text = codecs((0.5e-9, 0.05), (0.9e-9, 0.01));
    let noise = codecs((1.5e-9, 1.0), (2.5e-9, 1.0));
    let (gigabit, mib) = (125e6, 1048576.0);
    for (what, link, codecs, best) in [
        ("memory, semi", 5e9, semi, NONE),
        ("memory, text", 5e9, text, NONE),
        ("memory, noise", 5e9, noise, NONE),
        ("40 Gb/s, semi", 40.0 * gigabit, semi, NONE),
        // 0.8 ns a byte raw against 1.71: encoding keeps the thread for longer than it saves.
        ("10 Gb/s, semi", 10.0 * gigabit, semi, NONE),
        // 0.8 ns a byte raw against 0.66.
        ("10 Gb/s, text", 10.0 * gigabit, text, LZ4),
        // Half of it for each of two streams: 1.6 ns against 1.71.
        ("5 Gb/s, semi", 5.0 * gigabit, semi, NONE),
        ("4 Gb/s, semi", 4.0 * gigabit, semi, LZ4),
        // LZ4 waits for the link (3.2 ns), zstd for the processor (2.7).
        ("1 Gb/s, semi", gigabit, semi, ZSTD),
        ("1 Gb/s, noise", gigabit, noise, NONE),
        ("1 Gb/s, text", gigabit, text, LZ4),
        ("100 Mb/s, text", gigabit / 10.0, text, ZSTD),
        ("10 MiB/s, semi", 10.0 * mib, semi, ZSTD),
    ] {
        assert_eq!(stream(link).best(&codecs, NONE), best, "{what}");
        let costs = [CodecCost::RAW, codecs[0], codecs[1]];
        let times = costs.map(|codec| stream(link).seconds_per_byte(&codec));
        let chosen = times[best.map_or(0, |best| best + 1)];
        assert!(times.iter().all(|time| chosen <= time * 1.000_1), "{what}");
    }
}

#[test]
fn a_choice_stays_until_another_is_better_by_more_than_chance() {
    let nearly = codecs((1.0e-9, 0.5), (1.0e-9, 0.495));
    let slow = stream(10e6);
    assert_eq!(slow.best(&nearly, NONE), ZSTD);
    assert_eq!(slow.best(&nearly, LZ4), LZ4);
    assert_eq!(slow.best(&codecs((1e-9, 0.5), (1e-9, 0.4)), LZ4), ZSTD);
}

#[test]
fn a_target_that_can_not_unpack_in_time_counts() {
    let mut codecs = codecs((0.5e-9, 0.2), (0.9e-9, 0.1));
    assert_eq!(stream(500e6).best(&codecs, NONE), LZ4);
    codecs[0].landing = 3e-9;
    assert_eq!(stream(500e6).best(&codecs, NONE), ZSTD);
    codecs[1].landing = 3e-9;
    assert_eq!(stream(500e6).best(&codecs, NONE), NONE);
}

/// What the pages of a simulated guest are like: what a run, and a sample of it, takes and comes
/// to.
#[derive(Clone, Copy)]
struct Data {
    lz4: (f64, f64),
    zstd: (f64, f64),
    zstd_slow: (f64, f64),
    /// Of so many runs one does not shrink.
    noise_every: Option<usize>,
}

impl Data {
    fn of(&self, block: Block) -> (f64, f64) {
        match block {
            Block::Lz4 => self.lz4,
            Block::Zstd(level) if level == ZstdLevel::MIN => self.zstd,
            Block::Zstd(_) => self.zstd_slow,
        }
    }
}

const SEMI: Data = Data {
    lz4: (1.5e-9, 0.40),
    zstd: (2.5e-9, 0.27),
    zstd_slow: (4.5e-9, 0.265),
    noise_every: None,
};

const MIXED: Data = Data {
    noise_every: Some(3),
    ..SEMI
};

const NOISE: Data = Data {
    noise_every: Some(1),
    ..SEMI
};

/// A link that empties a queue at a rate, with a target behind it that unpacks.
struct Link {
    bytes_per_second: f64,
    unpack: f64,
    queue_max: f64,
    queue: f64,
    /// Seconds of unpacking that the target is behind.
    behind: f64,
}

impl Link {
    fn pass(&mut self, seconds: f64) {
        // A target that is behind takes nothing from the link.
        let busy = seconds.min(self.behind);
        self.behind -= busy;
        self.queue = (self.queue - (seconds - busy) * self.bytes_per_second).max(0.0);
    }

    /// Takes bytes, and says for how long the thread was kept.
    fn send(&mut self, wire_bytes: f64, packed_raw_bytes: f64) -> f64 {
        let copy = wire_bytes * 0.15e-9;
        self.pass(copy);
        self.queue += wire_bytes;
        let mut kept = copy;
        while self.queue > self.queue_max {
            let wait = self.behind + (self.queue - self.queue_max) / self.bytes_per_second;
            self.pass(wait);
            kept += wait;
        }
        self.behind += packed_raw_bytes * self.unpack;
        kept
    }
}

const RUN_PAGES: usize = 64;
const RUN_BYTES: usize = RUN_PAGES * PAGE_BYTES;

/// A stream in simulated time.
struct Sim {
    classifier: Classifier,
    link: Link,
    now: f64,
    runs: usize,
    frame: Sent,
    packed_raw_bytes: f64,
}

impl Sim {
    fn new(codec: Codec, bytes_per_second: f64) -> Self {
        Self {
            classifier: Classifier::new(codec, EncodingSet::ALL),
            link: Link {
                bytes_per_second,
                unpack: 0.3e-9,
                queue_max: 4e6,
                queue: 0.0,
                behind: 0.0,
            },
            now: 0.0,
            runs: 0,
            frame: Sent::default(),
            packed_raw_bytes: 0.0,
        }
    }

    fn work(&mut self, seconds: f64) {
        self.now += seconds;
        self.link.pass(seconds);
        self.frame.worked += Duration::from_secs_f64(seconds);
    }

    fn run(&mut self, data: &Data) {
        self.work(RUN_BYTES as f64 * 0.15e-9);
        self.runs += 1;
        let is_noise = data
            .noise_every
            .is_some_and(|every| self.runs.is_multiple_of(every));
        let share = |share: f64| if is_noise { 1.0 } else { share };
        let encode = |block, bytes: usize| {
            let (seconds, of_byte) = data.of(block);
            let encoded = (bytes as f64 * share(of_byte)) as usize;
            let encoded = Some(encoded).filter(|_| !is_noise);
            (encoded, Duration::from_secs_f64(seconds * bytes as f64))
        };
        for block in self.classifier.next_run(RUN_PAGES).into_iter().flatten() {
            let (encoded, mut elapsed) = encode(block, PAGE_BYTES);
            elapsed += Duration::from_micros(4);
            self.work(elapsed.as_secs_f64());
            self.classifier.sampled(block, PAGE_BYTES, encoded, elapsed);
        }
        let mut wire_bytes = RUN_BYTES;
        if let Some(block) = self.classifier.block_of_run() {
            let (encoded, elapsed) = encode(block, RUN_BYTES);
            self.work(elapsed.as_secs_f64());
            if self.classifier.encoded(block, RUN_BYTES, encoded, elapsed) {
                wire_bytes = encoded.unwrap_or(RUN_BYTES);
                self.packed_raw_bytes += RUN_BYTES as f64;
            }
        }
        self.frame.raw_bytes += RUN_BYTES;
        self.frame.wire_bytes += wire_bytes;
        if self.frame.wire_bytes >= RUN_BYTES {
            let packed = core::mem::take(&mut self.packed_raw_bytes);
            let kept = self.link.send(self.frame.wire_bytes as f64, packed);
            self.now += kept;
            self.frame.kept = Duration::from_secs_f64(kept);
            self.classifier.sent(&self.frame);
            self.frame = Sent::default();
        }
    }

    fn runs(&mut self, data: &Data, gib: f64) -> f64 {
        let began = self.now;
        for _ in 0..(gib * f64::from(1 << 30)) as usize / RUN_BYTES {
            self.run(data);
        }
        self.now - began
    }
}

fn statics() -> [Codec; 4] {
    let zstd = |level| Codec::Zstd(ZstdLevel::new(level).unwrap());
    [Codec::None, Codec::Lz4, zstd(1), zstd(3)]
}

/// How much longer auto takes than the best that does not choose.
fn excess(data: &Data, bytes_per_second: f64, unpack: f64) -> f64 {
    let took = |codec| {
        let mut sim = Sim::new(codec, bytes_per_second);
        sim.link.unpack = unpack;
        sim.runs(data, 1.0)
    };
    let best = statics().map(took).into_iter().fold(f64::MAX, f64::min);
    took(Codec::Auto) / best - 1.0
}

#[test]
fn auto_is_close_to_the_best_on_links_of_every_rate() {
    for (what, data) in [("semi", &SEMI), ("mixed", &MIXED), ("noise", &NOISE)] {
        for mbit in [100.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 40_000.0] {
            // Two streams share the link.
            let excess = excess(data, mbit * 1e6 / 8.0 / 2.0, 0.3e-9);
            let allowed = if what == "noise" { 0.02 } else { 0.05 };
            assert!(
                excess < allowed,
                "{what} at {mbit} Mb/s takes {:.1} % longer than it need",
                excess * 100.0
            );
        }
    }
}

#[test]
fn auto_is_close_to_the_best_where_the_target_unpacks_slowly() {
    for mbit in [1000.0, 10_000.0, 40_000.0] {
        let excess = excess(&SEMI, mbit * 1e6 / 8.0 / 2.0, 4e-9);
        assert!(
            excess < 0.08,
            "at {mbit} Mb/s {:.1} % longer",
            excess * 100.0
        );
    }
}

#[test]
fn auto_follows_a_link_whose_rate_changes() {
    let rates = [5e9, 60e6, 2e9, 30e6, 300e6];
    let took = |codec| {
        let mut sim = Sim::new(codec, rates[0]);
        rates.map(|rate| {
            sim.link.bytes_per_second = rate;
            sim.runs(&SEMI, 1.0)
        })
    };
    let each = statics().map(took);
    let auto = took(Codec::Auto);
    for (at, rate) in rates.iter().enumerate() {
        let best = each.iter().map(|times| times[at]).fold(f64::MAX, f64::min);
        let excess = auto[at] / best - 1.0;
        assert!(
            excess < 0.15,
            "{:.1} % longer at {rate} B/s, the {at}th",
            excess * 100.0
        );
    }
    let total: f64 = auto.iter().sum();
    let best: f64 = (0..rates.len())
        .map(|at| each.iter().map(|times| times[at]).fold(f64::MAX, f64::min))
        .sum();
    assert!(total < best * 1.05, "{total} s, where {best} s are enough");
}

/// Streams that share a link take turns: it is now quick and now slow for each of them.
#[test]
fn turns_on_a_link_are_no_change_of_it() {
    let took = |codec| {
        let mut sim = Sim::new(codec, 60e6);
        sim.link.queue_max = 1e6;
        for turn in 0..1024 {
            sim.link.bytes_per_second = [150e6, 20e6, 60e6][turn % 3];
            sim.runs(&MIXED, 1.0 / 1024.0);
        }
        sim.now
    };
    let best = statics().map(took).into_iter().fold(f64::MAX, f64::min);
    let auto = took(Codec::Auto);
    assert!(auto < best * 1.05, "{auto} s, where {best} s are enough");
}

#[test]
fn auto_follows_pages_that_begin_to_shrink() {
    let took = |codec| {
        let mut sim = Sim::new(codec, 60e6);
        sim.runs(&NOISE, 0.5);
        sim.runs(&SEMI, 0.5)
    };
    let best = statics().map(took).into_iter().fold(f64::MAX, f64::min);
    let auto = took(Codec::Auto);
    assert!(auto < best * 1.1, "{auto} s, where {best} s are enough");
}

/// A busy machine takes the processor away now and then. That says nothing of the link.
#[test]
fn a_thread_that_is_interrupted_is_no_slow_link() {
    let took = |codec| {
        let mut sim = Sim::new(codec, 1e9);
        for _ in 0..128 {
            sim.runs(&SEMI, 1.0 / 128.0);
            sim.work(0.02);
        }
        sim.now
    };
    let (none, auto) = (took(Codec::None), took(Codec::Auto));
    assert!(auto < none * 1.02, "{auto} s, where {none} s are enough");
}

#[test]
fn nothing_is_looked_at_where_nothing_can_pay() {
    let mut sim = Sim::new(Codec::Auto, 4e9);
    for _ in 0..4096 {
        sim.run(&SEMI);
        assert!(!sim.classifier.may_encode_next());
        assert_eq!(sim.classifier.block_of_run(), None);
    }
    assert!(!sim.classifier.wants_delta());
    let mut slow = Sim::new(Codec::Auto, 60e6);
    slow.runs(&SEMI, 0.1);
    assert!(slow.classifier.may_encode_next() && slow.classifier.wants_delta());
}

#[test]
fn only_what_the_target_reads_is_chosen() {
    let chosen = |encodings: EncodingSet| {
        let mut sim = Sim::new(Codec::Auto, 60e6);
        sim.classifier = Classifier::new(Codec::Auto, encodings);
        sim.runs(&SEMI, 0.5);
        let mut blocks = vec![];
        for _ in 0..64 {
            sim.run(&SEMI);
            blocks.extend(sim.classifier.block_of_run().map(Block::encoding));
        }
        blocks
    };
    let all = chosen(EncodingSet::ALL);
    assert!(
        all.iter()
            .filter(|block| **block == PageEncoding::Zstd)
            .count()
            > 50
    );
    let lz4 = chosen(EncodingSet::ALL.without(PageEncoding::Zstd));
    assert!(!lz4.is_empty() && lz4.iter().all(|block| *block == PageEncoding::Lz4));
    assert!(chosen(EncodingSet::EMPTY).is_empty());
}
