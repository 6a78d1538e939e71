//! A target that goes away at the hand-over or behind it: there are never two running copies.

mod common;

use std::time::Duration;

use limosa::Custody;
use limosa_wire::{Abort, AbortReason, Message};

use common::{RawTarget, TestGuest, Until, assert_kept, attempt};

/// Once it is handed over, nobody but an operator may let the guest run at the source.
#[test]
fn after_the_hand_over_the_guest_stays_paused() {
    type Deed = fn(RawTarget);
    let ends: [(&str, Deed); 4] = [
        ("closes", |target| target.control.close()),
        ("is silent", |target| {
            target.fall_silent(Duration::from_secs(3));
        }),
        ("gives up", |mut target| {
            let (reason, text) = (AbortReason::Guest, "no".to_owned());
            target.control.say(&Message::Abort(Abort { reason, text }));
            target.fall_silent(Duration::from_secs(3));
        }),
        ("talks nonsense", |mut target| {
            target.control.bytes(&[0x55; 200]);
            target.fall_silent(Duration::from_secs(3));
        }),
    ];
    for (end, deed) in ends {
        let mut guest = TestGuest::running();
        let error = attempt(&mut guest, |listener| {
            let mut target = RawTarget::accept(listener);
            target.go(Until::HandedOver)?;
            deed(target);
            Ok(())
        });
        assert_eq!(error.custody, Custody::InTransit, "{end}: {error}");
        assert_eq!(
            guest.script.counts(),
            (1, 0, 0),
            "{end}: neither resumed nor released"
        );
        assert!(!guest.runs(), "{end}: the guest runs");
    }
}

/// A peer may vanish between its word that all is in place and the hand-over.
#[test]
fn a_target_that_goes_away_once_prepared() {
    let mut guest = TestGuest::running();
    let error = attempt(&mut guest, |listener| {
        let mut target = RawTarget::accept(listener);
        target.go(Until::PreparedSaid)
    });
    // Whether the hand-over was on its way by then is the network's business.
    match error.custody {
        Custody::Source => assert_kept(&mut guest, &error),
        custody => {
            assert_eq!(custody, Custody::InTransit);
            assert!(!guest.runs(), "{error}");
        }
    }
}
