//! Sizes, rates, times and shares as people type and read them.

use std::time::Duration;

use bytesize::ByteSize;
use limosa::Endpoint;

/// What a guest may be asked to bear; as the session has it.
const DOWNTIME_MIN: Duration = Duration::from_millis(1);
const DOWNTIME_MAX: Duration = Duration::from_secs(60);

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

/// Parses `tcp://HOST:PORT` or `unix:PATH`.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// Parses `75%` or `75`: a share from 0 to 100.
pub(crate) fn percent(text: &str) -> Result<u8, String> {
    let share = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok();
    share
        .filter(|share| *share <= 100)
        .ok_or_else(|| format!("`{text}` is not a share; write 0% to 100%"))
}

/// `1.5 GiB`.
pub(crate) fn show_bytes(count: u64) -> String {
    ByteSize(count).display().iec().to_string()
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
        assert_eq!(percent("75%"), Ok(75));
        assert_eq!(percent("0"), Ok(0));
        assert!(percent("101%").is_err());
        assert!(percent("-1").is_err());
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
