//! How the new connections of a group are spread over its sockets: by lot, by lot with a share for a new
//! generation, or by the client's address, whose seat has a home among the instances.
//!
//! A seat's home depends on the number of instances alone, and one whose instance is away goes to another
//! for as long: so a worker that leaves moves its own clients only, and they come back to its successor.

use std::collections::BTreeMap;

/// Seats for clients' addresses: a power of two, so that a hash can be cut to it. More instances than this
/// leave some without a client; the program must stay below the kernel's bound (`net.core.optmem_max`,
/// 20 KiB before Linux 6.7).
const SEATS: usize = 512;

/// How new connections are spread over positions of the kernel's array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Spread {
    /// Evenly by lot over these positions: in rising order, never empty.
    Evenly(Vec<u32>),
    /// By lot: so many of a hundred go to the new generation's positions, the others to the old one's.
    /// Both are in rising order and not empty.
    Share {
        /// From 1 to 99.
        percent: u8,
        /// Positions of the new generation.
        new: Vec<u32>,
        /// Positions of all others.
        old: Vec<u32>,
    },
    /// By the client's address: the position of each of `SEATS` seats.
    Seats(Vec<u32>),
}

impl Default for Spread {
    /// Nothing was ordered yet.
    fn default() -> Spread {
        Spread::Evenly(Vec::new())
    }
}

impl Spread {
    /// The positions that get new connections, in rising order.
    pub fn positions(&self) -> Vec<u32> {
        let mut positions = match self {
            Spread::Evenly(positions) => return positions.clone(),
            Spread::Share { new, old, .. } => [new.as_slice(), old].concat(),
            Spread::Seats(seats) => seats.clone(),
        };
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// Whether new connections go to this position.
    pub fn contains(&self, position: u32) -> bool {
        match self {
            Spread::Evenly(positions) => positions.contains(&position),
            Spread::Share { new, old, .. } => new.contains(&position) || old.contains(&position),
            Spread::Seats(seats) => seats.contains(&position),
        }
    }

    /// The same without one position; none where it is the only one.
    pub(super) fn without(&self, position: u32) -> Option<Spread> {
        let rest: Vec<u32> = self.positions().into_iter().filter(|other| *other != position).collect();
        let first = *rest.first()?;
        let kept = |side: &[u32]| side.iter().copied().filter(|other| *other != position).collect();
        Some(match self {
            Spread::Evenly(_) => Spread::Evenly(rest),
            Spread::Share { percent, new, old } => {
                let (new, old): (Vec<u32>, Vec<u32>) = (kept(new), kept(old));
                if new.is_empty() || old.is_empty() {
                    Spread::Evenly(rest)
                } else {
                    Spread::Share { percent: *percent, new, old }
                }
            }
            Spread::Seats(seats) => {
                let places = (0..).zip(&rest).map(|(instance, place)| (instance, *place)).collect();
                let to = |(seat, place): (usize, &u32)| {
                    if *place == position { refuge(seat, &places).unwrap_or(first) } else { *place }
                };
                Spread::Seats(seats.iter().enumerate().map(to).collect())
            }
        })
    }
}

/// The position of each seat, where each of these instances has one, out of so many instances that there
/// are to be. None without any.
pub(super) fn seats(instances: u32, places: &BTreeMap<u32, u32>) -> Option<Vec<u32>> {
    let homes = homes(instances.max(1));
    let of = |(seat, home): (usize, &u32)| places.get(home).copied().or_else(|| refuge(seat, places));
    homes.iter().enumerate().map(of).collect()
}

/// Which instance each seat is at home with: as many with each as with any other. One instance more takes
/// its seats evenly from all others, and no other seat moves.
fn homes(instances: u32) -> Vec<u32> {
    let mut owned: Vec<Vec<usize>> = vec![(0..SEATS).collect()];
    while owned.len() < index(instances) {
        let mut taken = Vec::new();
        for _ in 0..SEATS / (owned.len() + 1) {
            let richest = owned.iter_mut().rev().max_by_key(|seats| seats.len());
            taken.extend(richest.and_then(Vec::pop));
        }
        owned.push(taken);
    }
    let mut homes = vec![0; SEATS];
    for (instance, seats) in (0..).zip(&owned) {
        for seat in seats {
            homes[*seat] = instance;
        }
    }
    homes
}

fn index(instance: u32) -> usize {
    usize::try_from(instance).unwrap_or(usize::MAX)
}

/// Where a seat goes whose own instance is away: to the one that it fits best, whoever else is there
/// (rendezvous hashing).
fn refuge(seat: usize, places: &BTreeMap<u32, u32>) -> Option<u32> {
    let best = places.iter().max_by_key(|(instance, _)| mix((seat as u64) << 32 | u64::from(**instance)));
    best.map(|(_, place)| *place)
}

/// The finaliser of splitmix64.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The seats of two generations together.
pub(super) fn shared(percent: u8, new: &[u32], old: &[u32]) -> Vec<u32> {
    let of = |(seat, (new, old)): (usize, (&u32, &u32))| if is_new(seat, percent) { *new } else { *old };
    new.iter().zip(old).enumerate().map(of).collect()
}

/// Which seats belong to the new generation, of so many percent: always the same ones, and more of them
/// where the share is greater.
fn is_new(seat: usize, percent: u8) -> bool {
    // The seats in an order of their own, each at one rank: an odd factor modulo a power of two.
    let rank = seat.wrapping_mul(0x9e37_79b1) % SEATS;
    rank * 100 < SEATS * usize::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each instance at the position of its own number.
    fn all(instances: u32) -> BTreeMap<u32, u32> {
        (0..instances).map(|instance| (instance, instance)).collect()
    }

    fn moved(before: &[u32], after: &[u32]) -> usize {
        before.iter().zip(after).filter(|(before, after)| before != after).count()
    }

    #[test]
    fn seats_are_shared_out_evenly() {
        for instances in [1, 2, 3, 7, 16, 100] {
            let seats = seats(instances, &all(instances)).expect("somebody is there");
            let of = |instance: u32| seats.iter().filter(|home| **home == instance).count();
            let counts: Vec<usize> = (0..instances).map(of).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{instances}: {counts:?}");
        }
    }

    #[test]
    fn only_the_clients_of_who_leaves_move_and_they_come_back() {
        let whole = seats(8, &all(8)).expect("somebody is there");
        for away in 0..8 {
            let mut places = all(8);
            places.remove(&away);
            let rest = seats(8, &places).expect("somebody is there");
            for (before, after) in whole.iter().zip(&rest) {
                assert!(before == after || *before == away, "{before} → {after} while {away} is away");
            }
            assert!(!rest.contains(&away));
            // Nobody gets them all.
            let gained =
                |to: u32| (0..SEATS).filter(|seat| whole[*seat] == away && rest[*seat] == to).count();
            assert!((0..8).all(|to| gained(to) < 30), "{away}");
        }
        assert_eq!(seats(8, &all(8)), Some(whole));
    }

    #[test]
    fn one_instance_more_moves_its_own_share_only() {
        for instances in 1..20 {
            let before = seats(instances, &all(instances)).expect("somebody is there");
            let after = seats(instances + 1, &all(instances + 1)).expect("somebody is there");
            let share = SEATS / (index(instances) + 1);
            assert_eq!(moved(&before, &after), share, "{instances}");
            assert!(before.iter().zip(&after).all(|(b, a)| b == a || *a == instances));
        }
    }

    #[test]
    fn the_new_generation_has_its_share_of_the_seats() {
        for percent in [1, 10, 50, 99] {
            let new = (0..SEATS).filter(|seat| is_new(*seat, percent)).count();
            assert_eq!(new, (SEATS * usize::from(percent)).div_ceil(100), "{percent}");
        }
        assert!((0..SEATS).all(|seat| !is_new(seat, 10) || is_new(seat, 20)));
    }

    #[test]
    fn without_a_position_nobody_is_led_there() {
        let evenly = Spread::Evenly(vec![0, 2]);
        assert_eq!(evenly.without(2), Some(Spread::Evenly(vec![0])));
        assert_eq!(Spread::Evenly(vec![1]).without(1), None);
        let share = Spread::Share { percent: 10, new: vec![3], old: vec![0, 1] };
        assert_eq!(share.without(3), Some(Spread::Evenly(vec![0, 1])));
        assert_eq!(share.without(0), Some(Spread::Share { percent: 10, new: vec![3], old: vec![1] }));
        let seats = Spread::Seats(seats(4, &all(4)).expect("somebody is there"));
        let rest = seats.without(3).expect("three are left");
        assert_eq!(rest.positions(), [0, 1, 2]);
        assert!(seats.contains(3) && !rest.contains(3));
    }

    #[test]
    fn the_seats_of_many_instances_are_within_reach() {
        assert_eq!(seats(1000, &all(1000)).map(|seats| seats.len()), Some(SEATS));
        assert_eq!(seats(3, &BTreeMap::new()), None);
    }
}
