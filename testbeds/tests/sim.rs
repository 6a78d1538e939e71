//! Many seeds of every plan, and the proof that the checkers bite. `LIMOSA_SIM_SEEDS` sets how many
//! seeds; a failing one says how to play it again.

use limosa_testbeds::sim::{
    Calibration, Ending, FaultKind, Plan, Run, Sabotage, Tally, Tracing, play,
};

type Failure = Box<dyn std::error::Error>;

/// Seeds of the plan that has everything; each other plan gets an eighth of them.
const SEEDS: u64 = 200;

fn number_from(name: &str) -> Result<Option<u64>, Failure> {
    Ok(std::env::var(name)
        .ok()
        .map(|text| text.parse())
        .transpose()?)
}

fn describe(plan: &Plan, seed: u64, run: &Run) -> String {
    let violations: Vec<_> = run.violations.iter().map(ToString::to_string).collect();
    format!(
        "plan {0}, seed {seed}: {1:?}\n{2:?}\n  {3}\n  replay: LIMOSA_SIM_PLAN={0} \
         LIMOSA_SIM_SEED={seed} cargo test -p limosa-testbeds --test sim replay -- --nocapture",
        plan.name,
        run.endings,
        run.faults,
        violations.join("\n  "),
    )
}

/// Plays seeds of a plan; the first that breaks a rule ends it.
fn play_seeds(plan: &Plan, seeds: u64) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in 0..seeds {
        let run = play(plan, seed, Sabotage::None, Tracing::Off)?;
        if !run.violations.is_empty() {
            return Err(describe(plan, seed, &run).into());
        }
        tally.add(&run);
    }
    Ok(tally)
}

#[test]
fn every_seed_keeps_the_rules() -> Result<(), Failure> {
    let seeds = number_from("LIMOSA_SIM_SEEDS")?.unwrap_or(SEEDS);
    let mut all = Tally::default();
    for plan in Plan::all()? {
        let share = if plan.name == "storm" {
            seeds
        } else {
            seeds.div_ceil(8)
        };
        let began = std::time::Instant::now();
        let tally = play_seeds(&plan, share)?;
        println!(
            "{}: {share} seeds in {:?}\n{tally}",
            plan.name,
            began.elapsed()
        );
        all.merge(&tally);
    }
    println!("all plans\n{all}");
    if seeds >= SEEDS {
        for ending in Ending::ALL {
            assert!(
                all.endings.contains_key(&ending),
                "no attempt ended in {ending:?}"
            );
        }
        for kind in FaultKind::ALL {
            assert!(all.faults.contains_key(&kind), "{kind:?} never took effect");
        }
    }
    Ok(())
}

#[test]
fn nothing_keeps_a_calm_migration_from_completing() -> Result<(), Failure> {
    let tally = play_seeds(&Plan::named("calm")?, 20)?;
    let endings: Vec<_> = tally.endings.keys().collect();
    assert_eq!(endings, [&Ending::Completed]);
    Ok(())
}

#[test]
fn the_same_seed_plays_the_same_run() -> Result<(), Failure> {
    for plan in Plan::all()? {
        for seed in [1, 2] {
            let first = play(&plan, seed, Sabotage::None, Tracing::On)?;
            let second = play(&plan, seed, Sabotage::None, Tracing::On)?;
            assert!(first.trace.len() > 10);
            assert_eq!(first.trace, second.trace, "plan {}, seed {seed}", plan.name);
            assert_eq!(first.took, second.took);
        }
    }
    Ok(())
}

/// Nine of ten forecasts are meant to hold; over all plans more than 85 of 100 do.
#[test]
fn forecasts_hold() -> Result<(), Failure> {
    let mut all = Tally::default();
    for plan in ["calm", "busy", "zeros", "retries", "throttled", "limited"] {
        let tally = play_seeds(&Plan::named(plan)?, 40)?;
        println!("{plan}\n{tally}");
        all.merge(&tally);
    }
    let Calibration { left, downtime } = all.calibration;
    println!("time left: {left}; downtime: {downtime}");
    assert!(left.told > 200, "{left}");
    assert!(left.percent() >= 85, "{left}");
    assert!(downtime.percent() >= 85, "{downtime}");
    Ok(())
}

/// Guests that write too fast are held back until they fit, and always let go again.
#[test]
fn a_guest_that_is_held_back_completes() -> Result<(), Failure> {
    for plan in ["throttled", "limited"] {
        let tally = play_seeds(&Plan::named(plan)?, 30)?;
        let completed = tally.endings.get(&Ending::Completed).copied();
        let stalled = tally.endings.get(&Ending::NotConverging).copied();
        println!("{plan}\n{tally}");
        assert!(
            completed > stalled.map(|count| 4 * count),
            "{plan}\n{tally}"
        );
    }
    Ok(())
}

/// A planted bug, the plan that brings it to light, and the checker that must name it.
const PLANTED: [(Sabotage, &str, &str); 11] = [
    (Sabotage::ClearsAfterCopy, "calm", "memory"),
    (Sabotage::WritesUnseen, "calm", "memory"),
    (Sabotage::WritesWhilePaused, "calm", "memory"),
    (Sabotage::LosesPages, "calm", "memory"),
    (Sabotage::BlindLedger, "tampered", "ledger"),
    (Sabotage::ResumesInTransit, "hand-over", "custody"),
    (Sabotage::NeverLetsGo, "calm", "custody"),
    (Sabotage::StartsEarly, "calm", "custody"),
    (Sabotage::ForgetsToResume, "retries", "custody"),
    (Sabotage::TrustsVerdict, "unlike", "agreement"),
    (Sabotage::TrustsHost, "unlike", "agreement"),
];

#[test]
fn planted_bugs_are_found() -> Result<(), Failure> {
    const WITHIN_SEEDS: u64 = 60;
    for (sabotage, plan, checker) in PLANTED {
        let plan = Plan::named(plan)?;
        let mut found = None;
        for seed in 0..WITHIN_SEEDS {
            let run = play(&plan, seed, sabotage, Tracing::Off)?;
            if run
                .violations
                .iter()
                .any(|violation| violation.checker == checker)
            {
                found = Some(seed);
                break;
            }
        }
        let seed = found.ok_or_else(|| format!("{sabotage:?} was not found by {checker}"))?;
        println!(
            "{sabotage:?} found by {checker} at seed {seed} of {}",
            plan.name
        );
    }
    assert_eq!(PLANTED.map(|(sabotage, ..)| sabotage), Sabotage::ALL);
    Ok(())
}

#[test]
fn replay() -> Result<(), Failure> {
    let Some(seed) = number_from("LIMOSA_SIM_SEED")? else {
        println!("SKIPPED: set LIMOSA_SIM_SEED, and LIMOSA_SIM_PLAN, to see a run");
        return Ok(());
    };
    let plan = std::env::var("LIMOSA_SIM_PLAN").unwrap_or_else(|_| "storm".into());
    let plan = Plan::named(&plan)?;
    let run = play(&plan, seed, Sabotage::None, Tracing::On)?;
    run.trace.iter().for_each(|line| println!("{line}"));
    println!("{}", describe(&plan, seed, &run));
    assert!(run.violations.is_empty(), "a rule is broken");
    Ok(())
}
