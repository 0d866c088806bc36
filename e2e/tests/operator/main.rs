//! What happens to the operator itself. It may be killed at any moment of these tests, which run side by side; those in
//! `alone` run one after another, since all share the one operator of the cluster.

mod alone;
mod kills;
mod scale;
mod unreadable;
