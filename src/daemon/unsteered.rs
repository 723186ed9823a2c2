//! Steering programs that the kernel did not take (ENOMEM; net.core.optmem_max): put in again until it does.
//! Meanwhile new connections go where they went before, also to a worker that is to leave.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::supervisor::event::{Address, SocketId, Spread};
use crate::supervisor::time::Time;

use super::Daemon;

/// Before the first new attempt; each further pause is twice as long, up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(10);

/// What is still to be put in.
#[derive(Debug, Default)]
pub(super) struct Unsteered {
    groups: BTreeMap<Address, Order>,
}

#[derive(Debug)]
struct Order {
    socket: SocketId,
    active: Spread,
    pause: Duration,
    at: Time,
}

impl Unsteered {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.groups.values().map(|order| order.at).min()
    }
}

impl Daemon {
    /// Keeps an order that failed, and forgets one that a later order took the place of.
    pub(super) fn note_steered(&mut self, socket: SocketId, active: &Spread, steered: io::Result<()>) {
        let Some(address) = self.sockets.get(socket).map(|held| held.address) else { return };
        let before = self.unsteered.groups.remove(&address);
        match (steered, before) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => log::info!("{address}: new connections are steered again"),
            (Err(error), before) => {
                if before.is_none() {
                    log::error!(
                        "{address}: cannot steer new connections to positions {:?}: {error}; it is tried again",
                        active.positions()
                    );
                }
                let pause = before.map_or(PAUSE, |order| (order.pause * 2).min(LONGEST));
                let order = Order { socket, active: active.clone(), pause, at: self.now + pause };
                self.unsteered.groups.insert(address, order);
            }
        }
    }

    /// Puts in what is due. A socket that is closed has left its group, which was steered anew for that.
    pub(super) fn steer_again(&mut self) {
        let due = |order: &Order| order.at <= self.now;
        let addresses: Vec<Address> =
            self.unsteered.groups.iter().filter(|(_, order)| due(order)).map(|(a, _)| *a).collect();
        for address in addresses {
            let Some(order) = self.unsteered.groups.get(&address) else { continue };
            let (socket, active) = (order.socket, order.active.clone());
            if self.sockets.fd(socket).is_none() {
                self.unsteered.groups.remove(&address);
                continue;
            }
            self.steer(socket, &active);
        }
    }
}
