//! Target memory that is populated before it listens: it is there, and guests land in it.

mod common;

use common::{MIB, Worker, kinds, resident_bytes, run, turn};
use serde_json::{Value, json};

/// What a target has resident once it listens.
fn listening_bytes(kind: &str, populated_bytes: Option<u64>) -> u64 {
    let mut target = Worker::start();
    target.order(&json!({
        "do": "listen", "endpoint": "tcp://127.0.0.1:0", "kind": kind, "backing": "anonymous",
        "io": "auto", "digest": false, "populated_bytes": populated_bytes,
    }));
    target.answer("listening");
    resident_bytes(target.id())
}

#[test]
fn it_is_there_before_anybody_can_connect() {
    let _turn = turn();
    for kind in kinds() {
        assert!(listening_bytes(kind, None) < 64 * MIB);
        assert!(listening_bytes(kind, Some(256 * MIB)) >= 256 * MIB);
    }
}

#[test]
fn guests_land_in_it_with_all_their_zeros() {
    let _turn = turn();
    for kind in kinds() {
        for backing in ["anonymous", "memfd"] {
            let done = run(&format!(
                "--populated --guest {kind} --backing {backing} --memory 64MiB --touched 60% \
                 --fill mixed --working-set 8MiB --verify --verify-digest"
            ));
            assert_eq!(done.code, Some(0), "{done:?}");
            let report = done.report();
            assert_eq!(report["config"]["populated"], Value::Bool(true));
            assert_eq!(report["runs"][0]["verified"]["digest"], "ok");
        }
    }
}
