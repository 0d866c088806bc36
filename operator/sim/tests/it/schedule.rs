//! Scheduled backups: nothing is asked of the API server while none is due.

use crate::play::{reference, story};
use jiff::SignedDuration;

#[test]
fn nothing_is_asked_and_nobody_woken_between_two_runs() {
    let mut sim = reference(&story("backup-schedule-caught-up")).unwrap().sim;
    let state = sim.cluster.objects().apps["crm"].status.as_ref().unwrap();
    let next = state.backup.as_ref().unwrap().next_runs[0];
    let (passes, writes) = (sim.passes(), sim.traffic.writes.len());
    let quiet = next.duration_since(sim.cluster.now) - SignedDuration::from_secs(1);
    assert!(quiet > SignedDuration::from_hours(8), "{quiet}");
    sim.pass_time(quiet).unwrap();
    assert_eq!((sim.passes(), sim.traffic.writes.len()), (passes, writes));
    sim.pass_time(SignedDuration::from_secs(2)).unwrap();
    assert!(sim.traffic.writes.len() > writes, "the run begins");
}
