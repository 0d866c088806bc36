//! Faults at writes, for tests: compiled in only with the feature `fault-injection`.
//!
//! `FAIRWAY_FAULT` says which, counting from 1 this process's writes of anything but Leases and Events:
//! `crash-before-write:n`, `crash-after-write:n`, `lose-response:n`, `error:n:code`. With `FAIRWAY_FAULT_MARK`,
//! a path on a volume that outlives the container, the fault happens once and not again after the restart.

use futures::future::BoxFuture;
use hyper::{Method, Request, Response};
use kube::client::Body;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tower::{BoxError, Layer, Service};

/// Exit code of a crash, as if by SIGKILL.
const KILLED: i32 = 137;

/// What happens at the n-th write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    CrashBeforeWrite(u64),
    CrashAfterWrite(u64),
    LoseResponse(u64),
    Error(u64, u16),
}

/// Puts the fault of the environment into a client.
#[derive(Clone, Debug)]
pub(crate) struct FaultLayer {
    fault: Fault,
    mark: Option<PathBuf>,
    writes: Arc<AtomicU64>,
}

impl FaultLayer {
    /// The fault that `FAIRWAY_FAULT` names; none when it is not set.
    ///
    /// # Panics
    /// When it names none that there is: a test that believes to inject one must not pass.
    pub(crate) fn from_environment() -> Self {
        let fault = match std::env::var("FAIRWAY_FAULT") {
            Ok(text) => match parse(&text) {
                Some(fault) => fault,
                None => panic!("FAIRWAY_FAULT={text} is no fault; see operator/src/fault.rs"),
            },
            Err(_) => Fault::None,
        };
        let mark = std::env::var_os("FAIRWAY_FAULT_MARK").map(PathBuf::from);
        let fault = if mark.as_ref().is_some_and(|mark| mark.exists()) {
            Fault::None
        } else {
            fault
        };
        Self {
            fault,
            mark,
            writes: Arc::default(),
        }
    }
}

fn parse(text: &str) -> Option<Fault> {
    let parts: Vec<&str> = text.split(':').collect();
    Some(match *parts.as_slice() {
        [""] => Fault::None,
        ["crash-before-write", n] => Fault::CrashBeforeWrite(n.parse().ok()?),
        ["crash-after-write", n] => Fault::CrashAfterWrite(n.parse().ok()?),
        ["lose-response", n] => Fault::LoseResponse(n.parse().ok()?),
        ["error", n, code] => Fault::Error(n.parse().ok()?, code.parse().ok()?),
        _ => return None,
    })
}

impl<S> Layer<S> for FaultLayer {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty {
            inner,
            fault: self.fault,
            mark: self.mark.clone(),
            writes: self.writes.clone(),
        }
    }
}

/// See [`FaultLayer`].
#[derive(Clone, Debug)]
pub(crate) struct Faulty<S> {
    inner: S,
    fault: Fault,
    mark: Option<PathBuf>,
    writes: Arc<AtomicU64>,
}

fn counts(request: &Request<Body>) -> bool {
    let path = request.uri().path();
    *request.method() != Method::GET && !path.contains("/leases") && !path.contains("/events")
}

impl<S, B> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let number = if counts(&request) {
            self.writes.fetch_add(1, Ordering::SeqCst) + 1
        } else {
            0
        };
        let (fault, mark) = (self.fault, self.mark.clone());
        let hit = move |n: u64| {
            let hit = number != 0 && n == number;
            if let (true, Some(mark)) = (hit, &mark) {
                assert!(
                    std::fs::write(mark, "").is_ok(),
                    "FAIRWAY_FAULT_MARK cannot be written"
                );
            }
            hit
        };
        match fault {
            Fault::CrashBeforeWrite(n) if hit(n) => std::process::exit(KILLED),
            Fault::Error(n, code) if hit(n) => {
                let status = kube::core::Status::failure("injected", "Injected").with_code(code);
                return Box::pin(async move { Err(kube::Error::Api(status.boxed()).into()) });
            }
            _ => {}
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await.map_err(Into::into)?;
            match fault {
                Fault::CrashAfterWrite(n) if hit(n) => std::process::exit(KILLED),
                Fault::LoseResponse(n) if hit(n) => Err("the answer was lost".into()),
                _ => Ok(answer),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("crash-before-write:3", Some(Fault::CrashBeforeWrite(3)))]
    #[case("crash-after-write:1", Some(Fault::CrashAfterWrite(1)))]
    #[case("lose-response:2", Some(Fault::LoseResponse(2)))]
    #[case("error:4:503", Some(Fault::Error(4, 503)))]
    #[case("", Some(Fault::None))]
    #[case("crash", None)]
    #[case("error:4", None)]
    fn faults_are_read(#[case] text: &str, #[case] expected: Option<Fault>) {
        assert_eq!(parse(text), expected);
    }
}
