//! Sizes, rates, times and shares as people type and read them.

use std::num::NonZeroU64;
use std::time::Duration;

use bytesize::ByteSize;
use limosa::Endpoint;

/// What a guest may be asked to bear; as the session has it.
const DOWNTIME_MIN: Duration = Duration::from_millis(1);
const DOWNTIME_MAX: Duration = Duration::from_secs(60);
/// Slower than a page a second nothing ends.
const BANDWIDTH_MIN: u64 = 4 << 10;

/// Parses `1GiB`, `512M`, `4096`: bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| format!("`{text}` is not a size; write for instance 512MiB or 2GiB"))
}

/// Parses `100MiB/s` or `100MiB`: bytes a second.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    bytes(text.strip_suffix("/s").unwrap_or(text))
        .map_err(|_| format!("`{text}` is not a rate; write for instance 100MiB/s"))
}

/// Parses `100MiB/s`: a rate to hold page streams to.
pub(crate) fn bandwidth(text: &str) -> Result<NonZeroU64, String> {
    let rate = rate(text)?;
    NonZeroU64::new(rate)
        .filter(|_| rate >= BANDWIDTH_MIN)
        .ok_or_else(|| format!("`{text}` is too slow; write 4KiB/s or more"))
}

/// Parses `300ms`, `1s`, `2min`: a pause from 1 ms to 60 s.
pub(crate) fn downtime(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a time; write for instance 300ms or 2s"))?;
    if (DOWNTIME_MIN..=DOWNTIME_MAX).contains(&time) {
        Ok(time)
    } else {
        Err(format!("`{text}` is out of range; write 1ms to 60s"))
    }
}

/// How many page streams are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// As many as suit this host.
    Auto,
    /// So many, 1 to 64.
    Count(u16),
}

/// Parses `auto` or a number from 1 to 64.
pub(crate) fn streams(text: &str) -> Result<Streams, String> {
    if text == "auto" {
        return Ok(Streams::Auto);
    }
    let count = text.parse().ok().filter(|count| (1..=64).contains(count));
    count
        .map(Streams::Count)
        .ok_or_else(|| format!("`{text}` is no count of streams; write auto, or 1 to 64"))
}

/// Parses `tcp://HOST:PORT` or `unix:PATH`.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// A part of a guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A share of it, from 0 to 100.
    Percent(u8),
    /// So many bytes of it.
    Bytes(u64),
}

impl Part {
    /// How much of `whole` it is, in bytes.
    pub(crate) fn of(self, whole: u64) -> u64 {
        match self {
            Self::Percent(100) => whole,
            Self::Percent(percent) => whole / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes.min(whole),
        }
    }
}

/// Parses `75%` or `75`, a share from 0 to 100, or a size such as `1GiB`.
pub(crate) fn part(text: &str) -> Result<Part, String> {
    let share = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok();
    let share = share.filter(|share| *share <= 100).map(Part::Percent);
    let is_number = text.trim_end_matches('%').parse::<f64>().is_ok();
    let size = || bytes(text).ok().filter(|_| !is_number).map(Part::Bytes);
    share.or_else(size).ok_or_else(|| {
        format!("`{text}` is no part of memory; write 0% to 100%, or a size such as 1GiB")
    })
}

/// `1.5 GiB`.
pub(crate) fn show_bytes(count: u64) -> String {
    ByteSize(count).display().iec().to_string()
}

/// `2.5 Gbit/s`, of bits a second.
pub(crate) fn show_bits(rate: u64) -> String {
    match rate as f64 {
        rate if rate >= 1e9 => format!("{} Gbit/s", rate / 1e9),
        rate => format!("{} Mbit/s", rate / 1e6),
    }
}

/// Milliseconds with as many digits as they deserve.
pub(crate) fn show_ms(ms: f64) -> String {
    match ms {
        ms if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 1.0 => format!("{ms:.1} ms"),
        ms => format!("{:.0} µs", ms * 1000.0),
    }
}

/// A `Duration` as milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_where_they_say_so() {
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("4096"), Ok(4096));
        assert!(bytes("much").unwrap_err().contains("`much`"));
    }

    #[test]
    fn rates_may_name_the_second() {
        assert_eq!(rate("100MiB/s"), Ok(100 << 20));
        assert_eq!(rate("100MiB"), Ok(100 << 20));
        assert!(rate("fast").is_err());
    }

    #[test]
    fn shares_end_at_a_hundred() {
        assert_eq!(part("75%"), Ok(Part::Percent(75)));
        assert_eq!(part("0"), Ok(Part::Percent(0)));
        assert_eq!(part("1GiB"), Ok(Part::Bytes(1 << 30)));
        for wrong in ["101%", "-1", "4096", "1.5", "most"] {
            assert!(part(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Part::Percent(50).of(4000), 2000);
        assert_eq!(Part::Bytes(5000).of(4000), 4000);
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(downtime("300ms"), Ok(Duration::from_millis(300)));
        assert!(downtime("300").is_err());
    }

    #[test]
    fn a_pause_has_bounds() {
        assert!(downtime("1ms").is_ok() && downtime("60s").is_ok());
        assert!(downtime("0ms").unwrap_err().contains("1ms to 60s"));
        assert!(downtime("61s").is_err());
    }
}
