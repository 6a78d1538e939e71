//! The same ELF file under another VMM: QEMU boots it by its PVH note and asks for a check on COM1.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use limosa_payload::protocol::{Fill, Pattern, Probe};
use limosa_payload::{GuestSpec, Serial, pvh_elf};

/// Ends QEMU whatever the test's outcome.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(kernel: &std::path::Path, accelerator: &str) -> Option<Running> {
    Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "pc",
            "-m",
            "64",
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
        ])
        .args(["-accel", accelerator, "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()
        .map(Running)
}

/// Everything that QEMU prints, as it comes.
fn listen(running: &mut Running) -> Receiver<u8> {
    let mut output = running.0.stdout.take().expect("piped");
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut byte = [0];
        while output.read(&mut byte).is_ok_and(|count| count == 1) && sender.send(byte[0]).is_ok() {
        }
    });
    receiver
}

/// The next line that begins with this letter, dots aside.
fn line(bytes: &Receiver<u8>, letter: char) -> Option<String> {
    let start = Instant::now();
    let mut text = String::new();
    while start.elapsed() < Duration::from_secs(60) {
        match bytes.recv_timeout(Duration::from_secs(1)) {
            Ok(b'\n') => {
                let found = text.trim_start_matches(['.', 'B']).to_owned();
                if found.starts_with(letter) {
                    return Some(found);
                }
                text.clear();
            }
            Ok(byte) => text.push(char::from(byte)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    None
}

fn number(line: &str) -> u64 {
    u64::from_str_radix(&line[1..17], 16).expect("a number")
}

fn boot_and_ask(probe: Probe, accelerator: &str) -> Result<(u64, u64), String> {
    let spec = GuestSpec {
        fill: Fill::Mixed,
        pattern: Pattern::HotCold,
        probe,
        working_set_bytes: 4 << 20,
        dirty_pages_per_second: 5000,
        serial: Serial::On,
        ..GuestSpec::new(48 << 20)
    };
    let file = pvh_elf(&spec.params().expect("sensible parameters")).expect("a patched file");
    let name = format!("payload-{}-{probe:?}-{accelerator}.elf", std::process::id());
    let kernel = std::env::temp_dir().join(name);
    std::fs::write(&kernel, file).expect("a scratch file");
    let outcome = (|| {
        let mut qemu = start(&kernel, accelerator).ok_or("QEMU does not start")?;
        let bytes = listen(&mut qemu);
        let fill = line(&bytes, 'F').ok_or("no fill")?;
        thread::sleep(Duration::from_millis(300));
        let mut ask = |letter: u8, answer| {
            let input = qemu.0.stdin.as_mut().ok_or("no input")?;
            input
                .write_all(&[letter])
                .and_then(|()| input.flush())
                .map_err(|_| "QEMU is gone")?;
            line(&bytes, answer).ok_or("no answer")
        };
        let verdict = ask(b'V', 'K')?;
        let gap = ask(b'G', 'G')?;
        println!(
            "{accelerator} {probe:?}: fill {} us, {} writes verified, longest gap {} us",
            number(&fill) / 1000,
            number(&verdict),
            number(&gap) / 1000
        );
        Ok((number(&verdict), number(&gap)))
    })();
    std::fs::remove_file(&kernel).expect("the scratch file");
    outcome
}

#[test]
fn qemu_boots_the_same_file() {
    if Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("SKIPPED: no qemu-system-x86_64");
        return;
    }
    for probe in Probe::ALL {
        let (writes, gap) = boot_and_ask(*probe, "kvm")
            .or_else(|why| {
                println!("kvm: {why}; emulated instead");
                boot_and_ask(*probe, "tcg")
            })
            .expect("QEMU boots it");
        assert!(writes > 100, "{probe:?}: {writes} writes");
        assert!(gap > 0);
    }
}
