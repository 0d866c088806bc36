//! The rungs, one file each. None of them uses another: what several need is in a module beside this one.

pub(super) mod accepted;
pub(super) mod backed_up;
pub(super) mod baked;
pub(super) mod handed_back;
pub(super) mod handed_over;
pub(super) mod healthy;
pub(super) mod migrated;
pub(super) mod pinned;
pub(super) mod preflighted;
pub(super) mod retired;
pub(super) mod rolled_out;
pub(super) mod traffic_moved;
pub(super) mod traffic_returned;
pub(super) mod withdrawn;
