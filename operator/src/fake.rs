//! For tests: an engine, and a fake API server that shows what was asked and gives the answer of the test.

use fairway_engine::kinds::Release;
use fairway_engine::{Cached, Engine, ForKind, Now, for_each};
use fairway_plan::observed::Settings;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use tower_test::mock::Handle;

/// An engine that has seen nothing yet.
pub(crate) fn engine() -> Engine {
    engine_of(&[])
}

/// An engine for these namespaces that has seen nothing yet.
pub(crate) fn engine_of(namespaces: &[&str]) -> Engine {
    let settings = Settings {
        agent_image: "fairway".into(),
        agent_pull_secrets: Vec::new(),
        agent_pull_policy: "IfNotPresent".into(),
        agent_pods: Default::default(),
        agent_of_app: Default::default(),
        probe_key: fairway_plan::probe_token::ProbeKey::new([0; 32]),
    };
    let namespaces: Vec<_> = namespaces
        .iter()
        .map(|namespace| (*namespace).to_owned())
        .collect();
    Engine::of_namespaces(settings, 1, &namespaces)
}

/// Ends the first list of every kind; none holds an object.
pub(crate) fn complete(engine: &mut Engine, now: Now) {
    complete_in(engine, None, now);
}

/// Ends the first list of every kind in a namespace, or in all; none holds an object.
pub(crate) fn complete_in(engine: &mut Engine, namespace: Option<&str>, now: Now) {
    struct Complete<'a>(&'a mut Engine, Option<&'a str>, Now);

    impl ForKind for Complete<'_> {
        fn visit<K: Cached>(&mut self) {
            self.0.listed::<K>(self.1, &BTreeSet::new(), self.2);
        }
    }

    for_each(&mut Complete(engine, namespace, now));
}

/// A Release of App crm that has just been created.
pub(crate) fn release(name: &str) -> Release {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Release",
        "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "2"},
        "spec": {"app": "crm", "revision": 1},
    }))
    .unwrap()
}

/// The body of an answer.
pub(crate) type Reply = BoxBody<Bytes, Infallible>;

/// The API server's side.
pub(crate) struct ApiServer {
    requests: Handle<Request<Body>, Response<Reply>>,
}

/// A request as the API server saw it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// `PATCH /apis/apps/v1/namespaces/shop/deployments/crm-web-2`
    pub(crate) what: String,
    /// Query parameters in the order of their names.
    pub(crate) query: Vec<String>,
    /// The body; null when there was none.
    pub(crate) body: Value,
}

/// A client and its API server.
pub(crate) fn api_server() -> (Client, ApiServer) {
    let (service, requests) = tower_test::mock::pair();
    (Client::new(service, "default"), ApiServer { requests })
}

/// An error answer.
pub(crate) fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("the fake says {reason}"),
    });
    (code, status)
}

impl ApiServer {
    /// Takes the next request and answers it.
    pub(crate) async fn answer(&mut self, (code, body): (u16, Value)) -> Asked {
        self.answer_text(code, serde_json::to_vec(&body).unwrap()).await
    }

    /// Takes the next request and answers it with these bytes.
    pub(crate) async fn answer_text(&mut self, code: u16, answer: impl Into<Vec<u8>>) -> Asked {
        self.answer_body(code, Full::new(answer.into().into()).boxed())
            .await
    }

    /// Takes the next request and answers it, with these warnings.
    pub(crate) async fn answer_with_warnings(
        &mut self,
        (code, body): (u16, Value),
        warnings: &[&str],
    ) -> Asked {
        let body = Full::new(serde_json::to_vec(&body).unwrap().into()).boxed();
        let answer = Response::builder().status(code);
        let answer = warnings
            .iter()
            .fold(answer, |answer, warning| answer.header("Warning", *warning));
        self.answer_response(answer.body(body).unwrap()).await
    }

    /// Takes the next request and answers it with this body.
    pub(crate) async fn answer_body(&mut self, code: u16, answer: Reply) -> Asked {
        self.answer_response(Response::builder().status(code).body(answer).unwrap())
            .await
    }

    async fn answer_response(&mut self, answer: Response<Reply>) -> Asked {
        let (request, respond) = self.requests.next_request().await.expect("the client asks");
        let (parts, asked) = request.into_parts();
        let asked = asked.collect().await.unwrap().to_bytes();
        respond.send_response(answer);
        let mut query: Vec<String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(str::to_owned)
            .collect();
        query.sort();
        Asked {
            what: format!("{} {}", parts.method, parts.uri.path()),
            query,
            body: serde_json::from_slice(&asked).unwrap_or_default(),
        }
    }
}
