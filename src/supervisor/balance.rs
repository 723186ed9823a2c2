//! How evenly the workers of an app are loaded, and what to do about it.

/// Below so many connections per worker on average nothing is said about how they are shared.
const TELLING: u32 = 10;

/// How connections are shared where one worker has nearly all of them, or one has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// Nine of ten or more are with the worker at this place.
    Everything {
        /// Among those that were given.
        place: usize,
    },
    /// The worker at this place has none.
    Nothing {
        /// Among those that were given.
        place: usize,
    },
}

/// What is to be told of these workers' open connections.
pub fn skew(connections: &[u32]) -> Option<Skew> {
    let workers = u32::try_from(connections.len()).ok().filter(|workers| *workers > 1)?;
    let total = connections.iter().fold(0_u32, |sum, more| sum.saturating_add(*more));
    if total < workers.saturating_mul(TELLING) {
        return None;
    }
    let most = connections.iter().max()?;
    if u64::from(*most) * 10 >= u64::from(total) * 9 {
        return connections.iter().position(|count| count == most).map(|place| Skew::Everything { place });
    }
    connections.iter().position(|count| *count == 0).map(|place| Skew::Nothing { place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_told_where_it_is_no_accident() {
        let rows: &[(&[u32], Option<Skew>)] = &[
            (&[], None),
            (&[100], None),
            (&[10, 9], None),
            (&[10, 10], None),
            (&[18, 2], Some(Skew::Everything { place: 0 })),
            (&[0, 40, 0, 0], Some(Skew::Everything { place: 1 })),
            (&[20, 0, 20], Some(Skew::Nothing { place: 1 })),
            (&[1, 20, 20], None),
            (&[3, 0, 3], None),
        ];
        for (connections, expected) in rows {
            assert_eq!(skew(connections), *expected, "{connections:?}");
        }
    }
}
