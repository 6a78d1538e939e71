//! One busy guest goes back and forth a hundred times, and is exact at the end.

mod common;

use std::time::Duration;

use common::{kinds, run, turn};

#[test]
fn a_hundred_moves_lose_nothing() {
    let _turn = turn();
    for kind in kinds() {
        let done = run(&format!(
            "--guest {kind} --hops 100 --memory 64MiB --working-set 16MiB --dirty-rate 50MiB/s \
             --verify"
        ));
        assert_eq!(done.code, Some(0), "{done:?}");
        let run = done.first_run();
        assert_eq!(run["hops"], 100);
        assert_eq!(run["verified"]["guest"], "ok", "{run}");
        assert!(
            done.elapsed < Duration::from_secs(60),
            "{kind}: {:?}",
            done.elapsed
        );
        eprintln!("{kind}: a hundred moves took {:?}", done.elapsed);
    }
}
