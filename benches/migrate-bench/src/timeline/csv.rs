//! Timelines as CSV: one line a sample, for tools that draw. It needs no quotes, since it holds no
//! text that anybody chose.

use std::fmt::Write;

use super::{Sample, Timeline, What};

/// The first line: names with units.
const HEADER: &str = "run,elapsed_ms,round,guest,sent_bytes,send_gib_s,dirty_pages_s,\
                      remaining_pages,run_share,dirty_limit_bytes_s,\
                      stall_ms\n";

/// The moves, numbered from 1, each with its samples.
pub(crate) fn of<'a>(timelines: impl IntoIterator<Item = &'a Timeline>) -> String {
    let mut text = String::from(HEADER);
    for (run, timeline) in (1..).zip(timelines) {
        for sample in &timeline.samples {
            push(&mut text, run, timeline, sample);
        }
    }
    text
}

fn push(text: &mut String, run: u32, timeline: &Timeline, sample: &Sample) {
    let Sample {
        ms,
        round,
        sent_bytes,
        send_gib_s,
        dirty_pages_s,
        remaining_pages,
        run_share,
        dirty_limit_bytes_s,
        stall_ms,
    } = sample;
    let guest = guest_at(timeline, *ms);
    let [send, dirty, share] = [send_gib_s, dirty_pages_s, run_share].map(|rate| shown(*rate));
    let (limit, stall) = (shown(*dirty_limit_bytes_s), shown(*stall_ms));
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "{run},{ms},{round},{guest},{sent_bytes},{send},{dirty},{remaining_pages},{share},{limit},\
         {stall}"
    );
}

/// A figure, or nothing where there is none.
fn shown(figure: Option<impl ToString>) -> String {
    figure.map_or_else(String::new, |figure| figure.to_string())
}

/// What the guest did: it is `paused` from the request until it runs again, here or there.
fn guest_at(timeline: &Timeline, ms: f64) -> &'static str {
    let is_past = |what| timeline.ms_of(what).is_some_and(|since| since <= ms);
    let resumed = is_past(What::RunsOnTarget) || is_past(What::RunsOnSource);
    if is_past(What::PauseAsked) && !resumed {
        "paused"
    } else {
        "running"
    }
}

#[cfg(test)]
mod tests {
    use super::super::TimedEvent;
    use super::*;

    fn sample(ms: f64, rate: Option<f64>) -> Sample {
        Sample {
            ms,
            round: 3,
            sent_bytes: 4096,
            send_gib_s: rate,
            dirty_pages_s: rate,
            remaining_pages: 7,
            run_share: None,
            dirty_limit_bytes_s: None,
            stall_ms: rate,
        }
    }

    #[test]
    fn a_line_a_sample() {
        let event = |ms, what| TimedEvent {
            ms,
            what,
            round: None,
        };
        let moved = Timeline {
            samples: vec![
                sample(0.5, None),
                sample(10.0, Some(2.25)),
                sample(12.0, Some(0.0)),
            ],
            events: vec![
                event(10.0, What::PauseAsked),
                event(11.0, What::Paused),
                event(12.0, What::RunsOnTarget),
            ],
        };
        let refused = Timeline::default();
        let text = of([&moved, &refused, &moved]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                HEADER.trim_end(),
                "1,0.5,3,running,4096,,,7,,,",
                "1,10,3,paused,4096,2.25,2.25,7,,,2.25",
                "1,12,3,running,4096,0,0,7,,,0",
            ]
        );
        assert_eq!(lines.len(), 7);
        assert!(lines[4].starts_with("3,0.5,"), "{}", lines[4]);
        assert!(text.ends_with('\n'));
    }
}
