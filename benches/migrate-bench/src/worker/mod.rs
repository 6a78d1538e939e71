//! One host: it boots a guest or takes one in, moves it, and measures its own side. `run` drives it
//! by lines; `source` and `target` drive it from the command line.

mod commands;
mod cpu;
mod guest;
mod moving;
mod steer;

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use limosa::CancelToken;
use limosa_shim::GuestRam;
use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) use self::commands::{source, target};
pub(crate) use self::cpu::READS_ANOTHER;
use self::guest::{AnyGuest, boot, sight};
pub(crate) use self::guest::{check_guest, spec_of};
pub(crate) use self::moving::ENTERED;
use crate::protocol::{Answer, Order};
use crate::reference;
use crate::refusal::NotStarted;

/// Longest time to boot a guest and fill its memory.
const READY_MAX: Duration = Duration::from_secs(300);

/// Longest time to end what is under way when no more orders come.
const QUIT_MAX: Duration = Duration::from_secs(1);

/// What a host holds between two orders.
#[derive(Default)]
struct Host {
    guest: Option<AnyGuest>,
    ram: Option<GuestRam>,
}

/// Takes orders on standard input until it ends or says so, and answers on standard output.
pub(crate) fn serve() -> Result<ExitCode> {
    // The terminal sends its interrupt to `run` and its workers alike: `run` decides what it
    // means.
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ignored))?;
    }
    let mut host = Host::default();
    let orders = read_orders()?;
    while let Ok((order, cancel)) = orders.recv() {
        if order == Order::Quit {
            break;
        }
        if let Err(error) = host.obey(order, &cancel) {
            say(&match error.downcast::<NotStarted>() {
                Ok(NotStarted(text)) => Answer::NotStarted { text },
                Err(error) => Answer::Failed {
                    text: crate::in_one_line(&error),
                },
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads orders beside the work, so that a cancellation is heard in the midst of it. Each move has
/// a token of its own from the moment that it is read: it can be cancelled before it has begun.
fn read_orders() -> Result<Receiver<(Order, CancelToken)>> {
    let (sender, orders) = channel();
    let read = move || {
        let mut cancel = CancelToken::new();
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str(&line) {
                Ok(Order::Cancel) => cancel.cancel(),
                Ok(Order::Quit) => break,
                Ok(order) => {
                    if matches!(order, Order::Send { .. } | Order::Listen { .. }) {
                        cancel = CancelToken::new();
                    }
                    if sender.send((order, cancel.clone())).is_err() {
                        return;
                    }
                }
                Err(error) => say(&Answer::Failed {
                    text: format!("`{line}`: {error}"),
                }),
            }
        }
        // Whoever gave the orders is gone: nothing of this host is wanted any more, and not
        // everything that it may be doing can be cancelled.
        cancel.cancel();
        let _ = sender.send((Order::Quit, cancel));
        std::thread::sleep(QUIT_MAX);
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("orders".into())
        .spawn(read)?;
    Ok(orders)
}

/// One answer, one line.
fn say(answer: &Answer) {
    let mut out = std::io::stdout().lock();
    if let Ok(mut line) = serde_json::to_string(answer) {
        line.push('\n');
        // Without a listener there is nobody to be told.
        let _ = out.write_all(line.as_bytes());
        let _ = out.flush();
    }
}

impl Host {
    fn obey(&mut self, order: Order, cancel: &CancelToken) -> Result<()> {
        let answer = match order {
            Order::Boot { guest: order } => {
                let guest = boot(&order)?;
                guest.workload().wait_ready(READY_MAX)?;
                let guest_bytes = guest.workload().pages().ram().map().page_count().bytes();
                let cpu = Some(cpu::facts(&guest, &order.cpu)?);
                self.guest = Some(guest);
                Answer::Ready { guest_bytes, cpu }
            }
            Order::Listen {
                endpoint,
                kind,
                backing,
                tracking,
                io,
                staging,
                digest,
                memory_bytes_max,
                populated_bytes,
                room_bytes,
                pretend,
            } => {
                self.guest = None;
                let wish = moving::Listen {
                    endpoint,
                    kind,
                    backing,
                    tracking,
                    io,
                    staging,
                    digest,
                    memory_bytes_max,
                    populated_bytes,
                    room_bytes,
                    pretend: pretend.map(|host| host.0),
                };
                self.take_in(&wish, cancel)?
            }
            Order::Send { endpoint, link } => {
                let guest = self.guest.as_mut().context("there is no guest to send")?;
                let side = moving::send(guest, &endpoint, &link, &cancel.clone().into(), &mut say)?;
                Answer::Sent {
                    side: Box::new(side),
                }
            }
            Order::Digest => Answer::Digest {
                digest: self.guest()?.workload().memory_digest()?,
            },
            Order::Check => {
                let checked = guest::check(self.guest()?)?;
                Answer::Checked {
                    ok: checked.ok,
                    detail: checked.detail,
                    processor: checked.processor,
                }
            }
            Order::Guest => Answer::Guest {
                sight: Box::new(sight(self.guest()?)?),
            },
            Order::Sink { .. } | Order::Fill { .. } | Order::Blast { .. } | Order::Speeds => {
                self.obey_for_reference(order)?
            }
            Order::Cancel | Order::Quit => bail!("an order out of place"),
        };
        say(&answer);
        Ok(())
    }

    fn take_in(&mut self, wish: &moving::Listen, cancel: &CancelToken) -> Result<Answer> {
        let (guest, side) = moving::listen(wish, cancel, |endpoint| {
            say(&Answer::Listening { endpoint });
        })?;
        self.guest = guest;
        Ok(Answer::Landed {
            side: Box::new(side),
        })
    }

    /// What the bare-socket reference asks for.
    fn obey_for_reference(&mut self, order: Order) -> Result<Answer> {
        Ok(match order {
            Order::Sink {
                endpoint,
                streams,
                bytes,
                backing,
                populate,
                settings,
            } => {
                let waiting = reference::Waiting::new(&endpoint, &settings)?;
                let memory = reference::fresh_memory(bytes, guest::backing(&backing))?;
                if populate {
                    memory.populate_all()?;
                }
                say(&Answer::Listening {
                    endpoint: waiting.endpoint()?,
                });
                let sink = reference::Sink {
                    waiting: &waiting,
                    streams,
                    memory: &memory,
                    settings: &settings,
                };
                Answer::Sunk {
                    ms: sink.take_in()?,
                }
            }
            Order::Fill { bytes, backing } => {
                let ram = reference::fresh_memory(bytes, guest::backing(&backing))?;
                reference::touch(&ram)?;
                self.ram = Some(ram);
                Answer::Ready {
                    guest_bytes: bytes,
                    cpu: None,
                }
            }
            Order::Blast {
                endpoint,
                streams,
                settings,
            } => {
                let ram = self.ram.as_ref().context("there is no memory to send")?;
                Answer::Blasted {
                    ms: reference::blast(&endpoint, streams, ram, &settings)?,
                }
            }
            Order::Speeds => Answer::Speeds {
                speeds: reference::speeds()?,
            },
            _ => bail!("an order out of place"),
        })
    }

    fn guest(&self) -> Result<&AnyGuest> {
        self.guest.as_ref().context("there is no guest here")
    }
}
