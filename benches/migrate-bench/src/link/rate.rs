//! How fast a link is: bits a second, as people write network rates. It shapes nothing.

use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// Slowest link: at less a guest hardly moves.
const BITS_MIN: u64 = 1_000_000;
/// Fastest link; beyond some 10 Gbit/s the host is the limit, not the shaper.
const BITS_MAX: u64 = 100_000_000_000;

/// A link's rate in one direction, 1 Mbit/s to 100 Gbit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    bits_per_second: u64,
}

impl Rate {
    /// Bits a second.
    pub(crate) const fn bits_per_second(self) -> u64 {
        self.bits_per_second
    }

    /// What the link carries in `time`, in bytes.
    pub(crate) fn bytes_in(self, time: Duration) -> u64 {
        (self.bits_per_second as f64 / 8.0 * time.as_secs_f64()) as u64
    }

    /// How long the link takes for `bytes`.
    pub(crate) fn time_for(self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.bits_per_second as f64)
    }
}

/// Parses `1Gbit`, `10Gb/s`, `100Mbps`: bits; `125MB/s`, `1GiB`: bytes.
impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bits_per_second = bits(text).ok_or_else(|| {
            format!("`{text}` is not a rate; write bits as 1Gbit, bytes as 125MB/s")
        })?;
        if (BITS_MIN..=BITS_MAX).contains(&bits_per_second) {
            Ok(Self { bits_per_second })
        } else {
            Err(format!("`{text}` is out of range; write 1Mbit to 100Gbit"))
        }
    }
}

fn bits(text: &str) -> Option<u64> {
    let text = text.trim();
    let per_second = ["/s", "ps"].iter().find_map(|end| text.strip_suffix(end));
    let text = per_second.unwrap_or(text);
    if let Some(count) = ["bit", "Bit", "b"]
        .iter()
        .find_map(|end| text.strip_suffix(end))
    {
        return Some(format!("{count}B").parse::<ByteSize>().ok()?.as_u64());
    }
    // Without a unit it could be either.
    let bytes = text.strip_suffix('B')?;
    let bytes = format!("{bytes}B").parse::<ByteSize>().ok()?.as_u64();
    Some(bytes.saturating_mul(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<u64, String> {
        text.parse::<Rate>().map(Rate::bits_per_second)
    }

    #[test]
    fn bits_and_bytes_are_told_apart() {
        for text in [
            "1Gbit", "1gbit", "1 Gbit/s", "1Gb/s", "1Gbps", "1000Mbit", "125MB/s",
        ] {
            assert_eq!(parsed(text), Ok(1_000_000_000), "{text}");
        }
        assert_eq!(parsed("2.5Gbit"), Ok(2_500_000_000));
        assert_eq!(parsed("100MiB/s"), Ok(800 << 20));
        for text in ["1G", "1", "fast", "", "Gbit", "-1Gbit", "1Gbit/min"] {
            assert!(parsed(text).unwrap_err().contains("1Gbit"), "{text}");
        }
        for text in ["1bit", "999kbit", "101Gbit", "100GB/s", "99999999999GB"] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains("1Mbit to 100Gbit"), "{text}: {error}");
        }
    }

    #[test]
    fn time_and_bytes_belong_together() {
        let rate: Rate = "1Gbit".parse().unwrap();
        assert_eq!(rate.bytes_in(Duration::from_millis(4)), 500_000);
        assert_eq!(rate.time_for(500_000), Duration::from_millis(4));
    }
}
