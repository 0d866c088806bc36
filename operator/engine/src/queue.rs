//! The queue: each object at most once, one pass per object at a time, first come first served within a kind, so many
//! passes of a kind at once, and timers. Nothing is delayed: what is due is ready at once.

use crate::clock::Instant;
use crate::key::ObjectKey;
use crate::kinds::OwnKind;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Objects to reconcile, and when.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    limit: usize,
    lanes: BTreeMap<OwnKind, Lane>,
    slots: BTreeMap<ObjectKey, Slot>,
    timers: BTreeSet<(Instant, ObjectKey)>,
}

/// The objects of one kind.
#[derive(Clone, Debug, Default)]
struct Lane {
    ready: VecDeque<ObjectKey>,
    running: usize,
    added: u64,
}

/// What is known of one object. One without a slot is idle and has no timer.
#[derive(Clone, Copy, Debug)]
struct Slot {
    phase: Phase,
    timer: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing to do until the timer.
    Idle,
    /// Ready since then.
    Ready(Instant),
    /// A pass is under way.
    Running,
    /// A pass is under way, and something has changed since then.
    RunningAgain(Instant),
}

/// How busy one kind is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Objects that wait for a pass.
    pub ready: usize,
    /// Passes under way.
    pub running: usize,
    /// Times that an object came to wait for a pass.
    pub added: u64,
}

impl Queue {
    /// A queue that starts up to `limit` passes of each kind at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            lanes: OwnKind::ALL.map(|kind| (kind, Lane::default())).into(),
            slots: BTreeMap::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Asks for a pass as soon as possible.
    pub(crate) fn add(&mut self, work: ObjectKey, now: Instant) {
        let slot = self.slots.entry(work.clone()).or_insert(Slot {
            phase: Phase::Idle,
            timer: None,
        });
        let lane = self.lanes.entry(work.kind).or_default();
        match slot.phase {
            Phase::Idle => {
                slot.phase = Phase::Ready(now);
                lane.ready.push_back(work);
                lane.added += 1;
            }
            Phase::Running => {
                slot.phase = Phase::RunningAgain(now);
                lane.added += 1;
            }
            Phase::Ready(_) | Phase::RunningAgain(_) => {}
        }
    }

    /// Starts the next pass. Returns its object, and since when a pass was due.
    pub(crate) fn start(&mut self, now: Instant) -> Option<(ObjectKey, Instant)> {
        self.ring(now);
        let lane = self.lanes.values_mut().find(|lane| lane.may_start(self.limit))?;
        let work = lane.ready.pop_front()?;
        lane.running += 1;
        let slot = self.slots.get_mut(&work)?;
        let since = match slot.phase {
            Phase::Ready(since) => since,
            _ => now,
        };
        slot.phase = Phase::Running;
        Some((work, since))
    }

    /// Ends the pass of an object and sets when the next one is due without any change.
    pub(crate) fn done(&mut self, work: &ObjectKey, next: Option<Instant>) {
        self.set_timer(work, next);
        let lane = self.lanes.entry(work.kind).or_default();
        lane.running = lane.running.saturating_sub(1);
        let Some(slot) = self.slots.get_mut(work) else {
            return;
        };
        if let Phase::RunningAgain(since) = slot.phase {
            slot.phase = Phase::Ready(since);
            lane.ready.push_back(work.clone());
        } else if slot.timer.is_none() {
            self.slots.remove(work);
        } else {
            slot.phase = Phase::Idle;
        }
    }

    /// Whether a pass can start now, timers aside.
    pub(crate) fn is_ready(&self) -> bool {
        self.lanes.values().any(|lane| lane.may_start(self.limit))
    }

    /// When the next timer goes off.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How busy a kind is.
    pub(crate) fn load(&self, kind: OwnKind) -> Load {
        self.lanes.get(&kind).map_or_else(Load::default, |lane| Load {
            ready: lane.ready.len(),
            running: lane.running,
            added: lane.added,
        })
    }

    /// Makes ready what timers ask for.
    fn ring(&mut self, now: Instant) {
        while let Some((at, work)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            self.set_timer(&work, None);
            self.add(work, at);
        }
    }

    fn set_timer(&mut self, work: &ObjectKey, at: Option<Instant>) {
        let slot = self.slots.entry(work.clone()).or_insert(Slot {
            phase: Phase::Idle,
            timer: None,
        });
        if let Some(old) = std::mem::replace(&mut slot.timer, at) {
            self.timers.remove(&(old, work.clone()));
        }
        if let Some(at) = at {
            self.timers.insert((at, work.clone()));
        }
    }
}

impl Lane {
    fn may_start(&self, limit: usize) -> bool {
        !self.ready.is_empty() && self.running < limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::NamespacedName;
    use std::time::Duration;

    const START: Instant = Instant::after_origin(Duration::ZERO);

    fn work(name: &str) -> ObjectKey {
        ObjectKey::new(OwnKind::Release, NamespacedName::new("shop", name))
    }

    fn start(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.start(now).map(|(work, _)| work.key.name.to_string())
    }

    #[test]
    fn an_object_added_twice_gets_one_pass_in_order() {
        let mut queue = Queue::new(9);
        for name in ["a", "b", "a"] {
            queue.add(work(name), START);
        }
        assert_eq!(queue.load(OwnKind::Release).ready, 2);
        assert_eq!(start(&mut queue, START).as_deref(), Some("a"));
        assert_eq!(start(&mut queue, START).as_deref(), Some("b"));
        assert_eq!(start(&mut queue, START), None);
    }

    #[test]
    fn no_more_passes_of_a_kind_run_at_once_than_allowed() {
        let mut queue = Queue::new(1);
        queue.add(work("a"), START);
        queue.add(work("b"), START);
        queue.add(
            ObjectKey::new(OwnKind::Backup, NamespacedName::new("shop", "c")),
            START,
        );
        assert_eq!(start(&mut queue, START).as_deref(), Some("a"));
        assert_eq!(start(&mut queue, START).as_deref(), Some("c"), "another kind");
        assert!(!queue.is_ready());
        queue.done(&work("a"), None);
        assert_eq!(start(&mut queue, START).as_deref(), Some("b"));
    }

    #[test]
    fn a_change_during_a_pass_leads_to_one_more_pass_after_it() {
        let mut queue = Queue::new(9);
        queue.add(work("a"), START);
        assert!(start(&mut queue, START).is_some());
        queue.add(work("a"), START);
        queue.add(work("a"), START);
        assert_eq!(start(&mut queue, START), None, "one pass at a time");
        queue.done(&work("a"), None);
        assert!(start(&mut queue, START).is_some());
        queue.done(&work("a"), None);
        assert_eq!(start(&mut queue, START), None);
        assert!(queue.slots.is_empty(), "an idle object takes no room");
        assert_eq!(queue.load(OwnKind::Release).added, 2);
    }

    #[test]
    fn a_timer_is_due_at_its_time_and_replaced_by_the_next_pass() {
        let mut queue = Queue::new(9);
        queue.add(work("a"), START);
        assert!(start(&mut queue, START).is_some());
        let at = START + Duration::from_millis(1500);
        queue.done(&work("a"), Some(at));
        assert_eq!(start(&mut queue, START + Duration::from_millis(1499)), None);
        assert_eq!(queue.next_timer(), Some(at));
        assert_eq!(queue.start(at), Some((work("a"), at)));
        queue.done(&work("a"), Some(START + Duration::from_secs(60)));
        queue.add(work("a"), at);
        assert!(start(&mut queue, at).is_some());
        queue.done(&work("a"), None);
        assert_eq!(
            queue.next_timer(),
            None,
            "each pass says when the next one is due"
        );
    }
}
