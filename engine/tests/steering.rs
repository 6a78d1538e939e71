//! What an operator does to a migration that runs, and what is done to a guest that is too busy.

mod common;

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::time::Duration;

use common::{TestGuest, TestHost, listen, migrate_watched, pattern, quick};
use limosa::{
    CancelToken, Event, MigrationConfig, Moment, OnStall, RestStep, Round, RoundKind, Slowdown,
    SourceReport, Steering, Terms,
};

/// The number of a round that was sent while the guest ran; none of other moments.
fn live_round(moment: &Moment, last: &mut Option<RoundKind>) -> Option<u32> {
    match moment {
        Moment::Session(Event::RoundStarted(plan)) => {
            *last = Some(plan.kind);
            None
        }
        Moment::Session(Event::RoundSent(report)) if *last != Some(RoundKind::Final) => {
            Some(report.round.get())
        }
        _ => None,
    }
}

/// Migrates a guest that after each of its first `busy_rounds` rounds has written nearly all its
/// memory, unless it is held back.
fn migrate_busy(
    config: &MigrationConfig,
    busy_rounds: u32,
    mut watch: impl FnMut(&Moment),
) -> (SourceReport, TestGuest) {
    let mut listener = listen(config);
    let mut guest = TestGuest::running();
    let (memory, slowed) = (guest.memory.clone(), guest.script.clone());
    let (mut seed, mut kind) = (1, None);
    let mut observer = |moment: &Moment| {
        if let Some(round) = live_round(moment, &mut kind)
            && round < busy_rounds
            && slowed.slowdown() == Slowdown::None
        {
            seed += 2;
            let page = pattern(seed);
            let pages = (300..1000).chain(1600..3600);
            pages.for_each(|number| memory.write(number, &page));
        }
        watch(moment);
    };
    let (out, landed) = migrate_watched(
        &mut guest,
        &mut TestHost::default(),
        &mut listener,
        config,
        &CancelToken::new(),
        &mut observer,
    );
    let (report, arrived) = (out.unwrap(), landed.unwrap().guest);
    assert_eq!(guest.memory.first_difference(&arrived.memory), None);
    (report, guest)
}

/// A budget that no pause of this guest's fits.
fn tight(on_stall: OnStall) -> MigrationConfig {
    let mut config = quick();
    config.session.downtime_max = Duration::from_millis(1);
    config.session.on_stall = on_stall;
    config
}

#[test]
fn a_guest_that_is_too_busy_is_held_back_and_let_go() {
    for policy in [OnStall::Throttle, OnStall::Limit] {
        // So that what is written never fits the budget, however fast this machine is.
        let config = tight(policy);
        config.steering.set_bandwidth(NonZeroU64::new(400 << 20));
        let mut told = Vec::new();
        let (report, guest) = migrate_busy(&config, u32::MAX, |moment| {
            if let Moment::Session(Event::Slowed(slowdown)) = moment {
                told.push(*slowdown);
            }
        });
        assert_eq!(report.stalled, Some(policy));
        let orders = guest.script.slowdowns.lock().unwrap().clone();
        let is_asked = |slowdown: &Slowdown| match policy {
            OnStall::Throttle => matches!(slowdown, Slowdown::DutyCycle { .. }),
            _ => matches!(slowdown, Slowdown::DirtyLimit { .. }),
        };
        assert!(orders.first().is_some_and(is_asked), "{orders:?}");
        // The pause lets it go; nobody has to say so.
        assert_eq!(told.last(), Some(&Slowdown::None));
        assert_eq!(told[..told.len() - 1], orders[..]);
        let reported: Vec<_> = report.slowed.iter().map(|slowed| slowed.slowdown).collect();
        assert_eq!(reported, told);
    }
}

#[test]
fn a_guest_that_cannot_be_held_back_stays_and_says_so() {
    let config = tight(OnStall::Throttle);
    config.steering.set_bandwidth(NonZeroU64::new(400 << 20));
    let mut listener = listen(&config);
    let mut guest = TestGuest::running();
    guest.script.refuse_slowdowns();
    let memory = guest.memory.clone();
    let mut seed = 1;
    let mut observer = |moment: &Moment| {
        if matches!(moment, Moment::Session(Event::RoundSent(_))) {
            seed += 2;
            let page = pattern(seed);
            (1600..3600).for_each(|number| memory.write(number, &page));
        }
    };
    let (out, _) = migrate_watched(
        &mut guest,
        &mut TestHost::default(),
        &mut listener,
        &config,
        &CancelToken::new(),
        &mut observer,
    );
    let error = out.unwrap_err().to_string();
    assert!(error.contains("held back"), "{error}");
    assert!(guest.runs());
}

#[test]
fn streams_keep_to_the_bandwidth_while_the_guest_runs() {
    let config = quick();
    let rate = 8 << 20;
    config.steering.set_bandwidth(NonZeroU64::new(rate));
    let (report, _) = migrate_busy(&config, 0, |_| {});
    let first = &report.rounds[0];
    let shortest = first.wire_bytes as f64 / rate as f64;
    // A burst and the frames of all streams may be ahead.
    assert!(first.elapsed.as_secs_f64() > 0.5 * shortest, "{first:?}");
}

/// Lets the migration rest from the middle of the first round on, until `resume`.
#[test]
fn a_rest_sends_nothing_and_ends_by_word() {
    let mut config = quick();
    config.session.on_stall = OnStall::Stop;
    let steering = config.steering.clone();
    let rests = Mutex::new(Vec::new());
    let resume_later = |steering: Steering| {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(900));
            assert!(steering.is_paused());
            steering.resume();
        })
    };
    let mut waker = None;
    let (report, _) = migrate_busy(&config, 0, |moment| match moment {
        // The rest is longer than any wait that either side bears in silence.
        Moment::Session(Event::RoundSent(round)) if round.round == Round::FIRST => {
            steering.pause();
            waker = Some(resume_later(steering.clone()));
        }
        Moment::Rest { step, .. } => rests.lock().unwrap().push(*step),
        _ => {}
    });
    waker.unwrap().join().unwrap();
    assert_eq!(*rests.lock().unwrap(), [RestStep::Begins, RestStep::Ends]);
    assert!(
        report.rested >= Duration::from_millis(900),
        "{:?}",
        report.rested
    );
    assert!(report.elapsed >= report.rested);
    assert!(report.switchover.total < Duration::from_millis(900));
}

#[test]
fn a_migration_that_rests_can_be_cancelled() {
    let config = quick();
    config.steering.pause();
    let cancel = CancelToken::new();
    let mut listener = listen(&config);
    let mut guest = TestGuest::running();
    let mut observer = |moment: &Moment| {
        if matches!(
            moment,
            Moment::Rest {
                step: RestStep::Begins,
                ..
            }
        ) {
            cancel.cancel();
        }
    };
    let (out, _) = migrate_watched(
        &mut guest,
        &mut TestHost::default(),
        &mut listener,
        &config,
        &cancel,
        &mut observer,
    );
    assert!(out.unwrap_err().cause.is_cancelled());
    assert!(guest.runs());
}

/// Nothing fits the first budget; with another one the guest is paused.
#[test]
fn another_budget_holds_from_the_next_decision_on() {
    let config = tight(OnStall::Throttle);
    let steering = config.steering.clone();
    let (report, _) = migrate_busy(&config, 3, |moment| {
        if matches!(moment, Moment::Session(Event::RoundStarted(plan)) if plan.round.get() == 1) {
            steering.set_terms(Terms {
                downtime_max: Duration::from_secs(10),
                on_stall: OnStall::Fail,
            });
        }
    });
    assert_eq!(report.stalled, None);
    assert!(report.rounds.len() <= 4, "{:?}", report.rounds.len());
}

/// Pages that are written in every round wait for the end; those that are not don't.
#[test]
fn what_is_written_again_and_again_is_sent_late() {
    let mut config = quick();
    config.session.downtime_max = Duration::from_millis(250);
    config.steering.set_bandwidth(NonZeroU64::new(20 << 20));
    let mut listener = listen(&config);
    let mut guest = TestGuest::running();
    let memory = guest.memory.clone();
    let (mut seed, mut kind) = (1, None);
    let mut observer = |moment: &Moment| {
        if let Some(round) = live_round(moment, &mut kind) {
            seed += 2;
            let page = pattern(seed);
            // One chunk each time, and fewer and fewer pages of the others.
            (2048..2560).for_each(|number| memory.write(number, &page));
            let count = 170 >> (2 * round).min(7);
            for first in [0, 512, 1600, 2560, 3072] {
                (first..first + count).for_each(|number| memory.write(number, &page));
            }
        }
    };
    let (out, landed) = migrate_watched(
        &mut guest,
        &mut TestHost::default(),
        &mut listener,
        &config,
        &CancelToken::new(),
        &mut observer,
    );
    let (report, arrived) = (out.unwrap(), landed.unwrap().guest);
    assert_eq!(guest.memory.first_difference(&arrived.memory), None);
    let held: Vec<_> = report.rounds.iter().map(|round| round.held_pages).collect();
    assert!(held.contains(&512), "{held:?}");
    // Whatever was held back was sent in the end: memory is equal.
    assert_eq!(held.first(), Some(&0));
    assert_eq!(held.last(), Some(&0));
}
