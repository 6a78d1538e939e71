//! What `rivals` measured, as the JSON schema `limosa.rivals/1`; `docs/report.md` describes each
//! field.

use serde::{Deserialize, Serialize};

use crate::report::{Check, Config, CpuSeconds, HostFacts, Run, RunOutcome, Spread};

/// The schema's name and version.
pub(crate) const SCHEMA: &str = "limosa.rivals/1";

/// A whole command's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: String,
    pub(crate) config: Config,
    pub(crate) rival: RivalFacts,
    pub(crate) host: HostFacts,
    pub(crate) landings: Vec<LandingReport>,
}

/// The rival.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RivalFacts {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) version: String,
    /// What TCP sockets get here that choose none; QEMU chooses none.
    pub(crate) congestion: String,
}

/// All moves into one kind of target memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LandingReport {
    /// `fresh` or `populated`.
    pub(crate) landing: String,
    pub(crate) ours: Contender,
    pub(crate) theirs: Vec<Contender>,
    /// The rival's setting with the least median total; none where none completed.
    pub(crate) best: Option<String>,
}

/// One way to move, over all rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Contender {
    pub(crate) setting: String,
    pub(crate) moves: Vec<Move>,
    pub(crate) total_ms: Option<Spread>,
    pub(crate) running_ms: Option<Spread>,
    pub(crate) downtime_ms: Option<Spread>,
    pub(crate) gap_ms: Option<Spread>,
    pub(crate) throughput_gib_s: Option<Spread>,
    pub(crate) cpu_s_per_gib: Option<Spread>,
    /// Of a rival's setting: ours ÷ theirs.
    pub(crate) ratios: Option<Ratios>,
}

/// Ours ÷ theirs, of moves in the same round: below 1 is better for us.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ratios {
    pub(crate) total: Option<Spread>,
    pub(crate) gap: Option<Spread>,
    pub(crate) cpu: Option<Spread>,
}

/// One move.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Move {
    /// From 1.
    pub(crate) round: u32,
    pub(crate) outcome: RunOutcome,
    pub(crate) error: Option<String>,
    /// By the mover's own word.
    pub(crate) total_ms: Option<f64>,
    /// Until the guest ran on the target.
    pub(crate) running_ms: Option<f64>,
    /// By the mover's own word.
    pub(crate) downtime_ms: Option<f64>,
    /// The longest time that the guest stood still, by its own clock, from the order to move on.
    pub(crate) gap_ms: Option<f64>,
    pub(crate) wire_bytes: Option<u64>,
    pub(crate) throughput_gib_s: Option<f64>,
    pub(crate) cpu_s: CpuSeconds,
    pub(crate) cpu_s_per_gib: Option<f64>,
    /// The guest's own verdict on all its memory.
    pub(crate) verified: Check,
}

impl Move {
    /// It completed, and the guest found nothing wrong.
    pub(crate) fn is_good(&self) -> bool {
        self.outcome == RunOutcome::Completed && self.verified != Check::Failed
    }

    /// One that failed for this reason.
    pub(crate) fn failed(round: u32, error: String) -> Self {
        Self {
            round,
            outcome: RunOutcome::Failed,
            error: Some(error),
            total_ms: None,
            running_ms: None,
            downtime_ms: None,
            gap_ms: None,
            wire_bytes: None,
            throughput_gib_s: None,
            cpu_s: CpuSeconds::default(),
            cpu_s_per_gib: None,
            verified: Check::Off,
        }
    }

    /// One of our own engine.
    pub(crate) fn ours(round: u32, run: &Run) -> Self {
        let gaps = [run.downtime_ms.guest, run.stall_max_ms];
        Self {
            round,
            outcome: run.outcome,
            error: run.error.clone(),
            total_ms: run.total_ms,
            running_ms: run.total_ms,
            downtime_ms: run.downtime_ms.engine,
            gap_ms: run
                .downtime_ms
                .guest
                .and(gaps.into_iter().flatten().max_by(f64::total_cmp)),
            wire_bytes: run.wire_bytes,
            throughput_gib_s: run.throughput_gib_s,
            cpu_s: run.cpu_s,
            cpu_s_per_gib: cpu_s_per_gib(&run.cpu_s, run.guest_bytes)
                .filter(|_| run.outcome == RunOutcome::Completed),
            verified: run.verified.guest,
        }
    }
}

/// CPU seconds of both sides without the vCPUs, for each GiB of guest memory.
pub(crate) fn cpu_s_per_gib(cpu: &CpuSeconds, guest_bytes: u64) -> Option<f64> {
    Some((cpu.source + cpu.target?) / (guest_bytes as f64 / f64::from(1 << 30)))
}

impl Contender {
    /// Over all its moves; `ours` are those to compare with, none of our own.
    pub(crate) fn new(setting: String, moves: Vec<Move>, ours: Option<&[Move]>) -> Self {
        let spread = |figure: fn(&Move) -> Option<f64>| {
            Spread::of(moves.iter().filter(|it| it.is_good()).filter_map(figure))
        };
        Self {
            setting,
            total_ms: spread(|it| it.total_ms),
            running_ms: spread(|it| it.running_ms),
            downtime_ms: spread(|it| it.downtime_ms),
            gap_ms: spread(|it| it.gap_ms),
            throughput_gib_s: spread(|it| it.throughput_gib_s),
            cpu_s_per_gib: spread(|it| it.cpu_s_per_gib),
            ratios: ours.map(|ours| Ratios {
                total: ratio(ours, &moves, |it| it.total_ms),
                gap: ratio(ours, &moves, |it| it.gap_ms),
                cpu: ratio(ours, &moves, |it| it.cpu_s_per_gib),
            }),
            moves,
        }
    }
}

/// Ours ÷ theirs, round by round.
fn ratio(ours: &[Move], theirs: &[Move], figure: fn(&Move) -> Option<f64>) -> Option<Spread> {
    let good = |it: &&Move| it.is_good();
    Spread::of(theirs.iter().filter(good).filter_map(|their| {
        let our = ours
            .iter()
            .filter(good)
            .find(|our| our.round == their.round)?;
        let (our, their) = (figure(our)?, figure(their)?);
        (their > 0.0).then(|| our / their)
    }))
}

impl LandingReport {
    /// With the best setting of the rival chosen.
    pub(crate) fn new(landing: &str, ours: Vec<Move>, theirs: Vec<(String, Vec<Move>)>) -> Self {
        let theirs: Vec<Contender> = theirs
            .into_iter()
            .map(|(setting, moves)| Contender::new(setting, moves, Some(&ours)))
            .collect();
        let timed = theirs
            .iter()
            .filter_map(|it| Some((it.total_ms?.median, it)));
        let best = timed.min_by(|one, other| one.0.total_cmp(&other.0));
        Self {
            landing: landing.into(),
            best: best.map(|(_, contender)| contender.setting.clone()),
            ours: Contender::new("limosa".into(), ours, None),
            theirs,
        }
    }

    /// All of our moves of `rounds` rounds are good, and the rival has one good setting at least.
    pub(crate) fn is_good(&self, rounds: u32) -> bool {
        let ours = &self.ours.moves;
        ours.len() == rounds as usize
            && ours.iter().all(Move::is_good)
            && self.best.is_some()
            && self.theirs.iter().all(Contender::has_whole_guests)
    }
}

impl Contender {
    fn has_whole_guests(&self) -> bool {
        self.moves.iter().all(|it| it.verified != Check::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taking(round: u32, ms: f64) -> Move {
        Move {
            outcome: RunOutcome::Completed,
            error: None,
            total_ms: Some(ms),
            ..Move::failed(round, String::new())
        }
    }

    #[test]
    fn ratios_are_of_one_round() {
        let ours = vec![taking(1, 100.0), taking(2, 400.0)];
        // The failed one of round 1 has no pair; the others are compared with their own round's.
        let theirs = vec![
            ("slow".into(), vec![taking(1, 400.0), taking(2, 800.0)]),
            (
                "fast".into(),
                vec![Move::failed(1, "no".into()), taking(2, 500.0)],
            ),
        ];
        let report = LandingReport::new("fresh", ours, theirs);
        assert_eq!(report.best.as_deref(), Some("fast"));
        let total = |at: usize| report.theirs[at].ratios.as_ref().unwrap().total.unwrap();
        assert_eq!((total(0).min, total(0).max), (0.25, 0.5));
        assert_eq!((total(1).min, total(1).max), (0.8, 0.8));
        assert!(report.is_good(2) && !report.is_good(3));
    }

    #[test]
    fn a_guest_that_lost_memory_is_no_good() {
        let broken = Move {
            verified: Check::Failed,
            ..taking(1, 1.0)
        };
        let theirs = vec![("broken".into(), vec![broken])];
        let report = LandingReport::new("fresh", vec![taking(1, 2.0)], theirs);
        assert_eq!(report.best, None);
        assert!(!report.is_good(1));
    }
}
