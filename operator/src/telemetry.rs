//! The log.

use crate::args::LogFormat;
use std::io::IsTerminal;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Starts logging to standard error; RUST_LOG sets the level, `info` unless set.
pub(crate) fn init(format: LogFormat) {
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    subscriber(format, asked, colours, std::io::stderr).init();
}

/// What RUST_LOG asks for, as far as [`own_words`] allows it.
fn subscriber<W>(
    format: LogFormat,
    asked: EnvFilter,
    colours: bool,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = match format {
        LogFormat::Json => fmt::layer()
            .with_writer(writer)
            .json()
            .flatten_event(true)
            .boxed(),
        LogFormat::Text => fmt::layer().with_writer(writer).with_ansi(colours).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(asked)
        .with(own_words())
}

/// Only Fairway's own words, whatever level is asked for. Libraries print what they send and receive: kube an answer that
/// it cannot read, with the literal values of every tenant in it. Of them only errors are logged, of kube nothing, since
/// all that it finds reaches whoever called it.
fn own_words() -> Targets {
    Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("kube", LevelFilter::OFF)
        .with_target("kube_lease_manager", LevelFilter::ERROR)
        .with_target("fairway", LevelFilter::TRACE)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fake::api_server;
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    /// A value that nobody may read in a log.
    const CANARY: &str = "canary-3f9a";

    /// What was logged.
    #[derive(Clone, Default)]
    pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        pub(crate) fn subscriber(&self, asked: &str) -> impl Subscriber + Send + Sync {
            let log = self.clone();
            subscriber(LogFormat::Json, EnvFilter::new(asked), false, move || log.clone())
        }
    }

    /// Has kube read an answer that does not parse.
    async fn kube_reads_what_it_cannot() {
        let (client, mut server) = api_server();
        let answer = format!(r#"{{"metadata":{{"name":"{CANARY}"}},"spec":"{CANARY}"}}"#);
        let pods: Api<Pod> = Api::namespaced(client, "shop");
        let (read, _) = tokio::join!(pods.get("crm"), server.answer_text(200, answer));
        read.unwrap_err();
    }

    /// S7: no library prints what it was answered, at whatever level it is asked to.
    #[tokio::test]
    async fn s7_libraries_print_no_answers() {
        for asked in [
            "trace",
            "info,kube_client=trace",
            "kube=trace,hyper=trace,tower=trace,rustls=trace",
        ] {
            let log = Log::default();
            let guard = tracing::subscriber::set_default(log.subscriber(asked));
            kube_reads_what_it_cannot().await;
            tracing::warn!("words of our own");
            drop(guard);
            let text = log.text();
            assert!(!text.contains(CANARY), "{asked}: {text}");
            assert_eq!(
                text.contains("words of our own"),
                asked != "kube=trace,hyper=trace,tower=trace,rustls=trace"
            );
        }
    }

    /// The control of the test above: without the filter kube does print it.
    #[tokio::test]
    async fn s7_kube_would_print_an_answer() {
        let log = Log::default();
        let writer = log.clone();
        let lines = fmt::layer().with_writer(move || writer.clone());
        let guard = tracing::subscriber::set_default(
            tracing_subscriber::registry()
                .with(lines)
                .with(EnvFilter::new("info")),
        );
        kube_reads_what_it_cannot().await;
        drop(guard);
        assert!(log.text().contains(CANARY), "{}", log.text());
    }

    /// S7: Fairway itself says of what it cannot read where it is, and none of its values.
    #[tokio::test(start_paused = true)]
    async fn s7_an_object_that_cannot_be_read_is_named_without_values() {
        let log = Log::default();
        let guard = tracing::subscriber::set_default(log.subscriber("trace"));
        crate::driver::read_what_cannot_be_read(CANARY).await;
        drop(guard);
        let text = log.text();
        assert!(!text.contains(CANARY), "{text}");
        assert!(
            text.contains("object cannot be read") && text.contains("shop/crm"),
            "{text}"
        );
        assert!(text.contains("watch failed and will be retried"), "{text}");
    }
}
