//! What an observer is told of a source: how far each round is, and the guest's own steps.

mod common;

use std::time::Duration;

use common::{TestGuest, TestHost, assert_kept, listen, migrate_watched, pattern, quick};
use limosa::{
    CancelToken, Event, GuestStep, MigrationError, Moment, Progress, Round, SourceReport,
};

/// What was told in one migration.
#[derive(Default)]
struct Told {
    progress: Vec<Progress>,
    steps: Vec<(GuestStep, Duration)>,
}

/// Pages that are written once the first round was sent.
const WRITTEN: std::ops::Range<u64> = 400..900;

/// Migrates a guest that writes between rounds; `token` is used as soon as it stands still, if
/// at all.
fn watch(cancel: Option<&CancelToken>) -> (Told, Result<SourceReport, MigrationError>, TestGuest) {
    let config = quick();
    let mut listener = listen(&config);
    let mut guest = TestGuest::running();
    let memory = guest.memory.clone();
    let mut told = Told::default();
    let mut observer = |moment: &Moment| match moment {
        Moment::Progress(progress) => told.progress.push(*progress),
        Moment::Guest { step, elapsed } => {
            told.steps.push((*step, *elapsed));
            if let (GuestStep::Paused, Some(token)) = (step, cancel) {
                token.cancel();
            }
        }
        Moment::Session(Event::RoundSent(report)) if report.round == Round::FIRST => {
            WRITTEN.for_each(|page| memory.write(page, &pattern(3)));
        }
        Moment::Session(_) | Moment::Rest { .. } => {}
    };
    let (out, _) = migrate_watched(
        &mut guest,
        &mut TestHost::default(),
        &mut listener,
        &config,
        cancel.unwrap_or(&CancelToken::new()),
        &mut observer,
    );
    (told, out, guest)
}

#[test]
fn each_round_is_told_as_it_begins_and_as_it_ends() {
    let (told, out, _guest) = watch(None);
    let report = out.unwrap();
    for pair in told.progress.windows(2) {
        let [earlier, later] = pair else { continue };
        assert!(earlier.elapsed <= later.elapsed, "{pair:?}");
        assert!(earlier.wire_bytes <= later.wire_bytes, "{pair:?}");
    }
    let mut sent = 0;
    for round in &report.rounds {
        let own = told.progress.iter().filter(|own| own.round == round.round);
        let own: Vec<&Progress> = own.collect();
        assert!(own.len() >= 2, "round {}: {own:?}", round.round);
        // Pages that are told to be absent are not read.
        let to_read = (round.pages.total() - round.pages.absent) * 4096;
        assert!(own[0].remaining_bytes >= to_read, "{:?}", own[0]);
        assert!(
            own[0].remaining_bytes <= round.pages.total() * 4096,
            "{:?}",
            own[0]
        );
        assert_eq!(own[0].wire_bytes, sent);
        sent += round.wire_bytes;
        let last = own[own.len() - 1];
        assert_eq!((last.remaining_bytes, last.wire_bytes), (0, sent));
    }
    assert_eq!(sent, report.wire_bytes());
}

#[test]
fn the_dirty_rate_is_measured_before_the_pause() {
    let (told, out, _guest) = watch(None);
    let report = out.unwrap();
    let rates = |round: Round| {
        let own = told.progress.iter().filter(move |own| own.round == round);
        own.map(|own| (own.elapsed.as_secs_f64(), own.dirty_bytes_per_second))
    };
    assert!(rates(Round::FIRST).all(|(_, rate)| rate.is_none()));
    let bytes = WRITTEN.count() as f64 * 4096.0;
    let seconds_min = report.rounds[0].elapsed.as_secs_f64();
    for round in &report.rounds[1..] {
        for (elapsed, rate) in rates(round.round) {
            let rate = rate.unwrap();
            // A live round that follows finds nothing more.
            if round.round.get() == 1 {
                assert!(rate >= bytes / elapsed, "{rate} in {elapsed} s");
            }
            assert!(rate <= bytes / seconds_min, "{rate}, {seconds_min} s");
        }
    }
}

#[test]
fn the_steps_of_a_pause_make_the_downtime() {
    let (told, out, _guest) = watch(None);
    let switchover = out.unwrap().switchover;
    let steps = told.steps.iter().map(|(step, _)| *step);
    let in_order = [
        GuestStep::PauseAsked,
        GuestStep::Paused,
        GuestStep::RunsThere,
    ];
    assert_eq!(steps.collect::<Vec<_>>(), in_order);
    let [asked, paused, running] = [0, 1, 2].map(|index| told.steps[index].1);
    assert_eq!(paused - asked, switchover.pause);
    assert_eq!(running - asked, switchover.total);
}

#[test]
fn a_guest_that_goes_on_here_is_told() {
    let token = CancelToken::new();
    let (told, out, mut guest) = watch(Some(&token));
    assert_kept(&mut guest, &out.unwrap_err());
    let steps = told.steps.iter().map(|(step, _)| *step);
    let in_order = [
        GuestStep::PauseAsked,
        GuestStep::Paused,
        GuestStep::RunsHere,
    ];
    assert_eq!(steps.collect::<Vec<_>>(), in_order);
}
