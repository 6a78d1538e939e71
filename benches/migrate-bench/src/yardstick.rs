//! Bare sockets and memory beside each run of a command, and how the runs compare to them.

use anyhow::Result;

use crate::args::Transport;
use crate::reference::{SocketSettings, SpeedSamples};
use crate::report::{Reference, Run, RunOutcome, SplicedReference, Spread};
use crate::run::{Bench, gib_s};

/// Most bytes that sockets carry: beyond it a rate is a rate, and memory is better left to the
/// guest.
const BYTES_MAX: u64 = 2 << 30;

/// The references of one command.
pub(crate) struct Yardstick {
    settings: SocketSettings,
    /// What sockets carry: as much as the first guest held besides zeros.
    bytes: Option<u64>,
    total_ms: Vec<f64>,
    spliced_ms: Vec<f64>,
    /// Their time ÷ ours, run by run.
    spliced_ratios: Vec<f64>,
    speeds: SpeedSamples,
}

impl Yardstick {
    /// Nothing is measured yet.
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            settings: SocketSettings::best(transport),
            bytes: None,
            total_ms: Vec::new(),
            spliced_ms: Vec::new(),
            spliced_ratios: Vec::new(),
            speeds: SpeedSamples::default(),
        }
    }

    /// Measures beside `run`, which has just ended, over the link that it had; nothing where it
    /// did not complete, or had nothing to move.
    ///
    /// # Errors
    /// What the sockets could not do, and interruption.
    pub(crate) fn measure_beside(&mut self, run: &mut Run, bench: &mut Bench) -> Result<()> {
        let content = run.content_bytes.filter(|bytes| *bytes > 0);
        let (Some(content), Some(total_ms)) = (content, run.total_ms) else {
            return Ok(());
        };
        let bytes = *self.bytes.get_or_insert(content.min(BYTES_MAX));
        let ratio = |ms: f64| ms * content as f64 / bytes as f64 / total_ms;
        let ms = bench.carry(bytes, &self.settings, Some(&mut self.speeds))?;
        self.total_ms.push(ms);
        run.ratio_to_sockets = Some(ratio(ms));
        if bench.link_facts().is_none() {
            // A shaped link is slower than any copy.
            let ms = bench.carry(bytes, &self.settings.clone().spliced(), None)?;
            self.spliced_ms.push(ms);
            self.spliced_ratios.push(ratio(ms));
        }
        Ok(())
    }

    /// The references' figures beside those of `runs`; none where nothing was measured.
    pub(crate) fn report(self, streams: u16, runs: &[Run]) -> Option<Reference> {
        let bytes = self.bytes?;
        let throughput_gib_s = Spread::of(self.total_ms.iter().map(|ms| gib_s(bytes, *ms)))?;
        let completed = runs
            .iter()
            .filter(|run| run.outcome == RunOutcome::Completed);
        let ratios: Vec<f64> = completed.filter_map(|run| run.ratio_to_sockets).collect();
        let spliced = self.spliced(bytes);
        Some(Reference {
            what: "bare sockets between two processes after each run, carrying what the guest \
                   held besides zeros, over the same link into memory of the same kind"
                .into(),
            bytes,
            streams,
            throughput_gib_s,
            settings: self.settings,
            time_ratio: Spread::of(ratios.iter().map(|ratio| 1.0 / ratio)),
            ratio_to_sockets: Spread::of(ratios),
            spliced,
            memory: self.speeds.spread(),
            total_ms: self.total_ms,
        })
    }

    fn spliced(&self, bytes: u64) -> Option<SplicedReference> {
        Some(SplicedReference {
            total_ms: self.spliced_ms.clone(),
            throughput_gib_s: Spread::of(self.spliced_ms.iter().map(|ms| gib_s(bytes, *ms)))?,
            ratio_to_sockets: Spread::of(self.spliced_ratios.iter().copied())?,
        })
    }
}
