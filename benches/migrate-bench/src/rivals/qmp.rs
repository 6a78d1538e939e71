//! QEMU's machine protocol: one JSON object a line. It knows no migration.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::lines::{Lines, Patience};

/// An event and when it came.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
    pub(crate) at: Instant,
}

/// A connection that has been greeted and may give commands.
#[derive(Debug)]
pub(crate) struct Qmp {
    lines: Lines,
    events: VecDeque<Event>,
}

/// Longest time for the answer to a command; none here waits for a migration.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(30);

impl Qmp {
    /// Takes the greeting, which QEMU sends once it is there, and answers it.
    pub(crate) fn greet(mut lines: Lines, patience: Patience<'_>) -> Result<Self> {
        let greeting = lines.next(patience)?.context("no greeting in time")?;
        let greeting: Value = serde_json::from_slice(&greeting).context("the greeting")?;
        if greeting.get("QMP").is_none() {
            bail!("`{greeting}` is no greeting of QMP");
        }
        let mut qmp = Self {
            lines,
            events: VecDeque::new(),
        };
        qmp.call("qmp_capabilities", &json!({}), patience)?;
        Ok(qmp)
    }

    /// Gives a command and waits for its answer; events in between are kept.
    pub(crate) fn call(&mut self, name: &str, with: &Value, until: Patience<'_>) -> Result<Value> {
        let mut order = serde_json::to_vec(&json!({ "execute": name, "arguments": with }))?;
        order.push(b'\n');
        self.lines
            .send(&order)
            .with_context(|| format!("QEMU can't be told to {name}"))?;
        loop {
            let mut answer = self
                .next(until)
                .with_context(|| format!("waiting for QEMU's answer to {name}"))?
                .with_context(|| format!("QEMU did not answer {name} in time"))?;
            if let Some(error) = answer.get("error") {
                let text = error["desc"].as_str().unwrap_or("it did not say why");
                bail!("QEMU refuses {name}: {text}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            self.keep(answer);
        }
    }

    /// The next event, kept or new; none when time is up.
    pub(crate) fn event(&mut self, until: Patience<'_>) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.next(until).context("waiting for an event of QEMU")? {
                Some(message) => self.keep(message),
                None => return Ok(None),
            }
        }
    }

    fn next(&mut self, until: Patience<'_>) -> Result<Option<Value>> {
        let Some(line) = self.lines.next(until)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&line);
        Ok(Some(serde_json::from_str(&text).with_context(|| {
            format!("`{text}` is no message of QMP")
        })?))
    }

    fn keep(&mut self, mut message: Value) {
        if let Some(name) = message["event"].as_str().map(str::to_owned) {
            self.events.push_back(Event {
                name,
                data: message["data"].take(),
                at: Instant::now(),
            });
        }
    }
}
