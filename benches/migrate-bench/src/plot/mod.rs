//! The picture of a move over time, as SVG: rates, what remained, what the guest noticed,
//! rounds, and the pause.

mod lines;
mod panels;
mod scale;
mod title;

use std::path::Path;

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

use self::panels::Panels;
pub(crate) use self::title::{of_report, of_source};
use crate::output::write_file;
use crate::timeline::Timeline;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (960, 760);
/// Height of the two lines above the panels.
const HEAD: u32 = 58;
const FONT: &str = "sans-serif";
/// Between the picture's edge and its first letters.
const EDGE: i32 = 16;
/// Smallest letters, in pixels.
const SMALLEST: u32 = 7;

type Area<'t> = DrawingArea<SVGBackend<'t>, Shift>;

/// What is drawn, and what is said above it.
pub(crate) struct Picture<'a> {
    /// What was moved, and how.
    pub(crate) what: String,
    /// What came of it.
    pub(crate) outcome: String,
    pub(crate) timeline: &'a Timeline,
}

/// Draws a picture to a file; nothing, and a word why, where no page was sent.
pub(crate) fn write(path: &Path, picture: Option<&Picture<'_>>) -> Result<()> {
    let Some(picture) = picture.filter(|picture| picture.timeline.samples.len() > 1) else {
        eprintln!("migrate-bench: nothing to plot: no page was sent");
        return Ok(());
    };
    let text = draw(picture).context("the plot")?;
    write_file(path, text)
}

/// The picture as the text of an SVG file.
fn draw(picture: &Picture<'_>) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, below) = root.split_vertically(HEAD);
        let lines = [(&picture.what, 17, 12), (&picture.outcome, 14, 36)];
        for (line, size, y) in lines {
            let style = fitting(&head, line, size)?;
            head.draw(&Text::new(line.clone(), (EDGE, y), style))?;
        }
        Panels::of(picture.timeline).draw(&below)?;
        root.present()?;
    }
    Ok(text)
}

/// The style of a line, as large as `size` and as small as it takes to fit.
fn fitting<'t>(area: &Area<'_>, line: &str, size: u32) -> Result<TextStyle<'t>> {
    let room = SIZE.0 - 2 * EDGE as u32;
    let mut style = TextStyle::from((FONT, size)).color(&BLACK);
    for smaller in (SMALLEST..size).rev() {
        if area.estimate_text_size(line, &style)?.0 <= room {
            break;
        }
        style = TextStyle::from((FONT, smaller)).color(&BLACK);
    }
    Ok(style)
}

#[cfg(test)]
mod tests;
