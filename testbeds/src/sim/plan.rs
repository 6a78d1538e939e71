//! Named scenarios: what a world is like and what may go wrong in it. What does go wrong, and when,
//! follows from the seed.

use std::time::Duration;

use limosa_pages::{MapError, MemoryMap, PageCount, PageIndex, PageRange};
use limosa_session::{OnStall, SessionConfig};
use serde::Deserialize;

use super::faults::{FaultKind, Moment};
use super::guest::Habits;
use super::link::LinkShape;
use super::rng::Rng;

/// From a least to a most; written as `[1, 3]`. The seed chooses.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(from = "[u64; 2]")]
pub struct Span {
    min: u64,
    max: u64,
}

impl From<[u64; 2]> for Span {
    fn from([min, max]: [u64; 2]) -> Self {
        Self { min, max }
    }
}

impl Span {
    pub(crate) fn draw(self, rng: &mut Rng) -> u64 {
        rng.within(self.min, self.max)
    }
}

/// A scenario, as its file has it. What a file leaves out is that of [`Plan::default`].
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// The file's name.
    #[serde(skip)]
    pub name: String,
    /// What the scenario is for.
    pub about: String,
    /// Migrations of one guest, there and back.
    pub hops: Span,
    /// Attempts for one migration before the last one, which nothing disturbs.
    pub disturbed_attempts: u64,
    /// Faults in each disturbed attempt.
    pub faults: Span,
    /// Which faults; all where empty.
    pub kinds: Vec<FaultKind>,
    /// When they strike; any time where empty.
    pub moments: Vec<Moment>,
    /// The guest.
    pub guest: GuestPlan,
    /// The links.
    pub link: LinkPlan,
    /// The session's knobs.
    pub session: SessionPlan,
}

/// What the guest is like.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GuestPlan {
    /// Regions of its memory; between the first two there is a hole.
    pub regions: Span,
    /// Pages of all regions together.
    pub pages: Span,
    /// Pages written before the first migration, of 100.
    pub present_percent: Span,
    /// Pages written each second.
    pub writes_per_second: Span,
    /// Of its writes, so many in 100 make a page zero.
    pub zeroing_percent: Span,
}

/// What the links are like.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LinkPlan {
    /// Page streams that each side would like.
    pub streams: Span,
    /// Time on the way, in microseconds, each lane its own.
    pub latency_us: Span,
    /// Most time on top of it.
    pub jitter_us: Span,
    /// Rate of each lane.
    pub mib_per_second: Span,
    /// Bytes under way before a sender waits.
    pub window_kib: Span,
}

/// The session's knobs; time-outs are short and the same everywhere.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SessionPlan {
    /// Longest downtime.
    pub downtime_ms: Span,
    /// Most rounds.
    pub rounds: Span,
    /// What to do with a guest that is too busy.
    pub on_stall: StallPlan,
    /// Time that the target takes to make a guest, at the most, in microseconds.
    pub prepare_us: Span,
    /// Time that it takes to let the guest run, in microseconds.
    pub resume_us: Span,
}

/// What to do with a guest that writes faster than its pages are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StallPlan {
    /// End the migration.
    Fail,
    /// Pause the guest all the same.
    Stop,
    /// Let it run for a share of the time.
    Throttle,
    /// Limit what it dirties.
    Limit,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            hops: [1, 3].into(),
            disturbed_attempts: 2,
            faults: [0, 2].into(),
            kinds: Vec::new(),
            moments: Vec::new(),
            guest: GuestPlan::default(),
            link: LinkPlan::default(),
            session: SessionPlan::default(),
        }
    }
}

impl Default for GuestPlan {
    fn default() -> Self {
        Self {
            regions: [1, 3].into(),
            pages: [1024, 2560].into(),
            present_percent: [10, 70].into(),
            writes_per_second: [0, 4000].into(),
            zeroing_percent: [0, 30].into(),
        }
    }
}

impl Default for LinkPlan {
    fn default() -> Self {
        Self {
            streams: [1, 4].into(),
            latency_us: [20, 5000].into(),
            jitter_us: [0, 3000].into(),
            mib_per_second: [40, 400].into(),
            window_kib: [64, 1024].into(),
        }
    }
}

impl Default for SessionPlan {
    fn default() -> Self {
        Self {
            downtime_ms: [1, 60].into(),
            rounds: [1, 8].into(),
            on_stall: StallPlan::Stop,
            prepare_us: [100, 4000].into(),
            resume_us: [100, 2000].into(),
        }
    }
}

/// Why a plan can't be played.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// There is no plan of this name.
    #[error("there is no plan named {0}")]
    Unknown(String),
    /// The file can't be read.
    #[error("plan {name}: {error}")]
    Unreadable {
        /// The plan.
        name: &'static str,
        /// What is wrong with it.
        error: Box<toml::de::Error>,
    },
    /// The guest that it asks for can't be.
    #[error("no such guest: {0}")]
    NoGuest(#[from] MapError),
    /// This process has no memory for the guest.
    #[error(transparent)]
    NoMemory(#[from] super::memory::NoMemory),
    /// The guest's processor can't be described.
    #[error("no such processor: {0}")]
    NoCpu(#[from] limosa_compat::TableError),
}

macro_rules! plans {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../../plans/", $name, ".toml")))),*]
    };
}

const PLANS: [(&str, &str); 12] = plans! {
    "storm" "calm" "hand-over" "busy" "zeros" "retries" "tampered" "slow" "cancel" "unlike"
    "throttled" "limited"
};

impl Plan {
    /// Every named plan; the first is the one that has everything.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn all() -> Result<Vec<Self>, PlanError> {
        PLANS
            .iter()
            .map(|(name, text)| Self::read(name, text))
            .collect()
    }

    /// The plan of this name.
    ///
    /// # Errors
    /// No such plan, or a file that can't be read.
    pub fn named(wanted: &str) -> Result<Self, PlanError> {
        let found = PLANS.iter().find(|(name, _)| *name == wanted);
        let (name, text) = found.ok_or_else(|| PlanError::Unknown(wanted.into()))?;
        Self::read(name, text)
    }

    fn read(name: &'static str, text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text).map_err(|error| PlanError::Unreadable {
            name,
            error: Box::new(error),
        })?;
        Ok(Self {
            name: name.into(),
            ..plan
        })
    }
}

impl GuestPlan {
    pub(crate) fn habits(&self, rng: &mut Rng) -> Habits {
        Habits {
            present_percent: self.present_percent.draw(rng),
            writes_per_second: self.writes_per_second.draw(rng),
            zeroing_percent: self.zeroing_percent.draw(rng),
        }
    }

    /// Regions that begin in the middle of chunks, with a hole behind the first and none behind the
    /// second.
    pub(crate) fn map(&self, rng: &mut Rng) -> Result<MemoryMap, MapError> {
        let region_count = self.regions.draw(rng).max(1);
        let mut left = self.pages.draw(rng).max(region_count);
        let mut start = 0;
        let mut regions = Vec::new();
        for region in 0..region_count {
            let others = region_count - region - 1;
            let count = match others {
                0 => left,
                _ => rng.within(1, left - others),
            };
            left -= count;
            let range = PageRange::from_start_count(PageIndex::new(start), PageCount::new(count));
            regions.push(range.unwrap_or(PageRange::empty()));
            start += count;
            if region == 0 {
                start += rng.within(1, 1500);
            }
        }
        MemoryMap::new(regions)
    }
}

impl LinkPlan {
    pub(crate) fn shape(&self, rng: &mut Rng) -> LinkShape {
        LinkShape {
            latency: Duration::from_micros(self.latency_us.draw(rng)),
            jitter: Duration::from_micros(self.jitter_us.draw(rng)),
            bytes_per_second: self.mib_per_second.draw(rng) << 20,
            window_bytes: self.window_kib.draw(rng) << 10,
        }
    }
}

impl SessionPlan {
    /// The knobs of one side. Time-outs are short: a lost peer shall not take much of the guest's
    /// time, all of which is simulated write by write.
    pub(crate) fn config(&self, stream_count: u64, rng: &mut Rng) -> SessionConfig {
        let ms = Duration::from_millis;
        SessionConfig {
            downtime_max: ms(self.downtime_ms.draw(rng)),
            switchover_cost: ms(1),
            rounds_max: self.rounds.draw(rng) as u32,
            on_stall: match self.on_stall {
                StallPlan::Fail => OnStall::Fail,
                StallPlan::Stop => OnStall::Stop,
                StallPlan::Throttle => OnStall::Throttle,
                StallPlan::Limit => OnStall::Limit,
            },
            peer_silence_max: ms(1200),
            keep_alive_every: ms(300),
            handshake_max: ms(1500),
            prepare_max: ms(3000),
            switchover_max: ms(2000),
            hand_over_max: ms(1500),
            stream_count: stream_count as u16,
            ..SessionConfig::default()
        }
    }
}
