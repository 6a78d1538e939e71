//! The panels of a picture, one below the other over the same time.

use anyhow::Result;
use plotters::chart::ChartContext;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::lines::{self, Bar, Point};
use super::scale::{Scale, axis_end};
use super::{Area, FONT};
use crate::timeline::{Timeline, What};
use crate::units::{show_bytes, show_ms};

/// Colours that people who see few colours can tell apart.
const SENT: RGBColor = RGBColor(0, 114, 178);
const DIRTIED: RGBColor = RGBColor(213, 94, 0);
const REMAINING: RGBColor = RGBColor(0, 128, 96);
const ROUND: RGBColor = RGBColor(86, 104, 130);
const PAUSE: RGBColor = RGBColor(190, 30, 90);
const STALL: RGBColor = RGBColor(100, 70, 160);
const HELD: RGBColor = RGBColor(150, 105, 0);

const LEFT: u32 = 74;
const RIGHT: u32 = 22;
const TEXT: u32 = 13;
/// A rate is a mean over at least this share of the time axis: what the sockets' buffers swallow
/// at once would else hide what the link does.
const WINDOWS_MAX: f64 = 120.0;
/// Height of what stands above a panel.
const STRIP: u32 = 24;
/// Most rounds that are numbered beside their bars.
const ROUND_LABELS_MAX: usize = 8;
/// Most rounds that are described beside their bars.
const DESCRIBED_MAX: usize = 7;

type Chart<'a, 't> = ChartContext<'a, SVGBackend<'t>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A move, ready to be drawn.
pub(super) struct Panels<'a> {
    timeline: &'a Timeline,
    time: Scale,
    /// Where the time axis ends, in milliseconds and in its unit.
    end_ms: f64,
    end: f64,
    pause: Option<Pause>,
}

/// The pause: its ends in the unit of the time axis.
#[derive(Clone, Copy)]
struct Pause {
    from: f64,
    to: f64,
    ms: f64,
}

impl<'a> Panels<'a> {
    pub(super) fn of(timeline: &'a Timeline) -> Self {
        let samples = timeline.samples.iter().map(|sample| sample.ms);
        let all = samples.chain(timeline.events.iter().map(|event| event.ms));
        let last_ms = all.fold(0.0, f64::max);
        let time = Scale::of_ms(last_ms);
        let resumed = [What::RunsOnTarget, What::RunsOnSource];
        let resumed = resumed.iter().find_map(|what| timeline.ms_of(*what));
        let pause = timeline.ms_of(What::PauseAsked).map(|from| {
            let to = resumed.unwrap_or(last_ms);
            Pause {
                from: time.of(from),
                to: time.of(to),
                ms: to - from,
            }
        });
        Self {
            timeline,
            time,
            end_ms: axis_end(last_ms),
            end: axis_end(time.of(last_ms)),
            pause,
        }
    }

    /// Draws all panels below each other.
    pub(super) fn draw(&self, area: &Area<'_>) -> Result<()> {
        let height = area.dim_in_pixel().1;
        let (rates, rest) = area.split_vertically(height * 34 / 100);
        let (remaining, rest) = rest.split_vertically(height * 22 / 100);
        let (guest, rounds) = rest.split_vertically(height * 18 / 100);
        self.draw_rates(&rates)?;
        self.draw_remaining(&remaining)?;
        self.draw_guest(&guest)?;
        self.draw_rounds(&rounds)
    }

    fn draw_rates(&self, area: &Area<'_>) -> Result<()> {
        let shortest_ms = self.end_ms / WINDOWS_MAX;
        let sent = lines::sent(&self.timeline.samples, shortest_ms);
        let dirtied = lines::dirtied(&self.timeline.samples);
        let limits = lines::limits(&self.timeline.samples);
        let all = sent.iter().chain(&dirtied).chain(limits.iter().flatten());
        let largest = all.map(|(_, rate)| *rate).fold(0.0, f64::max);
        let scale = Scale::of_bytes(largest);
        let top = axis_end(scale.of(largest));
        let pause = self.pause.map(|pause| show_ms(pause.ms));
        let pause = pause.map(|time| (PAUSE, format!("guest paused: {time}")));
        let known = [
            (SENT, "sent".into()),
            (DIRTIED, "dirtied by the guest".into()),
        ];
        let limited = (!limits.is_empty()).then(|| (HELD, "most that a vCPU may dirty".into()));
        let keys: Vec<Key> = known.into_iter().chain(limited).chain(pause).collect();
        let below = head(area, &format!("{}/s", scale.unit), &keys)?;
        let mut chart = self.chart(&below, (0.0, top), Axis::Bare)?;
        self.mark_pause(&mut chart, (0.0, top))?;
        self.draw_filled(&mut chart, &sent, (scale, SENT))?;
        let dirtied = self.in_units(&dirtied, scale);
        chart.draw_series(LineSeries::new(dirtied, DIRTIED.stroke_width(2)))?;
        for limit in &limits {
            let limit = self.in_units(limit, scale);
            chart.draw_series(LineSeries::new(limit, HELD.stroke_width(2)))?;
        }
        Ok(())
    }

    /// What the guest noticed, and how it was held back.
    fn draw_guest(&self, area: &Area<'_>) -> Result<()> {
        let stalls = lines::stalls(&self.timeline.samples);
        let shares = lines::run_shares(&self.timeline.samples);
        let top = axis_end(stalls.iter().map(|(_, stall)| *stall).fold(0.0, f64::max));
        let least = shares.iter().map(|(_, share)| *share).fold(1.0, f64::min);
        let share = (!shares.is_empty()).then(|| {
            let words = "share of the time that vCPUs may run (at the top all of it";
            (HELD, format!("{words}; least {:.0} %)", least * 100.0))
        });
        let keys: Vec<Key> = std::iter::once((STALL, "longest gap that a vCPU saw".into()))
            .chain(share)
            .collect();
        let below = head(area, "ms", &keys)?;
        let mut chart = self.chart(&below, (0.0, top), Axis::Bare)?;
        self.mark_pause(&mut chart, (0.0, top))?;
        let as_it_is = Scale {
            unit: "ms",
            size: 1.0,
        };
        self.draw_filled(&mut chart, &stalls, (as_it_is, STALL))?;
        let shares = shares.iter();
        let shares: Vec<Point> = shares.map(|(ms, share)| (*ms, share * top)).collect();
        let shares = self.in_units(&shares, as_it_is);
        chart.draw_series(LineSeries::new(shares, HELD.stroke_width(2)))?;
        Ok(())
    }

    fn draw_remaining(&self, area: &Area<'_>) -> Result<()> {
        let remaining = lines::remaining(&self.timeline.samples);
        let all = remaining.iter().flatten();
        let largest = all.map(|(_, bytes)| *bytes).fold(0.0, f64::max);
        let scale = Scale::of_bytes(largest);
        let top = axis_end(scale.of(largest));
        let key = (REMAINING, "still to be read in the round".into());
        let below = head(area, scale.unit, &[key])?;
        let mut chart = self.chart(&below, (0.0, top), Axis::Bare)?;
        self.mark_pause(&mut chart, (0.0, top))?;
        for round in &remaining {
            self.draw_filled(&mut chart, round, (scale, REMAINING))?;
        }
        Ok(())
    }

    fn draw_rounds(&self, area: &Area<'_>) -> Result<()> {
        let bars = lines::bars(&self.timeline.samples);
        let last = bars.last().map_or(0.0, |last| f64::from(last.round));
        // The first round on top, as one reads.
        let ends = (last + 0.5, -0.5);
        let below = head(area, "round", &[])?;
        let mut chart = self.chart(&below, ends, Axis::OfTime)?;
        self.mark_pause(&mut chart, ends)?;
        for bar in &bars {
            let y = f64::from(bar.round);
            let [from, to] = [bar.from_ms, bar.to_ms].map(|ms| self.time.of(ms));
            // A round that is too short to be seen is shown all the same.
            let corners = [(from, y - 0.3), (to.max(from + self.end * 0.002), y + 0.3)];
            chart.draw_series([
                Rectangle::new(corners, ROUND.mix(0.55).filled()),
                Rectangle::new(corners, ROUND.stroke_width(1)),
            ])?;
            if bars.len() <= DESCRIBED_MAX {
                chart.draw_series([self.describe(bar)])?;
            }
        }
        Ok(())
    }

    /// Points in the units of the axes.
    fn in_units(&self, points: &[Point], scale: Scale) -> Vec<Point> {
        let points = points.iter();
        let points = points.map(|(ms, value)| (self.time.of(*ms), scale.of(*value)));
        points.collect()
    }

    /// Draws a line, and tints what is below it.
    fn draw_filled(
        &self,
        chart: &mut Chart<'_, '_>,
        points: &[Point],
        (scale, colour): (Scale, RGBColor),
    ) -> Result<()> {
        let points = self.in_units(points, scale);
        let filled = AreaSeries::new(points, 0.0, colour.mix(0.15));
        chart.draw_series(filled.border_style(colour.stroke_width(2)))?;
        Ok(())
    }

    /// What a round sent and took, on the side of its bar where there is room.
    fn describe(&self, bar: &Bar) -> Text<'static, (f64, f64), String> {
        let took = show_ms(bar.to_ms - bar.from_ms);
        let words = format!("{} sent in {took}", show_bytes(bar.sent_bytes));
        let gap = self.end * 0.008;
        let [from, to] = [bar.from_ms, bar.to_ms].map(|ms| self.time.of(ms));
        let (x, side) = if to < self.end * 0.72 {
            (to + gap, HPos::Left)
        } else if from > self.end * 0.4 {
            (from - gap, HPos::Right)
        } else {
            (f64::midpoint(from, to), HPos::Center)
        };
        let style = text_style(BLACK).pos(Pos::new(side, VPos::Center));
        Text::new(words, (x, f64::from(bar.round)), style)
    }

    fn chart<'b, 't>(
        &self,
        area: &'b Area<'t>,
        (bottom, top): (f64, f64),
        axis: Axis,
    ) -> Result<Chart<'b, 't>> {
        let below = match axis {
            Axis::Bare => 10,
            Axis::OfTime => 48,
        };
        let mut chart = ChartBuilder::on(area)
            .margin_top(4)
            .margin_right(RIGHT)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, below)
            .build_cartesian_2d(0.0..self.end, bottom..top)?;
        let show_time = |time: &f64| match axis {
            Axis::Bare => String::new(),
            Axis::OfTime => show_number(*time),
        };
        let show_value = |value: &f64| match axis {
            // Rounds are whole.
            Axis::OfTime if value.fract() != 0.0 => String::new(),
            _ => show_number(*value),
        };
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.1))
            .axis_style(BLACK.mix(0.6))
            .label_style(text_style(BLACK))
            .axis_desc_style(text_style(BLACK))
            .x_labels(10)
            .x_label_formatter(&show_time)
            .y_label_formatter(&show_value);
        match axis {
            Axis::Bare => mesh.y_labels(5),
            Axis::OfTime => mesh
                .y_labels(((bottom - top) as usize).min(ROUND_LABELS_MAX))
                .x_desc(format!("{} since the move began", self.time.unit)),
        };
        mesh.draw()?;
        Ok(chart)
    }

    fn mark_pause(&self, chart: &mut Chart<'_, '_>, (bottom, top): (f64, f64)) -> Result<()> {
        let Some(pause) = self.pause else {
            return Ok(());
        };
        let corners = [(pause.from, bottom), (pause.to, top)];
        // The stroke shows a pause that is too short for its area to be seen.
        chart.draw_series([
            Rectangle::new(corners, PAUSE.mix(0.2).filled()),
            Rectangle::new(corners, PAUSE.mix(0.7).stroke_width(1)),
        ])?;
        Ok(())
    }
}

/// What stands below a panel.
#[derive(Clone, Copy)]
enum Axis {
    Bare,
    OfTime,
}

/// What a colour stands for.
type Key = (RGBColor, String);

/// Writes the unit of a panel's axis and its keys above it; what is left of the area is the
/// panel's.
fn head<'t>(area: &Area<'t>, unit: &str, keys: &[Key]) -> Result<Area<'t>> {
    let (strip, below) = area.split_vertically(STRIP);
    let (left, middle) = (LEFT as i32, STRIP as i32 / 2 + 2);
    let style = text_style(BLACK).pos(Pos::new(HPos::Right, VPos::Center));
    strip.draw(&Text::new(unit.to_owned(), (left - 8, middle), style))?;
    let mut x = left + 4;
    for (colour, words) in keys {
        let corners = [(x, middle - 2), (x + 16, middle + 2)];
        strip.draw(&Rectangle::new(corners, colour.filled()))?;
        let style = text_style(*colour).pos(Pos::new(HPos::Left, VPos::Center));
        let (width, _) = strip.estimate_text_size(words, &style)?;
        strip.draw(&Text::new(words.clone(), (x + 22, middle), style))?;
        x += 22 + width as i32 + 28;
    }
    Ok(below)
}

fn text_style(colour: RGBColor) -> TextStyle<'static> {
    TextStyle {
        color: colour.to_backend_color(),
        ..TextStyle::from((FONT, TEXT))
    }
}

/// A label of an axis: its grid lies at round numbers.
fn show_number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}
