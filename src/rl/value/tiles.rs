//! `tiles`: tile coding with hashed tiles. Each of n tilings cuts the space of states into tiles of
//! side 1/scale, displaced against the others; Q(s, a) is the sum of the weights of the n tiles
//! that s falls into, one per tiling, under action a. So neighbouring states learn from each other.
//!
//! ```text
//! q̂(s, a, w) = Σ_i w[tile_i(s, a)]     each tile's step is α δ / n
//! ```
//!
//! Source: Sutton & Barto, section 9.5.4: hashing to a memory of fixed size, displacement vectors of
//! the first odd numbers (1, 3, 5, …), step size divided by the number of tilings, so that α means
//! what it means for a table. Tiles that hash to one weight share it, so `tiles_size` should be
//! several times the number of tiles in use.

use serde_json::value::RawValue;

use super::lists::{self, Form};
use super::{ListedValueFunction, Saving, VALUE_BYTES, ValueFunction, Weights};
use crate::rl::cow::Rows;
use crate::rl::parameters::Parameters;

/// As it is listed.
pub const LISTED: ListedValueFunction = ListedValueFunction {
    name: "tiles",
    title: "Tiles",
    in_v1: false,
    make: |p| Box::new(Tiles::new(p)),
    sized_by: "tiles_size",
    least_bytes: |p| p.tiles_size.saturating_mul(WEIGHT_BYTES),
    shape: &["tilings", "tiles_size", "tiles_scale"],
    load: |p, saved| Ok(Box::new(Tiles::load(p, saved)?)),
};

/// Bytes that a weight takes: it stands alone in its row.
const WEIGHT_BYTES: usize = VALUE_BYTES;

/// See the module. Shape: `size` weights.
#[derive(Clone)]
pub struct Tiles {
    actions_n: usize,
    tilings: usize,
    /// Tiles per unit of a feature.
    scale: f64,
    weights: Rows<f64>,
    touched: usize,
}

impl Tiles {
    /// All weights zero.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            actions_n: parameters.actions_n,
            tilings: parameters.tilings.max(1),
            scale: parameters.tiles_scale,
            weights: Rows::filled(1, parameters.tiles_size.max(1), 0.0),
            touched: 0,
        }
    }

    /// From a model file.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn load(parameters: &Parameters, saved: &RawValue) -> Result<Self, String> {
        let [weights] = lists::read(saved, [Form::learnt("weights", 2, parameters.tiles_size)])?;
        let mut tiles = Self::new(parameters);
        for pair in weights.iter() {
            let &[at, weight] = pair else { continue };
            let place =
                lists::whole(at).and_then(|index| tiles.weights.get_mut(index)?.first_mut());
            match place {
                Some(place) if weight != 0.0 && *place == 0.0 => {
                    *place = weight;
                    tiles.touched += 1;
                }
                _ => return Err(format!("weight {at} is {weight}")),
            }
        }
        Ok(tiles)
    }

    /// The weights that make up Q(s, a), one per tiling.
    fn active(&self, state: &[f64], action: usize) -> impl Iterator<Item = usize> {
        let (size, tilings, scale) = (self.weights.len() as u64, self.tilings as i64, self.scale);
        (0..tilings).map(move |tiling| {
            let coordinates = state.iter().enumerate().map(|(feature, x)| {
                // In units of 1/n of a tile; tiling i is displaced by i (2 feature + 1) of them. A
                // cast saturates: states that far out share their tiles.
                let place = (x * scale * tilings as f64).floor() as i64;
                let displaced = place.saturating_add(tiling * (2 * feature as i64 + 1));
                displaced.div_euclid(tilings)
            });
            let start = mix(mix(0, tiling as u64), action as u64);
            let hash = coordinates.fold(start, |hash, c| mix(hash, c as u64));
            (hash % size) as usize
        })
    }
}

/// SplitMix64's finaliser (S. Vigna, public domain) over one more number.
fn mix(hash: u64, number: u64) -> u64 {
    let mut h = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

impl ValueFunction for Tiles {
    fn value(&self, state: &[f64], action: usize) -> f64 {
        let weight = |at| self.weights.get(at).and_then(<[f64]>::first).copied().unwrap_or(0.0);
        self.active(state, action).map(weight).sum()
    }

    fn add(&mut self, state: &[f64], action: usize, amount: f64) {
        let each = amount / self.tilings as f64;
        let active: Vec<usize> = self.active(state, action).collect();
        for at in active {
            if let Some(weight) = self.weights.get_mut(at).and_then(<[f64]>::first_mut) {
                let before = *weight != 0.0;
                *weight += each;
                match (before, *weight != 0.0) {
                    (false, true) => self.touched += 1,
                    (true, false) => self.touched -= 1,
                    _ => {}
                }
            }
        }
    }

    /// Tiles with a weight.
    fn states_seen(&self) -> usize {
        self.touched
    }

    fn weights(&self) -> Weights {
        Weights {
            actions_n: self.actions_n,
            weights: Some(self.weights.clone()),
            ..Weights::default()
        }
    }

    fn save(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(&self.saving()?)
    }

    fn saving(&self) -> serde_json::Result<Saving> {
        Ok(Saving::Weights(self.weights()))
    }

    fn apply_changes(&mut self, changes: &RawValue) -> Result<(), String> {
        let size = self.weights.len();
        let [weights] = lists::read(changes, [Form::learnt("weights", 2, size)])?;
        for pair in weights.iter() {
            let &[at, weight] = pair else { continue };
            let place = lists::whole(at).filter(|index| *index < size);
            let place = place.and_then(|index| self.weights.get_mut(index)?.first_mut());
            let place = place.ok_or_else(|| format!("there is no weight {at}"))?;
            let before = std::mem::replace(place, weight) != 0.0;
            self.touched = self.touched + usize::from(weight != 0.0) - usize::from(before);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn parameters() -> Parameters {
        Parameters { actions_n: 2, tilings: 8, ..Parameters::default() }
    }

    #[test]
    fn each_tiling_has_one_active_tile_and_neighbours_share_most() {
        let tiles = Tiles::new(&parameters());
        let active = |x: f64| tiles.active(&[x, 3.0], 0).collect::<HashSet<_>>();
        assert_eq!(active(1.0).len(), 8);
        let shared = |x: f64| active(1.0).intersection(&active(x)).count();
        assert_eq!([shared(1.0), shared(1.125), shared(1.5), shared(2.0)], [8, 7, 4, 0]);
        let other_action: HashSet<usize> = tiles.active(&[1.0, 3.0], 1).collect();
        assert_eq!(active(1.0).intersection(&other_action).count(), 0);
    }

    #[test]
    fn an_update_moves_the_value_by_its_amount_and_the_neighbours_by_a_part() {
        let mut tiles = Tiles::new(&parameters());
        tiles.add(&[1.0], 0, 1.0);
        assert_eq!(tiles.value(&[1.0], 0), 1.0);
        assert_eq!(tiles.value(&[1.5], 0), 0.5);
        assert_eq!((tiles.value(&[1.0], 1), tiles.value(&[2.0], 0)), (0.0, 0.0));
        assert_eq!(tiles.states_seen(), 8);
        let mut values = [9.0; 2];
        tiles.values(&[1.0], &mut values);
        assert_eq!(values, [1.0, 0.0]);
    }

    #[test]
    fn negative_and_enormous_states_have_tiles_too() {
        let mut tiles = Tiles::new(&parameters());
        for state in [[-0.5, -7.0], [f64::MAX, f64::MIN], [1e300, -1e300]] {
            tiles.add(&state, 1, 1.0);
            assert!(tiles.value(&state, 1) >= 1.0);
        }
    }

    #[test]
    fn what_is_saved_is_loaded_to_the_last_bit() {
        let mut tiles = Tiles::new(&parameters());
        (0..100).for_each(|n| tiles.add(&[f64::from(n) * 0.37], 0, 0.1 * f64::from(n)));
        let saved = tiles.save().expect("JSON");
        let loaded = Tiles::load(&parameters(), &saved).expect("it fits");
        assert_eq!(loaded.weights(), tiles.weights());
        assert_eq!(loaded.states_seen(), tiles.states_seen());
        let small = Parameters { tiles_size: 10, ..parameters() };
        assert!(Tiles::load(&small, &saved).is_err());
    }
}
