//! The link of a run: this host as it is, or a pair that is held to a rate both ways. It moves no
//! guest.

mod bucket;
mod command;
mod namespaces;
mod rate;
mod relay;

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub(crate) use self::command::{Namespace, Place};
use self::namespaces::Namespaces;
pub(crate) use self::rate::Rate;
use self::relay::Relay;

/// Where the ends of an unshaped link, and of a relayed one, listen.
const LOOPBACK: &str = "127.0.0.1";

/// An end of a link: where the source of the first move runs, or its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Target,
}

/// What a report says of a shaped link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkFacts {
    /// Bits a second, in either direction.
    pub(crate) rate: u64,
    /// What keeps to it.
    pub(crate) how: String,
}

/// A link. Dropping it takes away what was made for it.
pub(crate) enum Link {
    /// Nothing between the ends.
    Unshaped,
    /// Each end has a network of its own.
    Namespaces(Namespaces, Rate),
    /// Connections go through this process.
    Relay {
        rate: Rate,
        /// Why there are no namespaces.
        why: String,
        /// The way to whoever listens now.
        way: Option<Relay>,
    },
}

impl Link {
    /// Makes a link of `rate`, the best that this host can have.
    pub(crate) fn shaped(rate: Rate) -> Self {
        match Namespaces::new(rate) {
            Ok(namespaces) => Self::Namespaces(namespaces, rate),
            Err(error) => Self::Relay {
                rate,
                why: crate::in_one_line(&error),
                way: None,
            },
        }
    }

    /// Where the processes of `end` are to run.
    pub(crate) fn place(&self, end: End) -> Place {
        match self {
            Self::Namespaces(namespaces, _) => {
                Place::In(Namespace::of_process(namespaces.holder(end)))
            }
            Self::Unshaped | Self::Relay { .. } => Place::Here,
        }
    }

    /// The TCP endpoint, with any free port, at which `end` can listen.
    pub(crate) fn listen_at(&self, end: End) -> String {
        let address = match self {
            Self::Namespaces(..) => Namespaces::address(end),
            Self::Unshaped | Self::Relay { .. } => LOOPBACK,
        };
        format!("tcp://{address}:0")
    }

    /// Where the other end must connect to reach `endpoint`. A way that was asked for before is
    /// closed.
    ///
    /// # Errors
    /// When this process can't listen in between.
    pub(crate) fn way_to(&mut self, endpoint: &str) -> Result<String> {
        let Self::Relay { rate, way, .. } = self else {
            return Ok(endpoint.into());
        };
        *way = None;
        let relay = Relay::new(endpoint, *rate)?;
        let reached_at = format!("tcp://{}", relay.address());
        *way = Some(relay);
        Ok(reached_at)
    }

    /// How long it takes for `bytes` at least.
    pub(crate) fn time_for(&self, bytes: u64) -> Duration {
        match self {
            Self::Unshaped => Duration::ZERO,
            Self::Namespaces(_, rate) | Self::Relay { rate, .. } => rate.time_for(bytes),
        }
    }

    /// What the report says of it; nothing of an unshaped one.
    pub(crate) fn facts(&self) -> Option<LinkFacts> {
        let (rate, how) = match self {
            Self::Unshaped => return None,
            Self::Namespaces(_, rate) => {
                let how = "network namespaces joined by a veth pair, tbf on both ends";
                (rate, how.into())
            }
            Self::Relay { rate, why, .. } => {
                let how = format!("a relay in user space with token buckets; no namespaces: {why}");
                (rate, how)
            }
        };
        Some(LinkFacts {
            rate: rate.bits_per_second(),
            how,
        })
    }
}
