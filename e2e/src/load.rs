//! Load on a Service from a pod in the cluster, and what came of it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fairway_loadgen::Report;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;
use kube::api::PostParams;
use serde_json::json;

use crate::cluster::network::in_url;
use crate::context::Context;
use crate::wait;

pub use fairway_loadgen as report;

/// What is asked for, and how often.
#[derive(Clone, Debug)]
pub struct Load {
    /// The Service in the test's namespace.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// The path of each request.
    pub path: String,
    /// Requests a second; half on new connections and half on kept ones, each kept for two seconds.
    pub rate: u32,
    /// How long each may take.
    pub timeout: Duration,
    /// Headers of every request.
    pub headers: Vec<(String, String)>,
    /// From when on requests count.
    pub begin: Begin,
}

/// From when on requests count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// From the first one.
    AtOnce,
    /// After one was answered. A new Service takes a moment until the node's proxy knows its
    /// endpoints, however ready these are.
    AfterFirstAnswer,
}

impl Load {
    /// 200 requests a second with a timeout of 5 s, after a first answer.
    #[must_use]
    pub fn on(service: &str, port: u16, path: &str) -> Self {
        Self {
            service: service.to_owned(),
            port,
            path: path.to_owned(),
            rate: 200,
            timeout: Duration::from_secs(5),
            headers: Vec::new(),
            begin: Begin::AfterFirstAnswer,
        }
    }
}

/// Load that is being sent.
#[derive(Clone)]
pub struct Running {
    client: Client,
    namespace: String,
    pod: String,
}

/// Starts to send load and returns when requests flow.
///
/// # Errors
/// When the Service has no address or the pod does not start.
pub async fn start(context: &Context, load: &Load) -> Result<Running> {
    let service = context
        .api::<Service>()
        .get(&load.service)
        .await
        .with_context(|| format!("read the Service {}", load.service))?;
    // By address: a failed look-up of a name would be the DNS's failure and not the application's.
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .filter(|address| address != "None")
        .with_context(|| format!("the Service {} has no cluster address", load.service))?;
    let mut arguments = vec![
        format!("--url=http://{}:{}{}", in_url(&address), load.port, load.path),
        format!("--rate={}", load.rate),
        format!("--timeout-ms={}", load.timeout.as_millis()),
    ];
    arguments.extend(
        load.headers
            .iter()
            .map(|(name, value)| format!("--header={name}: {value}")),
    );
    if address.contains(':') {
        arguments.push("--listen=[::]:8080".to_owned());
    }
    if load.begin == Begin::AfterFirstAnswer {
        arguments.push("--after-first-answer".to_owned());
    }
    let pod = format!("load-{}", load.service);
    let object: Pod = serde_json::from_value(json!({
        "metadata": {"name": pod, "labels": {"fairway.dev/e2e": "load"}},
        "spec": crate::manifest::restricted(json!({
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "loadgen",
                "image": context.target.image_by_digest("loadgen", "dev")?,
                "args": arguments,
                "readinessProbe": {"httpGet": {"path": "/report", "port": 8080}, "periodSeconds": 1},
                // Without a request it gets what all others leave over, and a busy node makes it miss its own deadlines.
                "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}},
            }],
        })),
    }))?;
    context
        .api::<Pod>()
        .create(&PostParams::default(), &object)
        .await
        .context("make the pod that sends load")?;
    wait::pod_ready(&context.client, &context.namespace, &pod, Duration::from_secs(60)).await?;
    Ok(Running {
        client: context.client.clone(),
        namespace: context.namespace.clone(),
        pod,
    })
}

impl Running {
    /// The counts so far.
    ///
    /// # Errors
    /// When the pod does not answer.
    pub async fn report(&self) -> Result<Report> {
        self.ask("GET", "report").await
    }

    /// Ends the load, waits for the answers still awaited, and returns the final counts. The pod stays,
    /// so that it can be asked again.
    ///
    /// # Errors
    /// When the pod does not answer.
    pub async fn stop(&self) -> Result<Report> {
        self.ask("POST", "stop").await
    }

    /// Through the API server, which reaches pods also where the test does not.
    async fn ask(&self, method: &str, path: &str) -> Result<Report> {
        let Self {
            client,
            namespace,
            pod,
        } = self;
        let request = http::Request::builder()
            .method(method)
            .uri(format!(
                "/api/v1/namespaces/{namespace}/pods/{pod}:8080/proxy/{path}"
            ))
            .body(Vec::new())?;
        client
            .request(request)
            .await
            .with_context(|| format!("ask the pod {pod} that sends load for its report"))
    }
}

/// Fails unless requests were sent and every one of them succeeded.
///
/// # Errors
/// The error says how many failed and why.
pub fn assert_none_failed(report: &Report) -> Result<()> {
    if report.sent == 0 {
        bail!("no request was sent, so none proves anything");
    }
    if report.failed > 0 || report.succeeded != report.sent {
        bail!(
            "{} of {} requests failed: {:?}; the first ones: {:?}",
            report.sent - report.succeeded,
            report.sent,
            report.reasons,
            &report.failures[..report.failures.len().min(10)]
        );
    }
    Ok(())
}

/// Fails if a request has failed so far; others may still wait for their answers.
///
/// # Errors
/// The error says how many failed and why.
pub fn assert_going_well(report: &Report) -> Result<()> {
    let answered = Report {
        sent: report.succeeded + report.failed,
        ..report.clone()
    };
    assert_none_failed(&answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_requests_prove_nothing() {
        assert!(assert_none_failed(&Report::default()).is_err());
    }

    #[test]
    fn a_request_without_an_answer_counts_as_failed() {
        let report = Report {
            sent: 2,
            succeeded: 1,
            ..Report::default()
        };
        assert!(assert_none_failed(&report).is_err());
        assert!(
            assert_none_failed(&Report {
                succeeded: 2,
                ..report
            })
            .is_ok()
        );
    }
}
