//! The bytes of one message and one frame of each kind, as they are kept in `fuzz/corpus`. It fails
//! when the protocol changes and its version does not; what the bytes mean is tested elsewhere.
//!
//! `LIMOSA_CORPUS=write` writes the files anew: right only together with a new version, or before
//! the first one was given out.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use common::{Frame, decode_message, frame_examples, message_examples};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn examples() -> Vec<(String, Vec<u8>)> {
    let messages = message_examples().into_iter().map(|(name, message)| {
        (
            format!("message-{name}.bin"),
            message.encode().expect("an example keeps every bound"),
        )
    });
    let frames = frame_examples();
    let frames = frames
        .into_iter()
        .map(|(name, bytes)| (format!("frame-{name}.bin"), bytes));
    messages.chain(frames).collect()
}

#[test]
fn the_protocol_still_has_the_bytes_that_it_had() {
    if env::var("LIMOSA_CORPUS").is_ok_and(|wish| wish == "write") {
        for (name, bytes) in examples() {
            fs::write(corpus().join(name), bytes).expect("the corpus can be written");
        }
    }
    for (name, bytes) in examples() {
        let kept = fs::read(corpus().join(&name)).expect("each example has a file in fuzz/corpus");
        assert_eq!(kept, bytes, "{name} is written in other bytes than before");
    }
}

#[test]
fn every_kept_file_is_an_example() {
    let names: BTreeSet<String> = examples().into_iter().map(|(name, _)| name).collect();
    for entry in fs::read_dir(corpus()).expect("there is a corpus") {
        let path = entry.expect("the corpus can be listed").path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.expect("a file has a name");
        assert!(names.contains(&name), "{name} is no example any more");
        let bytes = fs::read(&path).expect("a kept file can be read");
        let is_read = match name.starts_with("message-") {
            true => decode_message(&bytes).is_some_and(|decoded| decoded.is_ok()),
            false => Frame::decode(&bytes).is_some_and(|decoded| decoded.is_ok()),
        };
        assert!(is_read, "{name} is refused");
    }
}
