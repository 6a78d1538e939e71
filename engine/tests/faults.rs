//! The embedder's guest or host fails: the source keeps the guest, and says what failed and where.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use limosa::{Custody, Stage};

use common::{
    Script, TestGuest, TestHost, assert_kept, assert_movable, listen, migrate, migrate_well, quick,
};

/// The one fault of a script that is switched on.
type Fault = fn(&Script) -> &AtomicBool;

#[test]
fn the_source_guest_fails() {
    let faults: [(&str, Fault); 2] = [
        ("pause fails by wish", |script| &script.fail_pause),
        ("export fails by wish", |script| &script.fail_export),
    ];
    for (words, fault) in faults {
        let config = quick();
        let mut listener = listen(&config);
        let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
        let script = Arc::clone(&guest.script);
        fault(&script).store(true, Ordering::SeqCst);
        let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
        let error = out.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.stage, Stage::Switchover, "{error}");
        assert_kept(&mut guest, &error);
        let inbound = landed.map(drop).unwrap_err();
        assert!(
            inbound.to_string().contains(words),
            "the target is told: {inbound}"
        );
        assert!(!host.keeps_memory());
        fault(&script).store(false, Ordering::SeqCst);
        migrate_well(&mut guest, &mut host, &mut listener, &config);
    }
}

#[test]
fn the_target_has_no_room() {
    let config = quick();
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    host.script.fail_prepare.store(true, Ordering::SeqCst);
    let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
    let error = out.unwrap_err();
    assert!(error.cause.is_refusal(), "{error}");
    assert!(
        error.to_string().contains("prepare fails by wish"),
        "{error}"
    );
    assert_kept(&mut guest, &error);
    assert_eq!(guest.script.counts().0, 0, "never paused");
    assert!(
        landed
            .map(drop)
            .unwrap_err()
            .to_string()
            .contains("prepare fails by wish")
    );
    host.script.fail_prepare.store(false, Ordering::SeqCst);
    migrate_well(&mut guest, &mut host, &mut listener, &config);
}

#[test]
fn the_state_can_not_be_restored() {
    let config = quick();
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    host.script.fail_restore.store(true, Ordering::SeqCst);
    let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
    let error = out.unwrap_err();
    assert!(
        error.to_string().contains("restore fails by wish"),
        "{error}"
    );
    assert_kept(&mut guest, &error);
    assert_eq!(guest.script.counts().0, 1, "paused and resumed once");
    assert_eq!(landed.map(drop).unwrap_err().custody, Custody::Source);
    assert!(!host.keeps_memory());
    host.script.fail_restore.store(false, Ordering::SeqCst);
    migrate_well(&mut guest, &mut host, &mut listener, &config);
}

/// It was handed over, and can't run there: neither side may let it run by itself.
#[test]
fn the_guest_can_not_run_at_the_target() {
    let config = quick();
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    host.script.fail_resume.store(true, Ordering::SeqCst);
    let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
    let (error, inbound) = (out.unwrap_err(), landed.map(drop).unwrap_err());
    assert_eq!(
        (error.custody, inbound.custody),
        (Custody::InTransit, Custody::InTransit)
    );
    assert!(
        error.to_string().contains("resume fails by wish"),
        "{error}"
    );
    assert_eq!(guest.script.counts(), (1, 0, 0));
    assert!(!guest.runs());
}

/// The guest can't go on at the source: the error says so, and also why the migration failed.
#[test]
fn the_guest_can_not_go_on_at_the_source() {
    let config = quick();
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    guest.script.fail_export.store(true, Ordering::SeqCst);
    guest.script.fail_resume.store(true, Ordering::SeqCst);
    let (out, _) = migrate(&mut guest, &mut host, &mut listener, &config);
    let text = out.unwrap_err().to_string();
    assert!(text.contains("stands still"), "{text}");
    assert!(
        text.contains("resume fails by wish") && text.contains("export fails"),
        "{text}"
    );
}

/// Making the guest takes longer than a peer may be silent: it is not taken for gone.
#[test]
fn a_slow_target_is_no_silent_one() {
    let mut config = quick();
    let prepare = &AtomicU64::new(1500);
    config.session.prepare_max = std::time::Duration::from_secs(5);
    let mut listener = listen(&config);
    let (mut guest, mut host) = (TestGuest::running(), TestHost::default());
    host.script
        .prepare_ms
        .store(prepare.load(Ordering::SeqCst), Ordering::SeqCst);
    assert!(std::time::Duration::from_millis(1500) > 2 * config.session.peer_silence_max);
    migrate_well(&mut guest, &mut host, &mut listener, &config);

    // But for longer than the source wishes to wait, it does not.
    config.session.prepare_max = std::time::Duration::from_millis(300);
    let mut guest = TestGuest::running();
    let (out, landed) = migrate(&mut guest, &mut host, &mut listener, &config);
    let error = out.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the target's verdict did not come"),
        "{error}"
    );
    assert_kept(&mut guest, &error);
    assert!(landed.is_err() && !host.keeps_memory());
    assert_movable(&mut guest);
}
