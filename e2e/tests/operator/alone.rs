//! The number of operators changes, or who of them leads: nothing else works on the cluster meanwhile.

mod absent;
mod attacks;
mod canaries;
mod leader;
mod two;
