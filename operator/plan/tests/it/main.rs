//! Whole releases, played in the simulated world.

mod play;
mod stories;
