//! A bucket in memory, whose server a test can make refuse requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use fairway_protocol::{
    STORE_ACCESS_KEY_ID_VARIABLE, STORE_SECRET_ACCESS_KEY_VARIABLE, Store as StoreOptions,
};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::{
    environment::Environment,
    store::{Store, open},
};

/// Answer of a server that lists no object at all.
const EMPTY_LIST: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

/// Which requests are refused, by method, path and conditions, and with what status and code.
type Refusals = Box<dyn Fn(&str) -> Option<(StatusCode, &'static str)> + Send + Sync>;

/// A header of the answers to some requests, by method and path.
type Headers = fn(&str) -> Option<(&'static str, &'static str)>;

/// A bucket behind a server of its own.
pub(super) struct Bucket {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    refusals: Refusals,
    /// The header that the server adds, once it lists what it holds.
    lists: Mutex<Option<Headers>>,
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
            lists: Mutex::default(),
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

    /// Lets the server list what it holds, and add a header to some answers.
    pub(super) fn list(&self, headers: Headers) {
        *locked(&self.shared.lists) = Some(headers);
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
    let asked = format!("{} {}", request.method(), request.uri());
    let header = locked(&shared.lists).and_then(|headers| headers(&asked));
    let mut answer = answer_plainly(&shared, request).await;
    if let Some((name, value)) = header {
        let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// The keys below the prefix that a list asks for: each object, or the folder in which it lies.
fn list(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let prefix = pairs
        .filter(|(name, _)| *name == "prefix")
        .map(|(_, value)| value)
        .next();
    let prefix = percent_decode_str(prefix.unwrap_or_default())
        .decode_utf8_lossy()
        .into_owned();
    let mut folders = BTreeSet::new();
    let mut list = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    for (path, content) in objects {
        let key = path.trim_start_matches("/backups/");
        let Some(rest) = key.strip_prefix(&prefix) else {
            continue;
        };
        match rest.split_once('/') {
            Some((folder, _)) => {
                folders.insert(format!("{prefix}{folder}/"));
            }
            None => list.push_str(&format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>",
                content.len()
            )),
        }
    }
    for folder in folders {
        list.push_str(&format!(
            "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
        ));
    }
    list + "</ListBucketResult>"
}

async fn answer_plainly(shared: &Shared, request: Request) -> Response {
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
        _ if uri.query().is_some() => {
            let query = uri.query().filter(|query| query.contains("list-type"));
            let lists = locked(&shared.lists).is_some();
            match query.filter(|_| lists) {
                Some(query) => list(&objects, query).into_response(),
                None => EMPTY_LIST.into_response(),
            }
        }
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
