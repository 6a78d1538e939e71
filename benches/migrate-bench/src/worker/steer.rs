//! Orders to a move that runs: a line each, in an operator's words.

use std::io::BufRead;
use std::num::NonZeroU64;

use clap::ValueEnum;
use limosa::{CancelToken, OnStall, Steering, Terms};

use crate::args::OnStallChoice;
use crate::protocol::LinkOrder;
use crate::units;

/// What reaches a move while it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hands {
    pub(crate) cancel: CancelToken,
    pub(crate) steering: Steering,
}

impl From<CancelToken> for Hands {
    /// Nothing but the end can be ordered.
    fn from(cancel: CancelToken) -> Self {
        Self {
            cancel,
            steering: Steering::new(),
        }
    }
}

/// One order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Pause,
    Resume,
    Cancel,
    Bandwidth(Option<NonZeroU64>),
    Terms(Terms),
}

/// All orders, for somebody who wrote another one.
const ORDERS: &str = "pause, resume, cancel, bandwidth RATE|off, downtime TIME, \
                      on-stall fail|stop|throttle|limit";

impl Order {
    /// Reads a line; `terms` are those that hold so far.
    fn read(line: &str, terms: Terms) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["pause"] => Self::Pause,
            ["resume"] => Self::Resume,
            ["cancel"] => Self::Cancel,
            ["bandwidth", "off"] => Self::Bandwidth(None),
            ["bandwidth", rate] => Self::Bandwidth(Some(units::bandwidth(rate)?)),
            ["downtime", time] => Self::Terms(Terms {
                downtime_max: units::downtime(time)?,
                ..terms
            }),
            ["on-stall", policy] => Self::Terms(Terms {
                on_stall: policy_of(OnStallChoice::from_str(policy, false)?),
                ..terms
            }),
            _ => {
                return Err(format!(
                    "`{}` is no order; write one of: {ORDERS}",
                    line.trim()
                ));
            }
        })
    }

    fn give(self, hands: &Hands) {
        match self {
            Self::Pause => hands.steering.pause(),
            Self::Resume => hands.steering.resume(),
            Self::Cancel => hands.cancel.cancel(),
            Self::Bandwidth(rate) => hands.steering.set_bandwidth(rate),
            Self::Terms(terms) => hands.steering.set_terms(terms),
        }
    }
}

const fn policy_of(choice: OnStallChoice) -> OnStall {
    match choice {
        OnStallChoice::Fail => OnStall::Fail,
        OnStallChoice::Stop => OnStall::Stop,
        OnStallChoice::Throttle => OnStall::Throttle,
        OnStallChoice::Limit => OnStall::Limit,
    }
}

/// The policy of that name; `fail` where there is none, which the command line has ruled out.
pub(crate) fn policy_named(name: &str) -> OnStall {
    OnStallChoice::from_str(name, false).map_or(OnStall::Fail, policy_of)
}

/// Reads `lines` on a thread of its own until they end, and gives each order to `hands`. What is no
/// order is told on standard error, and changes nothing.
pub(crate) fn follow(lines: impl BufRead + Send + 'static, order: &LinkOrder, hands: Hands) {
    let mut terms = Terms {
        downtime_max: order.downtime,
        on_stall: policy_named(&order.on_stall),
    };
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if line.trim().is_empty() {
                continue;
            }
            match Order::read(&line, terms) {
                Ok(order) => {
                    if let Order::Terms(new) = order {
                        terms = new;
                    }
                    order.give(&hands);
                }
                Err(error) => eprintln!("migrate-bench: {error}"),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TERMS: Terms = Terms {
        downtime_max: Duration::from_millis(300),
        on_stall: OnStall::Fail,
    };

    #[test]
    fn orders_are_read_as_they_are_written() {
        for (line, order) in [
            ("pause", Order::Pause),
            (" resume ", Order::Resume),
            ("cancel", Order::Cancel),
            ("bandwidth off", Order::Bandwidth(None)),
            (
                "bandwidth 1MiB/s",
                Order::Bandwidth(NonZeroU64::new(1 << 20)),
            ),
            (
                "downtime 50ms",
                Order::Terms(Terms {
                    downtime_max: Duration::from_millis(50),
                    ..TERMS
                }),
            ),
            (
                "on-stall throttle",
                Order::Terms(Terms {
                    on_stall: OnStall::Throttle,
                    ..TERMS
                }),
            ),
        ] {
            assert_eq!(Order::read(line, TERMS), Ok(order), "{line}");
        }
    }

    #[test]
    fn what_is_no_order_says_what_is() {
        for line in [
            "stop",
            "pause now",
            "bandwidth",
            "downtime soon",
            "on-stall wait",
            "{}",
        ] {
            assert!(Order::read(line, TERMS).is_err(), "{line}");
        }
        let error = Order::read("halt", TERMS).unwrap_err();
        assert!(error.contains("pause, resume"), "{error}");
    }

    #[test]
    fn an_order_reaches_the_move() {
        let hands = Hands::default();
        Order::Pause.give(&hands);
        assert!(hands.steering.is_paused());
        Order::Resume.give(&hands);
        assert!(!hands.steering.is_paused());
        Order::Cancel.give(&hands);
        assert!(hands.cancel.is_cancelled());
    }
}
