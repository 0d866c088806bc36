//! Faults at every write, for a test on a real cluster: compiled in only with the feature `fault-injection`.

use futures::future::BoxFuture;
use hyper::{Method, Request, Response};
use kube::client::Body;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::task::{Context, Poll};
use tower::{BoxError, Layer, Service};

/// What happens at each write of anything but Leases and Events; a dry run writes nothing. `FAIRWAY_FAULT` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// `crash`: the write is done, and this process ends before it hears so. It starts again in its place: the kubelet
    /// would have a container that crashes often wait for minutes.
    Crash,
    /// `lost`: the write is done, and its answer is lost.
    Lost,
}

/// Puts the fault of the environment into a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultLayer {
    fault: Fault,
}

impl FaultLayer {
    /// The fault that `FAIRWAY_FAULT` names.
    ///
    /// # Panics
    /// When it names none that there is: a test that believes to inject one must not pass.
    pub(crate) fn from_environment() -> Self {
        let text = std::env::var("FAIRWAY_FAULT").unwrap_or_default();
        match parse(&text) {
            Some(fault) => Self { fault },
            None => panic!("FAIRWAY_FAULT={text} is no fault; see operator/src/fault.rs"),
        }
    }
}

fn parse(text: &str) -> Option<Fault> {
    match text {
        "crash" => Some(Fault::Crash),
        "lost" => Some(Fault::Lost),
        _ => None,
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty {
            inner,
            fault: self.fault,
        }
    }
}

/// See [`FaultLayer`].
#[derive(Clone, Debug)]
pub(crate) struct Faulty<S> {
    inner: S,
    fault: Fault,
}

fn counts(request: &Request<Body>) -> bool {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    *request.method() != Method::GET
        && !path.contains("/leases")
        && !path.contains("/events")
        && !query.contains("dryRun")
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
        let (counts, fault) = (counts(&request), self.fault);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await.map_err(Into::into)?;
            match fault {
                _ if !counts => Ok(answer),
                Fault::Crash => restart(),
                Fault::Lost => Err("the answer was lost".into()),
            }
        })
    }
}

/// Replaces this process by a new one of the same program: nothing that it knew is left, and nothing is put in order.
fn restart() -> ! {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let error = Command::new(program).args(arguments).exec();
    panic!("this process cannot start again: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_is_misspelt_is_none() {
        assert_eq!(parse("crash"), Some(Fault::Crash));
        assert_eq!(parse("lost"), Some(Fault::Lost));
        assert_eq!(parse("crsh"), None);
        assert_eq!(parse(""), None);
    }
}
