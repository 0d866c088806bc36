//! What befalls the operator itself. These tests share the one operator of the cluster, so those that stop it run
//! alone, whatever number of threads is asked for.

mod absent;
mod fences;
mod idle;
mod kills;
mod leader;
mod metrics;
mod scale;
mod unreadable;

use fairway_e2e::ns::{alone, undisturbed};
