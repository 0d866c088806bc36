//! What this process has learned from answers that leave nothing behind in the cluster: refusals and dry runs.
//! Lost with the process, and learned again by the next one.

use crate::execute::refusal::Refused;
use crate::key::Key;
use fairway_plan::observed::Refusal;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The first time after which a refusal is put to the test again.
const FIRST: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST: Duration = Duration::from_secs(300);

/// How long nothing more is made in a namespace that is being deleted. Each object that goes with it asks for a
/// pass, and thousands of them would have the apiserver refuse as many writes; a new namespace of the same name
/// waits no longer than this.
const ENDING: Duration = Duration::from_secs(10);

/// Answers by App, and by namespace.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    apps: Mutex<HashMap<Key, Learned>>,
    ending: Mutex<HashMap<String, Instant>>,
}

#[derive(Debug, Default)]
struct Learned {
    refused: BTreeMap<String, Remembered>,
    dry_run_passed: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Remembered {
    refusal: Refusal,
    times: u32,
    insisted: bool,
    /// From then on it is not told any more, so that the write is tried again: no watch shows that a quota, a policy
    /// or the Service of others is not what it was.
    until: Instant,
}

/// Whether an answer is news to the planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The planner did not know it.
    Yes,
    /// It knew, and asked for the same write all the same: a person has to be told by other means.
    No,
    /// And a person has been told.
    Told,
}

/// What planners are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Refusals by `Kind/name`.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// Dry runs that passed, as `Kind/name#hash`.
    pub(crate) dry_run_passed: BTreeSet<String>,
    /// When the first of the refusals is forgotten.
    pub(crate) forgotten: Option<Instant>,
}

impl Memory {
    /// Remembers that the write of `id` with this hash was refused.
    pub(crate) fn refused(&self, app: &Key, id: &str, hash: &str, refused: Refused, now: Instant) -> News {
        let Refused {
            message,
            conflict,
            may_pass,
        } = refused;
        let refusal = Refusal {
            hash: hash.to_owned(),
            message,
            conflict,
            may_pass,
        };
        let mut apps = self.lock();
        let learned = &mut apps.entry(app.clone()).or_default().refused;
        // The same write, whatever the words of the answer: some name a moment or a version, and differ each time.
        let same = learned.get(id).filter(|known| known.refusal.hash == hash);
        let times = same.map_or(0, |known| known.times);
        let news = match same {
            None => News::Yes,
            Some(known) if known.until <= now => News::Yes,
            Some(known) if known.insisted => News::Told,
            Some(_) => News::No,
        };
        let insisted = same.is_some_and(|known| known.insisted) || news == News::No;
        let until = now + FIRST.saturating_mul(1 << times.min(16)).min(LONGEST);
        learned.insert(
            id.to_owned(),
            Remembered {
                refusal,
                times: times + 1,
                insisted,
                until,
            },
        );
        news
    }

    /// Remembers that the dry run of `id` with this hash passed.
    pub(crate) fn passed(&self, app: &Key, id: &str, hash: &str) -> News {
        let mut apps = self.lock();
        let learned = apps.entry(app.clone()).or_default();
        learned.refused.remove(id);
        // The passed dry runs of other contents of this object are history.
        learned
            .dry_run_passed
            .retain(|known| known.split('#').next() != Some(id) || known.ends_with(hash));
        if learned.dry_run_passed.insert(format!("{id}#{hash}")) {
            News::Yes
        } else {
            News::No
        }
    }

    /// Forgets the refusal of `id`, because a write of it went through.
    pub(crate) fn accepted(&self, app: &Key, id: &str) {
        if let Some(learned) = self.lock().get_mut(app) {
            learned.refused.remove(id);
        }
    }

    /// What planners of this App are told now.
    pub(crate) fn told(&self, app: &Key, now: Instant) -> Told {
        let apps = self.lock();
        let Some(learned) = apps.get(app) else {
            return Told::default();
        };
        let valid = || learned.refused.iter().filter(|(_, known)| now < known.until);
        Told {
            refused: valid()
                .map(|(id, known)| (id.clone(), known.refusal.clone()))
                .collect(),
            dry_run_passed: learned.dry_run_passed.clone(),
            forgotten: valid().map(|(_, known)| known.until).min(),
        }
    }

    /// Remembers that nothing can be made in this namespace, because it is being deleted; until when.
    pub(crate) fn ends(&self, namespace: &str, now: Instant) -> Instant {
        let until = now + ENDING;
        self.endings().insert(namespace.to_owned(), until);
        until
    }

    /// Until when nothing is to be made in this namespace.
    pub(crate) fn ending(&self, namespace: &str, now: Instant) -> Option<Instant> {
        let mut endings = self.endings();
        endings.retain(|_, until| now < *until);
        endings.get(namespace).copied()
    }

    fn endings(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an App that is gone.
    pub(crate) fn forget(&self, app: &Key) {
        self.lock().remove(app);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Learned>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(may_pass: bool) -> Refused {
        Refused {
            message: "no".into(),
            conflict: false,
            may_pass,
        }
    }

    #[test]
    fn a_refusal_is_news_once_and_told_until_the_write_goes_through() {
        let (memory, app, now) = (Memory::default(), Key::new("shop", "crm"), Instant::now());
        assert_eq!(
            memory.refused(&app, "Deployment/web", "1", refused(false), now),
            News::Yes
        );
        assert_eq!(
            memory.refused(&app, "Deployment/web", "1", refused(false), now),
            News::No
        );
        assert_eq!(
            memory.refused(&app, "Deployment/web", "2", refused(false), now),
            News::Yes
        );
        assert_eq!(memory.told(&app, now).refused["Deployment/web"].hash, "2");
        memory.accepted(&app, "Deployment/web");
        assert!(memory.told(&app, now).refused.is_empty());
    }

    #[test]
    fn a_refusal_in_other_words_is_no_news() {
        let (memory, app, now) = (Memory::default(), Key::new("shop", "crm"), Instant::now());
        let refused = |message: &str| Refused {
            message: message.to_owned(),
            ..refused(false)
        };
        let told = |message| memory.refused(&app, "Deployment/web", "1", refused(message), now);
        assert_eq!(told("refused at 12:00:00"), News::Yes);
        assert_eq!(told("refused at 12:00:01"), News::No);
        assert_eq!(told("refused at 12:00:02"), News::Told);
    }

    #[test]
    fn a_refusal_is_put_to_the_test_again_ever_less_often() {
        let (memory, app, mut now) = (Memory::default(), Key::new("shop", "crm"), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(
                memory.refused(&app, "Service/crm", "1", refused(true), now),
                News::Yes
            );
            let forgotten = memory.told(&app, now).forgotten.unwrap();
            waits.push((forgotten - now).as_secs());
            assert!(memory.told(&app, forgotten).refused.is_empty());
            now = forgotten;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_namespace_that_ends_is_left_alone_for_a_while() {
        let (memory, now) = (Memory::default(), Instant::now());
        assert_eq!(memory.ending("shop", now), None);
        let until = memory.ends("shop", now);
        assert_eq!(memory.ending("shop", now), Some(until));
        assert_eq!(memory.ending("cms", now), None);
        assert_eq!(memory.ending("shop", until), None);
    }

    #[test]
    fn of_each_object_only_the_newest_passed_dry_run_is_kept() {
        let (memory, app) = (Memory::default(), Key::new("shop", "crm"));
        assert_eq!(memory.passed(&app, "Deployment/web", "1"), News::Yes);
        assert_eq!(memory.passed(&app, "Deployment/web", "1"), News::No);
        memory.passed(&app, "Deployment/worker", "1");
        memory.passed(&app, "Deployment/web", "2");
        let told = memory.told(&app, Instant::now()).dry_run_passed;
        assert_eq!(
            told.into_iter().collect::<Vec<_>>(),
            ["Deployment/web#2", "Deployment/worker#1"]
        );
    }
}
