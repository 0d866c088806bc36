//! What this process has learned from answers that leave nothing behind in the cluster: refusals and dry runs.
//! Lost with the process, and learned again by the next one.

use crate::clock::Instant;
use crate::key::NamespacedName;
use fairway_plan::observed::Refusal;
use fairway_plan::{object, retry};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How many versions of one object have their refusals remembered, and how many their passed dry runs. A planner may ask for
/// several of them in one state: a Deployment with the images that the App names, and with those that the release has pinned; a
/// Service for the release that it serves, and for the one that is to follow.
const VERSIONS: usize = 4;

/// How many dry runs that passed are remembered of an App. Each release adds some; beyond that all are forgotten, and asked for
/// again where they are needed. One state of an App needs far fewer.
const DRY_RUNS: usize = 256;

/// How long nothing more is created in a namespace that is being deleted. Each object that goes with it asks for a
/// pass, and thousands of them would have the API server refuse as many writes; a new namespace of the same name
/// waits no longer than this.
const TERMINATING: Duration = Duration::from_secs(10);

/// Answers by App, and by namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    apps: BTreeMap<NamespacedName, Learned>,
    terminating: BTreeMap<Arc<str>, Instant>,
}

#[derive(Clone, Debug, Default)]
struct Learned {
    /// By `Kind/name#hash`.
    refused: BTreeMap<String, Remembered>,
    /// Dry runs that passed, by `Kind/name#hash`, and what the API server warned of in them.
    dry_run_passed: BTreeMap<String, Vec<String>>,
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
    /// Refusals by `Kind/name#hash`.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// Dry runs that passed, as `Kind/name#hash`.
    pub(crate) dry_run_passed: BTreeSet<String>,
    /// What the API server warned of in dry runs that passed, by `Kind/name#hash`.
    pub(crate) warnings: BTreeMap<String, Vec<String>>,
}

impl Answers {
    /// Remembers that the write of `id` with this hash was refused.
    pub(crate) fn refused(
        &mut self,
        app: &NamespacedName,
        id: &str,
        hash: &str,
        refusal: Refusal,
        now: Instant,
    ) -> News {
        let learned = &mut self.apps.entry(app.clone()).or_default().refused;
        // Drops refusals of writes that no planner asks for any more.
        learned.retain(|_, known| now < known.until + retry::LONGEST_PAUSE);
        // The same write, whatever the words of the answer: some name a moment or a version, and differ each time.
        let key = object::key(id, hash);
        let same = learned.get(&key);
        let times = same.map_or(0, |known| known.times).saturating_add(1);
        let news = match same {
            None => News::Yes,
            Some(known) if known.until <= now => News::Yes,
            Some(known) if known.insisted => News::Announced,
            Some(_) => News::No,
        };
        let insisted = same.is_some_and(|known| known.insisted) || news == News::No;
        let until = now + retry::backoff(times);
        if same.is_none() && learned.keys().filter(|known| is_of(known, id)).count() >= VERSIONS {
            learned.retain(|known, _| !is_of(known, id));
        }
        learned.insert(
            key,
            Remembered {
                refusal,
                times,
                insisted,
                until,
            },
        );
        news
    }

    /// Remembers that the dry run of `id` with this hash passed, with these warnings.
    pub(crate) fn passed(
        &mut self,
        app: &NamespacedName,
        id: &str,
        hash: &str,
        warnings: Vec<String>,
    ) -> News {
        let learned = self.apps.entry(app.clone()).or_default();
        let key = object::key(id, hash);
        learned.refused.remove(&key);
        let versions = learned.dry_run_passed.keys().filter(|known| is_of(known, id));
        if versions.count() >= VERSIONS {
            learned.dry_run_passed.retain(|known, _| !is_of(known, id));
        }
        if learned.dry_run_passed.len() >= DRY_RUNS {
            learned.dry_run_passed.clear();
        }
        match learned.dry_run_passed.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(warnings);
                News::Yes
            }
            Entry::Occupied(mut entry) => {
                if !warnings.is_empty() {
                    entry.insert(warnings);
                }
                News::No
            }
        }
    }

    /// Forgets the refusals of `id`, because a write of it went through.
    pub(crate) fn accepted(&mut self, app: &NamespacedName, id: &str) {
        if let Some(learned) = self.apps.get_mut(app) {
            learned.refused.retain(|known, _| !is_of(known, id));
        }
    }

    /// What the planner of a Release of this App sees now.
    pub(crate) fn known(&self, app: &NamespacedName, now: Instant) -> Known {
        let Some(learned) = self.apps.get(app) else {
            return Known::default();
        };
        Known {
            refused: valid(learned, now)
                .map(|(id, known)| (id.clone(), known.refusal.clone()))
                .collect(),
            dry_run_passed: learned.dry_run_passed.keys().cloned().collect(),
            warnings: learned
                .dry_run_passed
                .iter()
                .filter(|(_, warnings)| !warnings.is_empty())
                .map(|(key, warnings)| (key.clone(), warnings.clone()))
                .collect(),
        }
    }

    /// When the first refusal of this App is forgotten.
    pub(crate) fn forgotten(&self, app: &NamespacedName, now: Instant) -> Option<Instant> {
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
    pub(crate) fn forget(&mut self, app: &NamespacedName) {
        self.apps.remove(app);
    }
}

/// Whether a write is one of that object.
fn is_of(key: &str, id: &str) -> bool {
    key.strip_prefix(id).is_some_and(|rest| rest.starts_with('#'))
}

fn valid(learned: &Learned, now: Instant) -> impl Iterator<Item = (&String, &Remembered)> {
    learned.refused.iter().filter(move |(_, known)| now < known.until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(may_pass: bool) -> Refusal {
        Refusal {
            message: "no".into(),
            conflicts: Vec::new(),
            may_pass,
        }
    }

    #[test]
    fn a_refusal_is_news_once_and_known_until_the_write_passes() {
        let (mut answers, app, now) = (
            Answers::default(),
            NamespacedName::new("shop", "crm"),
            Instant::default(),
        );
        assert_eq!(
            answers.refused(&app, "Deployment/web", "1", refused(false), now),
            News::Yes
        );
        assert_eq!(
            answers.refused(&app, "Deployment/web", "1", refused(false), now),
            News::No
        );
        assert_eq!(
            answers.refused(&app, "Deployment/web", "2", refused(false), now),
            News::Yes
        );
        let known = answers.known(&app, now).refused;
        assert!(known.keys().eq(["Deployment/web#1", "Deployment/web#2"]));
        answers.accepted(&app, "Deployment/web");
        assert!(answers.known(&app, now).refused.is_empty());
    }

    /// A Service for the release that it serves, and for the one that is to follow: the answer to one is not forgotten for that
    /// to the other, which would have each asked for ever again.
    #[test]
    fn refusals_of_two_versions_are_both_remembered_and_few_more() {
        let (mut answers, app, now) = (
            Answers::default(),
            NamespacedName::new("shop", "crm"),
            Instant::default(),
        );
        let mut news = |hash: &str| answers.refused(&app, "Service/crm", hash, refused(true), now);
        assert_eq!([news("1"), news("2")], [News::Yes, News::Yes]);
        assert_eq!([news("1"), news("2")], [News::No, News::No]);
        for hash in 3..100 {
            assert_eq!(news(&hash.to_string()), News::Yes);
        }
        assert!(answers.known(&app, now).refused.len() <= VERSIONS);
    }

    #[test]
    fn a_refusal_in_other_words_is_no_news() {
        let (mut answers, app, now) = (
            Answers::default(),
            NamespacedName::new("shop", "crm"),
            Instant::default(),
        );
        let refused = |message: &str| Refusal {
            message: message.to_owned(),
            ..refused(false)
        };
        let mut news = |message| answers.refused(&app, "Deployment/web", "1", refused(message), now);
        assert_eq!(news("refused at 12:00:00"), News::Yes);
        assert_eq!(news("refused at 12:00:01"), News::No);
        assert_eq!(news("refused at 12:00:02"), News::Announced);
    }

    #[test]
    fn a_refused_write_is_attempted_ever_less_often() {
        let (mut answers, app, mut now) = (
            Answers::default(),
            NamespacedName::new("shop", "crm"),
            Instant::default(),
        );
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(
                answers.refused(&app, "Service/crm", "1", refused(true), now),
                News::Yes
            );
            let forgotten = answers.forgotten(&app, now).unwrap();
            waits.push(forgotten.since(now).as_secs());
            assert!(answers.known(&app, forgotten).refused.is_empty());
            now = forgotten;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_terminating_namespace_is_left_alone_for_a_while() {
        let (mut answers, now) = (Answers::default(), Instant::default());
        assert_eq!(answers.terminating("shop", now), None);
        let until = answers.terminates(&"shop".into(), now);
        assert_eq!(answers.terminating("shop", now), Some(until));
        assert_eq!(answers.terminating("cms", now), None);
        assert_eq!(answers.terminating("shop", until), None);
    }

    /// S5: a team that edits its App all day long adds pods of other names with each release.
    #[test]
    fn s5_passed_dry_runs_and_their_warnings_are_bounded() {
        let (mut answers, app) = (Answers::default(), NamespacedName::new("shop", "crm"));
        for number in 0..10_000 {
            let id = format!("Pod/crm-web-{number}");
            assert_eq!(answers.passed(&app, &id, "1", vec!["no".to_owned()]), News::Yes);
            let known = answers.known(&app, Instant::default());
            assert_eq!(known.warnings[&format!("{id}#1")], ["no"]);
            assert!(known.dry_run_passed.len() <= DRY_RUNS && known.warnings.len() <= DRY_RUNS);
        }
    }

    #[test]
    fn of_each_object_some_passed_dry_runs_are_kept() {
        let (mut answers, app) = (Answers::default(), NamespacedName::new("shop", "crm"));
        assert_eq!(answers.passed(&app, "Deployment/web", "1", Vec::new()), News::Yes);
        assert_eq!(answers.passed(&app, "Deployment/web", "1", Vec::new()), News::No);
        answers.passed(&app, "Deployment/worker", "1", Vec::new());
        let known = |answers: &Answers| -> Vec<_> {
            let known = answers.known(&app, Instant::default()).dry_run_passed;
            known.into_iter().collect()
        };
        for version in ["2", "3", "4"] {
            answers.passed(&app, "Deployment/web", version, Vec::new());
        }
        assert_eq!(
            known(&answers),
            [
                "Deployment/web#1",
                "Deployment/web#2",
                "Deployment/web#3",
                "Deployment/web#4",
                "Deployment/worker#1"
            ]
        );
        answers.passed(&app, "Deployment/web", "5", Vec::new());
        assert_eq!(known(&answers), ["Deployment/web#5", "Deployment/worker#1"]);
    }
}
