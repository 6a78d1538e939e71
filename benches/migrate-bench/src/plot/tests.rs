//! Pictures of known moves, read as the XML that they are.

use super::*;
use crate::timeline::{Sample, TimedEvent, What};

fn sample(round: u32, ms: f64, sent_mib: u64, rates: [Option<f64>; 2], remaining: u64) -> Sample {
    let [send_gib_s, dirty_pages_s] = rates;
    Sample {
        ms,
        round,
        sent_bytes: sent_mib << 20,
        send_gib_s,
        dirty_pages_s,
        remaining_pages: remaining,
        run_share: None,
        dirty_limit_bytes_s: None,
        stall_ms: None,
    }
}

fn event(ms: f64, what: What) -> TimedEvent {
    let round = None;
    TimedEvent { ms, what, round }
}

/// 512 MiB in two rounds, and a pause from 1000 to 1200 ms.
fn timeline() -> Timeline {
    Timeline {
        samples: vec![
            sample(0, 0.0, 0, [None, None], 131_072),
            sample(0, 400.0, 256, [Some(0.625), None], 65_536),
            sample(0, 800.0, 512, [Some(0.625), None], 0),
            sample(1, 1000.0, 512, [Some(0.0), Some(25_600.0)], 5120),
            sample(1, 1100.0, 532, [Some(0.195), Some(25_600.0)], 0),
        ],
        events: vec![
            event(1000.0, What::PauseAsked),
            event(1010.0, What::Paused),
            event(1200.0, What::RunsOnTarget),
        ],
    }
}

fn picture(timeline: &Timeline) -> String {
    draw(&Picture {
        what: "a <small> guest & its link".into(),
        outcome: "total 1.20 s".into(),
        timeline,
    })
    .unwrap()
}

/// The texts of the picture.
fn texts(svg: &str) -> Vec<String> {
    let after = svg.split("<text").skip(1);
    let texts = after.map(|part| {
        let (_, text) = part.split_once('>').unwrap();
        text.split_once("</text>").unwrap().0.trim().to_owned()
    });
    texts.collect()
}

/// The number that an attribute of an element holds.
fn attribute(element: &str, name: &str) -> f64 {
    let (_, after) = element.split_once(&format!(" {name}=\"")).unwrap();
    after.split_once('"').unwrap().0.parse().unwrap()
}

#[test]
fn axes_have_units_and_lines_have_names() {
    let texts = texts(&picture(&timeline()));
    for expected in [
        "a &lt;small&gt; guest &amp; its link",
        "total 1.20 s",
        "MiB/s",
        "MiB",
        "round",
        "ms since the move began",
        "sent",
        "dirtied by the guest",
        "still to be read in the round",
        "guest paused: 200 ms",
        "512.0 MiB sent in 800 ms",
        "20.0 MiB sent in 100 ms",
    ] {
        assert!(
            texts.iter().any(|text| text == expected),
            "{expected}: {texts:?}"
        );
    }
}

#[test]
fn what_was_done_to_the_guest_is_named() {
    let mut timeline = timeline();
    let names = ["most that a vCPU may dirty", "share of the time"];
    let has = |svg: &str, name: &str| texts(svg).iter().any(|text| text.starts_with(name));
    let before = picture(&timeline);
    assert!(has(&before, "longest gap that a vCPU saw"));
    assert!(!names.iter().any(|name| has(&before, name)));
    for sample in &mut timeline.samples[3..] {
        sample.run_share = Some(0.4);
        sample.dirty_limit_bytes_s = Some(1 << 20);
    }
    let after = picture(&timeline);
    assert!(names.iter().all(|name| has(&after, name)), "{after}");
    assert!(after.contains("least 40 %"), "{after}");
}

#[test]
fn the_pause_is_where_it_was() {
    let svg = picture(&timeline());
    let colour = "opacity=\"0.2\" fill=\"#BE1E5A\"";
    let bands: Vec<&str> = svg.lines().filter(|line| line.contains(colour)).collect();
    let bands: Vec<&str> = bands
        .into_iter()
        .filter(|line| line.starts_with("<rect"))
        .collect();
    assert_eq!(bands.len(), 4, "one in each panel: {svg}");
    let width = f64::from(SIZE.0) - 74.0 - 22.0;
    let end = 1200.0 * 1.08;
    for band in bands {
        let [x, wide] = ["x", "width"].map(|name| attribute(band, name));
        assert!((x - (74.0 + width * 1000.0 / end)).abs() < 2.0, "{band}");
        assert!((wide - width * 200.0 / end).abs() < 2.0, "{band}");
    }
}

#[test]
fn long_moves_are_told_in_seconds() {
    let mut timeline = timeline();
    for sample in &mut timeline.samples {
        sample.ms *= 100.0;
    }
    let texts = texts(&picture(&timeline));
    assert!(
        texts.contains(&"s since the move began".into()),
        "{texts:?}"
    );
}

#[test]
fn a_long_title_gets_smaller_letters() {
    let size_of = |what: &str| {
        let svg = draw(&Picture {
            what: what.into(),
            outcome: String::new(),
            timeline: &timeline(),
        });
        let svg = svg.unwrap();
        let (before, _) = svg.split_once(what).unwrap();
        let (_, text) = before.rsplit_once("<text").unwrap();
        attribute(text, "font-size")
    };
    let short = size_of("a short title");
    let long = size_of(&"a guest to unix:PATH ".repeat(7));
    assert!(long < short, "{long} of {short}");
}

#[test]
fn every_round_is_seen_however_short() {
    let mut timeline = timeline();
    let last = timeline.samples.last().unwrap().clone();
    let shorts = (2..6).flat_map(|round| [0.0, 0.001].map(|later| (round, later)));
    timeline.samples.extend(shorts.map(|(round, later)| Sample {
        round,
        ms: last.ms + f64::from(round) + later,
        ..last.clone()
    }));
    let svg = picture(&timeline);
    let bars = svg.lines().filter(|line| line.starts_with("<rect"));
    let bars: Vec<f64> = bars
        .filter(|line| line.contains("fill=\"#566882\""))
        .map(|bar| attribute(bar, "width"))
        .collect();
    assert_eq!(bars.len(), 6, "{svg}");
    assert!(bars.iter().all(|width| *width >= 1.0), "{bars:?}");
}

#[test]
fn a_move_without_a_pause_is_drawn_too() {
    let mut timeline = timeline();
    timeline.events.clear();
    let texts = texts(&picture(&timeline));
    assert!(
        !texts.iter().any(|text| text.contains("paused")),
        "{texts:?}"
    );
}

#[test]
fn nothing_is_written_where_nothing_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.svg");
    write(&path, None).unwrap();
    assert!(!path.exists());
    let error = write(
        &folder.path().join("no/a.svg"),
        Some(&Picture {
            what: String::new(),
            outcome: String::new(),
            timeline: &timeline(),
        }),
    );
    let error = crate::in_one_line(&error.unwrap_err());
    assert!(
        error.contains("can't write") && error.contains("no/a.svg"),
        "{error}"
    );
}
