//! One host: it boots a guest or takes one in, moves it, and measures its own side. `run` drives it by
//! lines; `source` and `target` drive it from the command line.

mod commands;
mod guest;
mod moving;

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use limosa::CancelToken;
use limosa_shim::GuestRam;
use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) use self::commands::{source, target};
use self::guest::{AnyGuest, boot, sight};
pub(crate) use self::guest::{check_guest, spec_of};
use crate::protocol::{Answer, Order};
use crate::reference;

/// Longest time to boot a guest and fill its memory.
const READY_MAX: Duration = Duration::from_secs(300);

/// What a host holds between two orders.
#[derive(Default)]
struct Host {
    guest: Option<AnyGuest>,
    ram: Option<GuestRam>,
    cancel: Arc<Mutex<CancelToken>>,
}

/// Takes orders on standard input until it ends or says so, and answers on standard output.
pub(crate) fn serve() -> Result<ExitCode> {
    // The terminal sends its interrupt to `run` and its workers alike: `run` decides what it means.
    let ignored = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ignored))?;
    }
    let mut host = Host::default();
    let orders = read_orders(Arc::clone(&host.cancel))?;
    while let Ok(order) = orders.recv() {
        if order == Order::Quit {
            break;
        }
        if let Err(error) = host.obey(order) {
            say(&Answer::Failed {
                text: format!("{error:#}"),
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads orders beside the work, so that a cancellation is heard in the midst of it.
fn read_orders(cancel: Arc<Mutex<CancelToken>>) -> Result<Receiver<Order>> {
    let (sender, orders) = channel();
    std::thread::Builder::new()
        .name("orders".into())
        .spawn(move || {
            let stop = |cancel: &Mutex<CancelToken>| {
                cancel
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .cancel();
            };
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                match serde_json::from_str(&line) {
                    Ok(Order::Cancel) => stop(&cancel),
                    Ok(order) => {
                        if sender.send(order).is_err() {
                            return;
                        }
                    }
                    Err(error) => say(&Answer::Failed {
                        text: format!("`{line}`: {error}"),
                    }),
                }
            }
            // Whoever gave the orders is gone: nothing of this host is wanted any more.
            stop(&cancel);
            let _ = sender.send(Order::Quit);
        })?;
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
    fn obey(&mut self, order: Order) -> Result<()> {
        let answer = match order {
            Order::Boot { guest } => {
                let guest = boot(&guest)?;
                guest.workload().wait_ready(READY_MAX)?;
                let guest_bytes = guest.workload().pages().ram().map().page_count().bytes();
                self.guest = Some(guest);
                Answer::Ready { guest_bytes }
            }
            Order::Listen {
                endpoint,
                kind,
                backing,
                io,
                digest,
            } => {
                self.guest = None;
                let wish = moving::Listen {
                    endpoint,
                    kind,
                    backing,
                    io,
                    digest,
                };
                let (guest, side) = moving::listen(&wish, &self.fresh_token(), |endpoint| {
                    say(&Answer::Listening { endpoint });
                })?;
                self.guest = guest;
                Answer::Landed {
                    side: Box::new(side),
                }
            }
            Order::Send { endpoint, link } => {
                let cancel = self.fresh_token();
                let guest = self.guest.as_mut().context("there is no guest to send")?;
                let side = moving::send(guest, &endpoint, &link, &cancel, &mut say)?;
                Answer::Sent {
                    side: Box::new(side),
                }
            }
            Order::Digest => Answer::Digest {
                digest: self.guest()?.workload().memory_digest()?,
            },
            Order::Check => guest::check(self.guest()?)?,
            Order::Guest => Answer::Guest {
                sight: Box::new(sight(self.guest()?)?),
            },
            Order::Sink {
                endpoint,
                streams,
                bytes,
                backing,
            } => {
                let waiting = reference::Waiting::new(&endpoint)?;
                say(&Answer::Listening {
                    endpoint: waiting.endpoint()?,
                });
                let ms = reference::sink(&waiting, streams, bytes, guest::backing(&backing))?;
                Answer::Sunk { ms }
            }
            Order::Fill { bytes, backing } => {
                let ram = reference::fresh_memory(bytes, guest::backing(&backing))?;
                reference::touch(&ram)?;
                self.ram = Some(ram);
                Answer::Ready { guest_bytes: bytes }
            }
            Order::Blast { endpoint, streams } => {
                let ram = self.ram.as_ref().context("there is no memory to send")?;
                Answer::Blasted {
                    ms: reference::blast(&endpoint, streams, ram)?,
                }
            }
            Order::Cancel | Order::Quit => bail!("an order out of place"),
        };
        say(&answer);
        Ok(())
    }

    fn guest(&self) -> Result<&AnyGuest> {
        self.guest.as_ref().context("there is no guest here")
    }

    /// A token for the work that begins now; what was cancelled before is past.
    fn fresh_token(&self) -> CancelToken {
        let fresh = CancelToken::new();
        *self.cancel.lock().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        fresh
    }
}
