//! One kind's feed, and an API server that shows what tenants made.

use super::*;
use crate::fake::{ApiServer, Asked, api_server, engine_of};
use crate::metrics::Metrics;
use fairway_engine::kinds::{App, Deployment, OwnKind};
use serde_json::json;
use tokio::task::JoinHandle;

/// A feed that runs, and both of its ends.
pub(super) struct Fed {
    pub(super) engine: Arc<SharedEngine>,
    pub(super) server: ApiServer,
    feeding: JoinHandle<()>,
}

pub(super) fn feed<K: Cached>() -> Fed {
    let (client, server) = api_server();
    let engine = Arc::new(SharedEngine::new(engine_of(&["shop"])));
    let (metrics, _) = Metrics::new();
    let feed = Feed {
        client,
        watched: Watched::new(K::KIND, Some("shop")),
        engine: engine.clone(),
        events: Events::new(metrics).0,
    };
    Fed {
        engine,
        server,
        feeding: tokio::spawn(feed.run::<K>()),
    }
}

/// What the feed of Apps shows.
fn apps() -> Watched {
    Watched::new(Kind::App, Some("shop"))
}

impl Fed {
    async fn list(&mut self, items: &[String]) -> Asked {
        let page = format!(
            r#"{{"metadata":{{"resourceVersion":"9"}},"items":[{}]}}"#,
            items.join(",")
        );
        self.server.answer_text(200, page).await
    }

    /// Answers the next watch with these events, and ends it.
    pub(super) async fn events(&mut self, events: &[(&str, &str)]) -> Asked {
        let lines = events
            .iter()
            .map(|(kind, object)| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"));
        self.server.answer_text(200, lines.collect::<String>()).await
    }

    fn apps_enqueued(&self) -> u64 {
        self.engine.with(|engine, _| engine.load(OwnKind::App).added)
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.feeding.abort();
    }
}

fn app(name: &str, version: u64, template: &str) -> String {
    format!(
        r#"{{"apiVersion":"fairway.dev/v1alpha1","kind":"App","metadata":{{"namespace":"shop","name":"{name}","uid":"{name}","resourceVersion":"{version}"}},"spec":{{"components":[{{"name":"web","template":{template}}}]}}}}"#
    )
}

fn deep() -> String {
    format!("{}0{}", r#"{"a":"#.repeat(140), "}".repeat(140))
}

fn parameter(asked: &Asked, name: &str) -> Option<String> {
    asked
        .query
        .iter()
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// S2: one tenant's App that cannot be read is set aside in a list; every other one is there, and the list is complete.
#[tokio::test(start_paused = true)]
async fn s2_an_unreadable_item_does_not_break_the_list() {
    let mut fed = feed::<App>();
    fed.list(&[app("bad", 1, &deep()), "{}".to_owned(), app("crm", 2, "{}")])
        .await;
    fed.events(&[]).await;
    fed.engine.with(|engine, _| {
        assert_eq!(engine.unreadable(), 1);
        assert!(!engine.missing().contains_key(&apps()), "the list is complete");
        assert!(engine.failing().is_empty());
        assert_eq!(engine.load(OwnKind::App).added, 1);
    });
}

/// S2: the same for events of a watch, which goes on behind them.
#[tokio::test(start_paused = true)]
async fn s2_an_unreadable_event_does_not_break_the_watch() {
    let mut fed = feed::<App>();
    fed.list(&[]).await;
    let asked = fed
        .events(&[
            ("ADDED", &app("bad", 10, &deep())),
            ("ADDED", "{}"),
            ("MODIFIED", &app("crm", 11, "{}")),
            ("BOOKMARK", r#"{"kind":"App","apiVersion":"v1","metadata":{"resourceVersion":"12","creationTimestamp":null}}"#),
        ])
        .await;
    assert_eq!(parameter(&asked, "resourceVersion").as_deref(), Some("9"));
    let asked = fed.events(&[("DELETED", &app("bad", 13, &deep()))]).await;
    assert_eq!(
        parameter(&asked, "resourceVersion").as_deref(),
        Some("12"),
        "of the bookmark"
    );
    let asked = fed.events(&[]).await;
    assert_eq!(parameter(&asked, "resourceVersion").as_deref(), Some("13"));
    assert_eq!(fed.apps_enqueued(), 1);
    fed.engine
        .with(|engine, _| assert_eq!(engine.unreadable(), 0, "it was deleted"));
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other_and_a_version_too_old_lists_again() {
    let mut fed = feed::<App>();
    let first = format!(
        r#"{{"metadata":{{"continue":"more"}},"items":[{}]}}"#,
        app("crm", 1, "{}")
    );
    let asked = fed.server.answer_text(200, first).await;
    assert_eq!(asked.what, "GET /apis/fairway.dev/v1alpha1/namespaces/shop/apps");
    assert_eq!(parameter(&asked, "limit").as_deref(), Some("100"));
    let asked = fed.list(&[app("shop", 2, "{}")]).await;
    assert_eq!(parameter(&asked, "continue").as_deref(), Some("more"));
    assert_eq!(fed.apps_enqueued(), 1, "the first page is taken in as it comes");
    fed.events(&[("ERROR", &json!({"kind": "Status", "code": 410}).to_string())])
        .await;
    let asked = fed.list(&[app("crm", 1, "{}")]).await;
    assert_eq!(parameter(&asked, "continue"), None);
    fed.events(&[]).await;
    fed.engine.with(|engine, _| assert!(engine.failing().is_empty()));
}

/// S18g: a watch that fails after the first list says so until it works again.
#[tokio::test(start_paused = true)]
async fn s18g_a_watch_that_fails_later_is_known() {
    let mut fed = feed::<App>();
    fed.list(&[]).await;
    fed.server.answer(crate::fake::failure(403, "Forbidden")).await;
    let asked = fed.events(&[("MODIFIED", &app("crm", 11, "{}"))]).await;
    assert_eq!(parameter(&asked, "resourceVersion").as_deref(), Some("9"));
    // The failure was known until that answer came.
    fed.server
        .answer(crate::fake::failure(500, "InternalError"))
        .await;
    while fed.engine.with(|engine, _| engine.failing().is_empty()) {
        tokio::task::yield_now().await;
    }
    fed.engine.with(|engine, _| {
        assert_eq!(engine.failing()[&apps()].why, "the API server answered 500");
        assert!(engine.missing().get(&apps()).is_none());
    });
    fed.events(&[("MODIFIED", &app("crm", 12, "{}"))]).await;
    fed.events(&[]).await;
    fed.engine.with(|engine, _| assert!(engine.failing().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_first_list_that_fails_says_why() {
    let mut fed = feed::<App>();
    fed.server.answer(crate::fake::failure(404, "NotFound")).await;
    // The next attempt has come, so the failure is known.
    fed.server.answer_text(200, "<html>").await;
    fed.engine.with(|engine, _| {
        assert_eq!(
            engine.missing()[&apps()],
            "its CustomResourceDefinition is not installed"
        );
    });
    fed.server.answer_text(502, "<html>hunter2</html>").await;
    fed.list(&[]).await;
    fed.events(&[]).await;
    fed.engine
        .with(|engine, _| assert!(!engine.missing().contains_key(&apps())));
}

/// S5: a Deployment that merely carries the label is not kept; one that Fairway made is, until somebody forges it away.
#[tokio::test(start_paused = true)]
async fn s5_a_tenants_deployment_is_not_kept() {
    let deployment = |name: &str, version: u64, manager: &str| {
        json!({
            "metadata": {
                "namespace": "shop", "name": name, "uid": name, "resourceVersion": version.to_string(),
                "labels": {"fairway.dev/app": "crm"}, "managedFields": [{"manager": manager}],
            },
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "web", "env": [{"name": "A", "value": "x".repeat(900_000)}]}]}}},
        })
        .to_string()
    };
    let mut fed = feed::<Deployment>();
    let items: Vec<_> = (0..12)
        .map(|number| deployment(&format!("d-{number}"), number + 1, "kubectl"))
        .collect();
    let asked = fed.list(&items).await;
    assert_eq!(
        parameter(&asked, "labelSelector").as_deref(),
        Some("fairway.dev%2Fapp")
    );
    fed.events(&[("ADDED", &deployment("crm-web-1", 20, "fairway"))])
        .await;
    fed.events(&[]).await;
    assert_eq!(cached(&fed), 1);
    fed.events(&[("MODIFIED", &deployment("crm-web-1", 21, "kubectl"))])
        .await;
    fed.events(&[]).await;
    assert_eq!(cached(&fed), 0);
}

/// Number of Deployments that the engine holds.
fn cached(fed: &Fed) -> usize {
    fed.engine.with(|engine, _| engine.cached::<Deployment>())
}

/// Feeds objects, answers and errors that cannot be read and have this value in every place.
pub(crate) async fn read_what_cannot_be_read(value: &str) {
    let of_the_wrong_type = format!(
        r#"{{"apiVersion":"fairway.dev/v1alpha1","kind":"App","metadata":{{"namespace":"shop","name":"crm","uid":"u","resourceVersion":"7","annotations":{{"a":"{value}"}}}},"spec":{{"components":[{{"name":"web","replicas":"{value}","template":{{"a":"{value}"}}}}]}}}}"#
    );
    let nameless = format!(r#"{{"metadata":{{}},"spec":"{value}"}}"#);
    let mut fed = feed::<App>();
    fed.server.answer_text(200, format!("<html>{value}</html>")).await;
    fed.server
        .answer_text(200, format!(r#"{{"metadata":{{"a":"{value}"}},"items":[]}}"#))
        .await;
    let error = json!({"kind": "Status", "code": 500, "message": value, "reason": value});
    fed.server.answer((500, error.clone())).await;
    fed.list(&[of_the_wrong_type.clone(), nameless.clone()]).await;
    fed.events(&[
        ("MODIFIED", &of_the_wrong_type.replace(r#":"7""#, r#":"8""#)),
        ("ADDED", &nameless),
    ])
    .await;
    fed.events(&[("ERROR", &error.to_string())]).await;
    fed.events(&[(value, "{}")]).await;
    fed.events(&[]).await;
}
