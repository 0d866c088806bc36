//! The queue of one controller: each object at most once, one pass per object at a time, first come first
//! served, timers of their own. Nothing is delayed: what is due is handed out at once.

use crate::key::Key;
use prometheus_client::metrics::counter::Counter;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Keys to reconcile, and when.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    adds: Counter,
    ready: VecDeque<Key>,
    slots: HashMap<Key, Slot>,
    timers: BTreeSet<(Instant, Key)>,
}

/// What is known of one key. A key without a slot is idle and has no timer.
#[derive(Clone, Copy, Debug)]
struct Slot {
    phase: Phase,
    timer: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing to do until the timer.
    Idle,
    /// In `ready` since then.
    Queued(Instant),
    /// A pass is under way.
    Running,
    /// A pass is under way, and something has changed since then.
    RunningAgain(Instant),
}

/// A key handed out, and since when it was to be done.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    /// The key.
    pub(crate) key: Key,
    /// When the first of the reasons for this pass came up.
    pub(crate) since: Instant,
}

impl Queue {
    /// A queue that counts how often a key came to wait.
    pub(crate) fn counted(adds: Counter) -> Self {
        Self {
            state: Mutex::new(State {
                adds,
                ..State::default()
            }),
            changed: Notify::new(),
        }
    }

    /// Asks for a pass as soon as possible.
    pub(crate) fn add(&self, key: &Key) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.add(key, now) {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Ends the pass of a key and sets when the next one is due without any change.
    pub(crate) fn done(&self, key: &Key, next: Option<Instant>) {
        let mut state = self.lock();
        state.done(key, next);
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for the next key. For one consumer.
    pub(crate) async fn next(&self) -> Due {
        loop {
            let timer = {
                let mut state = self.lock();
                state.move_due(Instant::now());
                if let Some(due) = state.pop() {
                    return due;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            match timer {
                None => self.changed.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }

    /// Keys that wait for a pass.
    pub(crate) fn depth(&self) -> usize {
        self.lock().ready.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether `ready` has grown.
    fn add(&mut self, key: &Key, now: Instant) -> bool {
        let slot = self.slots.entry(key.clone()).or_insert(Slot {
            phase: Phase::Idle,
            timer: None,
        });
        match slot.phase {
            Phase::Idle => {
                slot.phase = Phase::Queued(now);
                self.ready.push_back(key.clone());
                self.adds.inc();
                true
            }
            Phase::Running => {
                slot.phase = Phase::RunningAgain(now);
                self.adds.inc();
                false
            }
            Phase::Queued(_) | Phase::RunningAgain(_) => false,
        }
    }

    fn set_timer(&mut self, key: &Key, at: Option<Instant>) {
        let slot = self.slots.entry(key.clone()).or_insert(Slot {
            phase: Phase::Idle,
            timer: None,
        });
        if let Some(old) = std::mem::replace(&mut slot.timer, at) {
            self.timers.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.timers.insert((at, key.clone()));
        }
    }

    fn move_due(&mut self, now: Instant) {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            self.set_timer(&key, None);
            self.add(&key, at);
        }
    }

    fn pop(&mut self) -> Option<Due> {
        let key = self.ready.pop_front()?;
        let slot = self.slots.get_mut(&key)?;
        let since = match slot.phase {
            Phase::Queued(since) => since,
            _ => Instant::now(),
        };
        slot.phase = Phase::Running;
        Some(Due { key, since })
    }

    fn done(&mut self, key: &Key, next: Option<Instant>) {
        let phase = self.slots.get(key).map(|slot| slot.phase);
        self.set_timer(key, next);
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        if let Some(Phase::RunningAgain(since)) = phase {
            slot.phase = Phase::Queued(since);
            self.ready.push_back(key.clone());
        } else if slot.timer.is_none() {
            self.slots.remove(key);
        } else {
            slot.phase = Phase::Idle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::time::Duration;

    fn key(name: &str) -> Key {
        Key::new("shop", name)
    }

    fn now_or_none(queue: &Queue) -> Option<String> {
        queue.next().now_or_never().map(|due| due.key.name.to_string())
    }

    #[tokio::test]
    async fn a_key_added_twice_is_handed_out_once_in_order() {
        let queue = Queue::default();
        for name in ["a", "b", "a"] {
            queue.add(&key(name));
        }
        assert_eq!(queue.depth(), 2);
        assert_eq!(now_or_none(&queue).as_deref(), Some("a"));
        assert_eq!(now_or_none(&queue).as_deref(), Some("b"));
        assert_eq!(now_or_none(&queue), None);
    }

    #[tokio::test]
    async fn a_change_during_a_pass_leads_to_one_more_pass_after_it() {
        let queue = Queue::default();
        queue.add(&key("a"));
        assert!(now_or_none(&queue).is_some());
        queue.add(&key("a"));
        queue.add(&key("a"));
        assert_eq!(now_or_none(&queue), None, "one pass at a time");
        queue.done(&key("a"), None);
        assert!(now_or_none(&queue).is_some());
        queue.done(&key("a"), None);
        assert_eq!(now_or_none(&queue), None);
        assert!(queue.lock().slots.is_empty(), "an idle key takes no room");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_is_due_at_its_time_and_replaced_by_the_next_pass() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add(&key("a"));
        assert!(now_or_none(&queue).is_some());
        queue.done(&key("a"), Some(start + Duration::from_millis(1500)));
        assert_eq!(&*queue.next().await.key.name, "a");
        assert_eq!(start.elapsed().as_millis(), 1500);
        queue.done(&key("a"), Some(start + Duration::from_secs(60)));
        queue.add(&key("a"));
        assert!(now_or_none(&queue).is_some());
        queue.done(&key("a"), None);
        assert!(
            queue.lock().timers.is_empty(),
            "a pass says anew when the next one is due"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn adding_wakes_a_waiting_consumer_before_its_timer() {
        let queue = std::sync::Arc::new(Queue::default());
        queue.add(&key("late"));
        assert!(now_or_none(&queue).is_some());
        queue.done(&key("late"), Some(Instant::now() + Duration::from_secs(60)));
        let consumer = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await.key }
        });
        tokio::task::yield_now().await;
        queue.add(&key("now"));
        assert_eq!(consumer.await.unwrap(), key("now"));
    }
}
