//! How time runs on the hosts of a pool, and which of them a guest of another one's frequency can't
//! come to: what hosts have in common does not say it.

use limosa_compat::{HostCpu, TscScaling, clock_mismatch};

use crate::protocol::{ClockOrder, ScalingOrder};

impl ClockOrder {
    /// That of a host; `None` where it is not stated.
    pub(crate) fn of(host: &HostCpu) -> Option<Self> {
        let scaling = match host.tsc_scaling {
            TscScaling::Yes => ScalingOrder::Yes,
            TscScaling::No => ScalingOrder::No,
        };
        let khz = host.tsc_khz;
        (khz != 0).then_some(Self { khz, scaling })
    }

    /// Whether a guest with this frequency can live there.
    pub(crate) fn takes(self, guest_khz: u32) -> bool {
        let scaling = match self.scaling {
            ScalingOrder::Yes => TscScaling::Yes,
            ScalingOrder::No => TscScaling::No,
        };
        clock_mismatch(guest_khz, self.khz, scaling).is_none()
    }
}

/// The hosts that a guest with this frequency could never move to, a line each.
pub(crate) fn unreachable<'a>(
    guest_khz: u32,
    hosts: impl IntoIterator<Item = (&'a str, Option<ClockOrder>)>,
) -> Vec<String> {
    let clocks = hosts.into_iter();
    let clocks = clocks.filter_map(|(name, clock)| Some((name, clock?)));
    clocks
        .filter(|(_, clock)| guest_khz != 0 && !clock.takes(guest_khz))
        .map(|(name, clock)| {
            format!(
                "{name}: its time-stamp counter runs at {} kHz and can't be scaled, a guest's at \
                 {guest_khz} kHz: such a guest can't move there",
                clock.khz
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_another_frequency_take_a_guest_if_they_scale() {
        let clock = |khz, scaling| Some(ClockOrder { khz, scaling });
        let hosts = [
            ("like", clock(2_500_100, ScalingOrder::No)),
            ("other", clock(2_600_000, ScalingOrder::No)),
            ("scaling", clock(2_600_000, ScalingOrder::Yes)),
            ("silent", None),
        ];
        let found = unreachable(2_500_000, hosts);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("other: "), "{found:?}");
        // A guest without a counter is not judged by it before it starts.
        assert_eq!(unreachable(0, hosts), [""; 0]);
    }
}
