use super::*;
use crate::fake::{Apiserver, apiserver, failure};
use fairway_crds::ReleaseSpec;
use fairway_crds::release::ReleaseOutcome;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use tokio::sync::mpsc;

fn app() -> Key {
    Key::new("shop", "crm")
}

fn reporter() -> (Reporter, mpsc::Receiver<Notice>, Apiserver) {
    let (client, server) = apiserver();
    let (metrics, _) = Metrics::new();
    let (events, notices) = Events::new(metrics.clone());
    (
        Reporter::new(client, Arc::new(World::default()), events, metrics),
        notices,
        server,
    )
}

fn condition(kind: &str, status: &str, reason: &str) -> Condition {
    Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: format!("{reason}, in a sentence"),
        last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        observed_generation: Some(1),
    }
}

fn status(conditions: Vec<Condition>) -> ReleaseStatus {
    ReleaseStatus {
        conditions,
        ..ReleaseStatus::default()
    }
}

fn release(status: Option<ReleaseStatus>) -> Arc<Release> {
    let spec: ReleaseSpec = serde_json::from_value(json!({"app": "crm", "revision": 2})).unwrap();
    let mut release = Release::new("crm-2", spec);
    release.metadata.namespace = Some("shop".into());
    release.metadata.resource_version = Some("41".into());
    release.status = status;
    Arc::new(release)
}

fn stored(version: &str) -> (u16, serde_json::Value) {
    let mut stored = (*release(None)).clone();
    stored.metadata.resource_version = Some(version.into());
    (200, serde_json::to_value(stored).unwrap())
}

#[tokio::test]
async fn a_status_that_is_on_record_is_not_written() {
    let (reporter, _, server) = reporter();
    let status = status(vec![condition("Succeeded", "Unknown", "StartingPods")]);
    let committed = reporter
        .commit(&app(), &release(Some(status.clone())), status)
        .await;
    assert_eq!(committed, Ok(Committed::Unchanged));
    server.asked_nothing_more(reporter).await;
}

#[tokio::test]
async fn a_status_is_written_for_exactly_the_object_observed_and_told_as_an_event() {
    let (reporter, mut notices, mut server) = reporter();
    let (app, observed) = (app(), release(None));
    let status = status(vec![condition("Succeeded", "Unknown", "StartingPods")]);
    let (committed, asked) = tokio::join!(
        reporter.commit(&app, &observed, status),
        server.answer(stored("42"))
    );
    assert_eq!(committed, Ok(Committed::Yes));
    assert_eq!(
        asked.what,
        "PUT /apis/fairway.dev/v1alpha1/namespaces/shop/releases/crm-2/status"
    );
    assert_eq!(asked.query, ["fieldManager=fairway"]);
    assert_eq!(asked.body["metadata"]["resourceVersion"], "41");
    assert_eq!(asked.body["status"]["conditions"][0]["reason"], "StartingPods");
    let notice = notices.try_recv().unwrap();
    assert_eq!(
        (notice.reason.as_str(), notice.message.as_str()),
        ("StartingPods", "StartingPods, in a sentence")
    );
    assert_eq!(notice.kind, Loudness::Normal);
    assert_eq!(notice.about.name.as_deref(), Some("crm-2"));
    let work = crate::key::Work::new(crate::key::Reconciled::Release, app.sibling("crm-2"));
    let view = reporter.world.view(&app, &work, |_| Some(()));
    assert!(
        matches!(view, crate::world::View::Stale(_)),
        "the next pass must see this status: {view:?}"
    );
}

#[tokio::test]
async fn an_object_that_was_changed_or_deleted_meanwhile_is_left_to_its_event() {
    for (code, reason) in [(409, "Conflict"), (404, "NotFound")] {
        let (reporter, mut notices, mut server) = reporter();
        let (app, observed) = (app(), release(None));
        let status = status(vec![condition("Succeeded", "Unknown", "StartingPods")]);
        let (committed, _) = tokio::join!(
            reporter.commit(&app, &observed, status),
            server.answer(failure(code, reason))
        );
        assert_eq!(committed, Ok(Committed::Outdated));
        assert!(notices.try_recv().is_err(), "what is not on record is not told");
    }
}

#[tokio::test]
async fn an_end_is_counted_once() {
    let (client, mut server) = apiserver();
    let (metrics, registry) = Metrics::new();
    let (events, _notices) = Events::new(metrics.clone());
    let reporter = Reporter::new(client, Arc::new(World::default()), events, metrics);
    let ended = ReleaseStatus {
        outcome: Some(ReleaseOutcome::RolledBack),
        ..ReleaseStatus::default()
    };
    let later = ReleaseStatus {
        observed_generation: Some(2),
        ..ended.clone()
    };
    let app = app();
    for (before, after) in [(None, ended.clone()), (Some(ended), later)] {
        let observed = release(before);
        let (committed, _) = tokio::join!(
            reporter.commit(&app, &observed, after),
            server.answer(stored("42"))
        );
        assert_eq!(committed, Ok(Committed::Yes));
    }
    let text = crate::metrics::text(&registry).unwrap();
    assert!(
        text.contains(r#"fairway_releases_total{outcome="RolledBack"} 1"#),
        "{text}"
    );
}

#[test]
fn only_a_new_reason_or_verdict_is_news_and_failures_are_warnings() {
    let before = [condition(SUCCEEDED, "Unknown", "Baking")];
    assert!(news(SUCCEEDED, &before, &before).is_none());
    let failed = [
        condition(SUCCEEDED, "False", "Unhealthy"),
        condition(STALLED, "True", "Unhealthy"),
    ];
    assert_eq!(
        news(SUCCEEDED, &before, &failed).map(|(kind, _)| kind),
        Some(Loudness::Warning)
    );
    let waits = [
        condition(SUCCEEDED, "Unknown", "MigrationUnknown"),
        condition(STALLED, "True", "MigrationUnknown"),
    ];
    assert_eq!(
        news(SUCCEEDED, &before, &waits).map(|(kind, _)| kind),
        Some(Loudness::Warning)
    );
    let done = [condition(SUCCEEDED, "True", "Succeeded")];
    assert_eq!(
        news(SUCCEEDED, &before, &done).map(|(kind, _)| kind),
        Some(Loudness::Normal)
    );
}
