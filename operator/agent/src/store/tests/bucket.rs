//! A bucket in memory, whose server a test can make refuse requests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use fairway_protocol::{
    STORE_ACCESS_KEY_ID_VARIABLE, STORE_SECRET_ACCESS_KEY_VARIABLE, Store as StoreOptions,
};
use serde_json::json;

use crate::{
    environment::Environment,
    store::{Store, open},
};

/// Answer of a server that lists no object at all.
const EMPTY_LIST: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

/// Which requests are refused, by method, path and conditions, and with what status and code.
type Refusals = Box<dyn Fn(&str) -> Option<(StatusCode, &'static str)> + Send + Sync>;

/// A bucket behind a server of its own.
pub(super) struct Bucket {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    refusals: Refusals,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    requests: Mutex<Vec<String>>,
}

impl Bucket {
    /// An empty bucket, whose server refuses some requests without a word.
    pub(super) async fn new(refusals: fn(&str) -> Option<StatusCode>) -> Self {
        Self::that_says(move |asked| Some((refusals(asked)?, ""))).await
    }

    /// An empty bucket, whose server refuses some requests with a code of its own.
    pub(super) async fn that_says(
        refusals: impl Fn(&str) -> Option<(StatusCode, &'static str)> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            refusals: Box::new(refusals),
            objects: Mutex::default(),
            requests: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, shared }
    }

    /// The store that is this bucket.
    pub(super) fn store(&self) -> Box<dyn Store> {
        let key = |key: &str| json!({"secretKeyRef": {"name": "bucket", "key": key}});
        let options: StoreOptions = serde_json::from_value(json!({"s3": {
            "bucket": "backups",
            "endpoint": format!("http://127.0.0.1:{}", self.port),
            "credentialsFrom": {"accessKeyId": key("id"), "secretAccessKey": key("secret")},
        }}))
        .unwrap();
        let variables = [STORE_ACCESS_KEY_ID_VARIABLE, STORE_SECRET_ACCESS_KEY_VARIABLE]
            .map(|name| (name.into(), "key".into()));
        open(&options, &Environment::of_process(variables.into())).unwrap()
    }

    /// Paths of the objects that it holds.
    pub(super) fn paths(&self) -> Vec<String> {
        locked(&self.shared.objects).keys().cloned().collect()
    }

    /// Adds an object, as another client does.
    pub(super) fn insert(&self, path: &str, content: &[u8]) {
        locked(&self.shared.objects).insert(path.to_owned(), content.to_owned());
    }

    /// The requests that came, as method, path with query, and the names of their conditions.
    pub(super) fn requests(&self) -> Vec<String> {
        locked(&self.shared.requests).clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    // A range is always the whole object here.
    let is_range = request.headers().contains_key(header::RANGE);
    let conditions: String = [header::IF_NONE_MATCH, header::IF_MATCH]
        .iter()
        .filter(|name| request.headers().contains_key(*name))
        .map(|name| format!(" {name}"))
        .collect();
    let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let asked = format!("{method} {uri}{conditions}");
    locked(&shared.requests).push(asked.clone());
    match (shared.refusals)(&asked) {
        Some((status, "")) => return status.into_response(),
        Some((status, code)) => {
            // Servers repeat what was sent.
            let body = format!(
                "<Error><Code>{code}</Code><Message>canary {}</Message></Error>",
                uri.path()
            );
            return (status, body).into_response();
        }
        None => {}
    }
    let mut objects = locked(&shared.objects);
    let path = uri.path().to_owned();
    match method {
        Method::PUT => {
            objects.insert(path, body.to_vec());
            StatusCode::OK.into_response()
        }
        Method::DELETE => {
            objects.remove(&path);
            StatusCode::NO_CONTENT.into_response()
        }
        _ if uri.query().is_some() => EMPTY_LIST.into_response(),
        _ => match objects.get(&path) {
            Some(object) if is_range => {
                let (length, last) = (object.len(), object.len() - 1);
                let range = (header::CONTENT_RANGE, format!("bytes 0-{last}/{length}"));
                (StatusCode::PARTIAL_CONTENT, [range], object.clone()).into_response()
            }
            Some(object) => object.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
