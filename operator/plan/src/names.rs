//! Names of owned objects: all deterministic, so that an object created twice is the same object. Those of the agent's
//! Jobs and pods follow from [`crate::tasks`].
//!
//! Lengths: an App has at most 30 characters, a component 16, a revision 6 digits. A Deployment's name is at
//! most 55, which leaves room for suffixes within the 63 of a label value.
//!
//! Names of two Apps never meet, whatever their Apps and components are called: read from its end, each of these names has
//! one meaning.

use fairway_crds::{Migration, Release};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

/// A Release, its ControllerRevision and Migration: `crm-42`.
pub fn release(app: &str, revision: i64) -> String {
    format!("{app}-{revision}")
}

/// The revision in the name of a Release or ControllerRevision of an App.
pub fn revision(app: &str, release: &str) -> Option<i64> {
    release.strip_prefix(app)?.strip_prefix('-')?.parse().ok()
}

/// The Backup of a release: with a part of the Release's UID, because backups outlive their App and another App
/// of the same name counts its revisions from 1 again. A release that is held for long takes more than one.
pub fn backup(release: &str, release_uid: &str, number: u32) -> String {
    let first = format!("{release}-{}", &release_uid[..release_uid.len().min(8)]);
    match number {
        0 | 1 => first,
        _ => format!("{first}-{number}"),
    }
}

/// The Backup of a run of an App's schedule: `crm-20260102t0115z`, with the time of the run in UTC. Another App of the same
/// name that is created later has no run of that time.
pub fn scheduled_backup(app: &str, run: Timestamp) -> String {
    let time = TimeZone::UTC.to_datetime(run);
    format!(
        "{app}-{:04}{:02}{:02}t{:02}{:02}z",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute()
    )
}

/// The final Backup of an App that was asked for with this text: `crm-final-1a2b3c4d`. The UID tells it from that of another App
/// of the same name.
pub fn final_backup(app: &str, uid: &str, asked: &str) -> String {
    let hash = short_hash(serde_json::json!([uid, asked]).to_string());
    format!("{app}-final-{}", &hash[..8])
}

/// The run in the name of a scheduled Backup of an App. Whoever may create Backups can give one such a name.
pub fn scheduled_run(app: &str, backup: &str) -> Option<Timestamp> {
    let time = backup.strip_prefix(app)?.strip_prefix('-')?;
    let (date, time) = time.strip_suffix('z')?.split_once('t')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if date.len() != 8 || time.len() != 4 || !is_number(date) || !is_number(time) {
        return None;
    }
    let (month, day) = (date[4..6].parse().ok()?, date[6..].parse().ok()?);
    let date = Date::new(date[..4].parse().ok()?, month, day).ok()?;
    let time = Time::new(time[..2].parse().ok()?, time[2..].parse().ok()?, 0, 0).ok()?;
    TimeZone::UTC.to_timestamp(DateTime::from_parts(date, time)).ok()
}

/// The Deployment of one component of one release: `crm-web-42`, and `crm--api-web-42` where the component has a hyphen.
///
/// No two Apps of a namespace have a name in common: an App's own name contains no two hyphens in a row, so that they end
/// it; without them, what stands between the last two hyphens is the component.
pub fn deployment(app: &str, component: &str, revision: i64) -> String {
    let separator = if component.contains('-') { "--" } else { "-" };
    format!("{app}{separator}{component}-{revision}")
}

/// The name that [`deployment`] gave until 0.1, by which App `shop` with component `api-web` met App `shop-api` with
/// component `web`. A Deployment that has it keeps it.
pub fn former_deployment(app: &str, component: &str, revision: i64) -> String {
    format!("{app}-{component}-{revision}")
}

/// The pod that asks health requests with headers from Secrets, by the hash of its token.
pub fn probe_pod(release: &str, token_sha256: &str) -> String {
    format!("{release}-probe-{}", &token_sha256[..token_sha256.len().min(8)])
}

/// Key of a run's row in the ledger: the same for every pass and every pod that may attempt the run, another one for
/// each Release, and for a Migration applied by hand for each object.
pub fn run_id(migration: &Migration, release: Option<&Release>) -> String {
    let requester = match (&migration.spec.release, release) {
        (Some(_), Some(release)) => release.metadata.uid.as_deref(),
        _ => migration.metadata.uid.as_deref(),
    };
    let spec = &migration.spec;
    let key = serde_json::json!([
        migration.metadata.namespace,
        spec.app,
        requester,
        spec.image,
        spec.command
    ]);
    short_hash(key.to_string())
}

/// SHA-256 as 64 hex digits.
pub fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes.as_ref())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The first 16 hex digits of a SHA-256: enough to tell two specs of one App apart.
pub fn short_hash(bytes: impl AsRef<[u8]>) -> String {
    let mut hash = sha256_hex(bytes);
    hash.truncate(16);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::TASKS;
    use std::collections::BTreeMap;

    /// Names of Apps and components that look like parts of derived names.
    const APPS: [&str; 12] = [
        "shop",
        "shop-api",
        "shop-api-web",
        "shop-1",
        "shop-1-2",
        "shop-web",
        "shop-1-run",
        "shop-1-pin-1",
        "shop-api-1",
        "shop-web-1",
        "a",
        "a-b",
    ];
    const COMPONENTS: [&str; 10] = [
        "web", "api-web", "api--web", "b-1", "b", "api", "web-1", "run", "pin-1", "x-1-2",
    ];

    #[test]
    fn f16_names_of_deployments_of_two_apps_never_meet() {
        let mut known = BTreeMap::new();
        for app in APPS {
            for component in COMPONENTS {
                for revision in [1, 2, 11, 12] {
                    let whose = (app, component, revision);
                    let other = known.insert(deployment(app, component, revision), whose);
                    assert_eq!(other, None, "{whose:?}");
                }
            }
        }
    }

    #[test]
    fn f16_names_of_the_agents_jobs_and_pods_of_two_apps_never_meet() {
        let mut known = BTreeMap::new();
        for app in APPS {
            for revision in [1, 2, 11] {
                let release = release(app, revision);
                let backups = [1, 2].map(|number| backup(&release, "1a2b3c4d-5e6f", number));
                for (index, work_for) in [release.clone()].into_iter().chain(backups).enumerate() {
                    for task in TASKS {
                        // The same name for the same Migration, in one of two forms.
                        if (task.work_for == crate::object::Kind::Backup) != (index > 0)
                            || task.work_for == crate::object::Kind::Restore
                            || task.name == "guard"
                        {
                            continue;
                        }
                        for attempt in [1, 2] {
                            for part in
                                ["", "-2", "-2-digest"]
                                    .iter()
                                    .take(if task.name == "pin" { 3 } else { 1 })
                            {
                                let name = format!("{}{part}", task.child(&work_for, attempt));
                                let whose = (app, task.name, work_for.clone(), attempt, *part);
                                let other = known.insert(name, whose.clone());
                                assert_eq!(other, None, "{whose:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_scheduled_backup_is_named_by_its_run() {
        let run: Timestamp = "2026-01-02T01:15:00Z".parse().unwrap();
        let name = scheduled_backup("crm", run);
        assert_eq!(name, "crm-20260102t0115z");
        assert_eq!(scheduled_run("crm", &name), Some(run));
        assert!(
            name.len() + 30 - "crm".len() <= 52,
            "the longest name of an App fits"
        );
        for other in [
            "crm-20260102t0115",
            "crm-20261302t0115z",
            "crm-20260102t2460z",
            "crm-2026+102t0115z",
            "crm-x-20260102t0115z",
            "crm-42-1a2b3c4d",
            "crm20260102t0115z",
            "crm-\u{fc}\u{fc}\u{fc}\u{fc}t0115z",
        ] {
            assert_eq!(scheduled_run("crm", other), None, "{other}");
        }
    }

    #[test]
    fn f16_a_component_without_a_hyphen_keeps_its_name() {
        assert_eq!(deployment("crm", "web", 42), former_deployment("crm", "web", 42));
        assert_eq!(deployment("shop", "api-web", 1), "shop--api-web-1");
    }
}
