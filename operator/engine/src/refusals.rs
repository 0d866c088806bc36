//! What this process has learned from answers that leave nothing behind in the cluster: refusals and dry runs.
//! Lost with the process, and learned again by the next one.

use crate::answer::Refused;
use crate::clock::Instant;
use crate::key::Key;
use fairway_plan::observed::Refusal;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The first time after which a refused write is attempted again.
const FIRST: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST: Duration = Duration::from_secs(300);

/// How long nothing more is created in a namespace that is being deleted. Each object that goes with it asks for a
/// pass, and thousands of them would have the API server refuse as many writes; a new namespace of the same name
/// waits no longer than this.
const TERMINATING: Duration = Duration::from_secs(10);

/// Answers by App, and by namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    apps: BTreeMap<Key, Learned>,
    terminating: BTreeMap<Arc<str>, Instant>,
}

#[derive(Clone, Debug, Default)]
struct Learned {
    refused: BTreeMap<String, Remembered>,
    dry_run_passed: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Remembered {
    refusal: Refusal,
    times: u32,
    insisted: bool,
    /// From then on no planner sees it any more, so that the write is attempted again: no watch shows that a quota, a
    /// policy or the Service of others is not what it was.
    until: Instant,
}

/// Whether an answer is news to the planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The planner did not know it.
    Yes,
    /// The planner knew, and asked for the same write all the same: an Event has to say so.
    No,
    /// And an Event has said so.
    Announced,
}

/// What the planner of an App's Release sees.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Refusals by `Kind/name`.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// Dry runs that passed, as `Kind/name#hash`.
    pub(crate) dry_run_passed: BTreeSet<String>,
}

impl Refusals {
    /// Remembers that the write of `id` with this hash was refused.
    pub(crate) fn refused(
        &mut self,
        app: &Key,
        id: &str,
        hash: &str,
        refused: Refused,
        now: Instant,
    ) -> News {
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
        let learned = &mut self.apps.entry(app.clone()).or_default().refused;
        // The same write, whatever the words of the answer: some name a moment or a version, and differ each time.
        let same = learned.get(id).filter(|known| known.refusal.hash == hash);
        let times = same.map_or(0, |known| known.times);
        let news = match same {
            None => News::Yes,
            Some(known) if known.until <= now => News::Yes,
            Some(known) if known.insisted => News::Announced,
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
    pub(crate) fn passed(&mut self, app: &Key, id: &str, hash: &str) -> News {
        let learned = self.apps.entry(app.clone()).or_default();
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
    pub(crate) fn accepted(&mut self, app: &Key, id: &str) {
        if let Some(learned) = self.apps.get_mut(app) {
            learned.refused.remove(id);
        }
    }

    /// What the planner of a Release of this App sees now.
    pub(crate) fn known(&self, app: &Key, now: Instant) -> Known {
        let Some(learned) = self.apps.get(app) else {
            return Known::default();
        };
        Known {
            refused: valid(learned, now)
                .map(|(id, known)| (id.clone(), known.refusal.clone()))
                .collect(),
            dry_run_passed: learned.dry_run_passed.clone(),
        }
    }

    /// When the first refusal of this App is forgotten.
    pub(crate) fn forgotten(&self, app: &Key, now: Instant) -> Option<Instant> {
        valid(self.apps.get(app)?, now)
            .map(|(_, known)| known.until)
            .min()
    }

    /// Remembers that nothing can be created in this namespace, because it is being deleted; until when.
    pub(crate) fn terminates(&mut self, namespace: &Arc<str>, now: Instant) -> Instant {
        let until = now + TERMINATING;
        self.terminating.insert(namespace.clone(), until);
        until
    }

    /// Until when nothing is to be created in this namespace.
    pub(crate) fn terminating(&mut self, namespace: &str, now: Instant) -> Option<Instant> {
        self.terminating.retain(|_, until| now < *until);
        self.terminating.get(namespace).copied()
    }

    /// Forgets an App that is gone.
    pub(crate) fn forget(&mut self, app: &Key) {
        self.apps.remove(app);
    }
}

fn valid(learned: &Learned, now: Instant) -> impl Iterator<Item = (&String, &Remembered)> {
    learned.refused.iter().filter(move |(_, known)| now < known.until)
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
    fn a_refusal_is_news_once_and_known_until_the_write_passes() {
        let (mut refusals, app, now) = (Refusals::default(), Key::new("shop", "crm"), Instant::default());
        assert_eq!(
            refusals.refused(&app, "Deployment/web", "1", refused(false), now),
            News::Yes
        );
        assert_eq!(
            refusals.refused(&app, "Deployment/web", "1", refused(false), now),
            News::No
        );
        assert_eq!(
            refusals.refused(&app, "Deployment/web", "2", refused(false), now),
            News::Yes
        );
        assert_eq!(refusals.known(&app, now).refused["Deployment/web"].hash, "2");
        refusals.accepted(&app, "Deployment/web");
        assert!(refusals.known(&app, now).refused.is_empty());
    }

    #[test]
    fn a_refusal_in_other_words_is_no_news() {
        let (mut refusals, app, now) = (Refusals::default(), Key::new("shop", "crm"), Instant::default());
        let refused = |message: &str| Refused {
            message: message.to_owned(),
            ..refused(false)
        };
        let mut news = |message| refusals.refused(&app, "Deployment/web", "1", refused(message), now);
        assert_eq!(news("refused at 12:00:00"), News::Yes);
        assert_eq!(news("refused at 12:00:01"), News::No);
        assert_eq!(news("refused at 12:00:02"), News::Announced);
    }

    #[test]
    fn a_refused_write_is_attempted_ever_less_often() {
        let (mut refusals, app, mut now) = (Refusals::default(), Key::new("shop", "crm"), Instant::default());
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(
                refusals.refused(&app, "Service/crm", "1", refused(true), now),
                News::Yes
            );
            let forgotten = refusals.forgotten(&app, now).unwrap();
            waits.push(forgotten.since(now).as_secs());
            assert!(refusals.known(&app, forgotten).refused.is_empty());
            now = forgotten;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_terminating_namespace_is_left_alone_for_a_while() {
        let (mut refusals, now) = (Refusals::default(), Instant::default());
        assert_eq!(refusals.terminating("shop", now), None);
        let until = refusals.terminates(&"shop".into(), now);
        assert_eq!(refusals.terminating("shop", now), Some(until));
        assert_eq!(refusals.terminating("cms", now), None);
        assert_eq!(refusals.terminating("shop", until), None);
    }

    #[test]
    fn of_each_object_only_the_newest_passed_dry_run_is_kept() {
        let (mut refusals, app) = (Refusals::default(), Key::new("shop", "crm"));
        assert_eq!(refusals.passed(&app, "Deployment/web", "1"), News::Yes);
        assert_eq!(refusals.passed(&app, "Deployment/web", "1"), News::No);
        refusals.passed(&app, "Deployment/worker", "1");
        refusals.passed(&app, "Deployment/web", "2");
        let told = refusals.known(&app, Instant::default()).dry_run_passed;
        assert_eq!(
            told.into_iter().collect::<Vec<_>>(),
            ["Deployment/web#2", "Deployment/worker#1"]
        );
    }
}
