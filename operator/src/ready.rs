//! `fairway check-ready`: asks an operator whether it is ready. The image holds no other program that could, and the
//! chart's test runs it.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Uri;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::process::ExitCode;
use std::time::Duration;

/// How long the answer may take, with the name's resolution.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a connection may be refused, and the pause between two attempts.
const ADMITTED: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(250);
/// As much of an answer as is read: one line for each kind.
const LONGEST: usize = 64 * 1024;

/// Asks an operator whether it is ready. Exits 0 when it is; otherwise prints what it waits for and exits 1.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReadyArgs {
    /// Address of its page, such as http://fairway.fairway-system.svc:8080/readyz.
    url: Uri,
}

/// Asks once and prints the answer.
pub(crate) fn run(arguments: ReadyArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unanswered(&arguments.url, &error.to_string()),
    };
    match runtime.block_on(async { tokio::time::timeout(ANSWER, connected(&arguments.url)).await }) {
        Ok(Ok((true, text))) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Ok((false, text))) => {
            eprint!("not ready: {text}");
            ExitCode::FAILURE
        }
        Ok(Err(error)) => unanswered(&arguments.url, &causes(error.as_ref())),
        Err(_) => unanswered(
            &arguments.url,
            &format!("no answer within {} s", ANSWER.as_secs()),
        ),
    }
}

/// Asks again while no connection is made: where NetworkPolicies are enforced, a pod that has just started is let through a
/// moment later.
async fn connected(url: &Uri) -> Result<(bool, String), Box<dyn std::error::Error + Send + Sync>> {
    let refused_until = tokio::time::Instant::now() + ADMITTED;
    loop {
        match ask(url.clone()).await {
            Err(_) if tokio::time::Instant::now() < refused_until => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// Whether the page said so, and all that it said.
async fn ask(url: Uri) -> Result<(bool, String), Box<dyn std::error::Error + Send + Sync>> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let answer = client.get(url).await?;
    let ready = answer.status().is_success();
    let body = Limited::new(answer.into_body(), LONGEST)
        .collect()
        .await?
        .to_bytes();
    Ok((ready, String::from_utf8_lossy(&body).into_owned()))
}

fn unanswered(url: &Uri, why: &str) -> ExitCode {
    eprintln!("{url} does not answer: {why}");
    ExitCode::FAILURE
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;

    #[tokio::test]
    async fn the_answer_of_an_operator_that_waits_is_passed_on() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route(
                "/readyz",
                get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "waiting for App: no list yet\n") }),
            )
            .route("/fine", get(|| async { "ok\n" }));
        let server = tokio::spawn(axum::serve(listener, router).into_future());
        let page = |path: &str| format!("http://{address}/{path}").parse::<Uri>().unwrap();

        assert_eq!(
            ask(page("readyz")).await.unwrap(),
            (false, "waiting for App: no list yet\n".to_owned())
        );
        assert_eq!(ask(page("fine")).await.unwrap(), (true, "ok\n".to_owned()));
        server.abort();
    }
}
