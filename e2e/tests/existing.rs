//! A cluster that the user names: `KUBE_CONTEXT` and `REGISTRY` make every command work on that context, and none
//! connects to anything else, whatever else the kubeconfig and the environment name. The embedded cluster stands for
//! the one that is named.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::install::OPERATOR_NAMESPACE;
use fairway_e2e::ns::{self, PodSecurity};
use fairway_e2e::seen;
use fairway_e2e::target::Target;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// The context that is named, one of the same cluster whose user may do nothing, and the current one.
const NAMED: &str = "named";
const POWERLESS: &str = "powerless";
const CURRENT: &str = "current";

/// A server that nothing should connect to. It counts the connections.
struct Elsewhere {
    address: SocketAddr,
    seen: Receiver<SocketAddr>,
}

impl Elsewhere {
    fn listen() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            // Each connection is closed at once, so that whoever made it does not wait.
            for connection in listener.incoming() {
                let peer = connection.and_then(|connection| connection.peer_addr());
                if peer.is_ok_and(|peer| sender.send(peer).is_err()) {
                    return;
                }
            }
        });
        Ok(Self { address, seen })
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// How many have connected so far: those that were accepted before a connection of our own.
    fn connections(&self) -> Result<usize> {
        let own = TcpStream::connect(self.address)?.local_addr()?;
        let mut count = 0;
        while self.seen.recv()? != own {
            count += 1;
        }
        Ok(count)
    }
}

/// A user's machine: two kubeconfigs, and an environment that names other servers wherever it can.
struct Machine {
    target: Target,
    client: Client,
    elsewhere: Elsewhere,
    folder: TempDir,
    /// There is one cluster, and these tests look at what is installed there.
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    async fn new() -> Result<Self> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
        let alone = ONE_AT_A_TIME.lock().await;
        let target = Target::from_env()?;
        ensure!(
            target.is_embedded(),
            "only the embedded cluster can stand for another one"
        );
        let machine = Self {
            client: target.client().await?,
            target,
            elsewhere: Elsewhere::listen()?,
            folder: tempfile::tempdir()?,
            _alone: alone,
        };
        machine.write_kubeconfigs()?;
        Ok(machine)
    }

    /// The contexts are in one file and what they name in another.
    fn write_kubeconfigs(&self) -> Result<()> {
        let own: Value = serde_json::from_slice(&std::fs::read(self.target.paths.kubeconfig())?)?;
        let (server, user) = (&own["clusters"][0]["cluster"], &own["users"][0]["user"]);
        let mut powerless = user.clone();
        powerless["as"] = json!(POWERLESS);
        let context = |name: &str, cluster: &str, user: &str| json!({"name": name, "context": {"cluster": cluster, "user": user}});
        let contexts = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": CURRENT,
            "contexts": [
                context(CURRENT, "elsewhere", "admin"),
                context(NAMED, "here", "admin"),
                context(POWERLESS, "here", POWERLESS),
            ],
        });
        let elsewhere = json!({"server": self.elsewhere.url("https"), "insecure-skip-tls-verify": true});
        let clusters = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "elsewhere", "cluster": elsewhere}, {"name": "here", "cluster": server}],
            "users": [{"name": "admin", "user": user}, {"name": POWERLESS, "user": powerless}],
        });
        for (name, content) in [("contexts", contexts), ("clusters", clusters)] {
            std::fs::write(self.folder.path().join(name), content.to_string())?;
        }
        Ok(())
    }

    /// Runs one of the programs that the Makefile runs.
    fn run(&self, program: &str, arguments: &[&str], context: &str, registry: &str) -> Result<Output> {
        let files = ["contexts", "clusters"].map(|name| self.folder.path().join(name));
        let proxy = self.elsewhere.url("http");
        let output = Command::new(program)
            .args(arguments)
            .env("KUBE_CONTEXT", context)
            .env("REGISTRY", registry)
            .env("KUBECONFIG", std::env::join_paths(files)?)
            .env("HELM_KUBECONTEXT", CURRENT)
            .env("HELM_KUBEAPISERVER", self.elsewhere.url("https"))
            .env("HTTP_PROXY", &proxy)
            .env("HTTPS_PROXY", &proxy)
            .env("NO_PROXY", self.target.paths.link().cluster.to_string())
            .env_remove("no_proxy")
            .output()?;
        Ok(output)
    }

    /// Runs `cluster` and returns what it said, which must have gone well.
    fn well(&self, arguments: &[&str], registry: &str) -> Result<String> {
        self.goes_well(CLUSTER, arguments, registry)
    }

    fn goes_well(&self, program: &str, arguments: &[&str], registry: &str) -> Result<String> {
        let output = self.run(program, arguments, NAMED, registry)?;
        let said = said(&output);
        ensure!(
            output.status.success(),
            "{program} {}: {said}",
            arguments.join(" ")
        );
        Ok(said)
    }

    /// How often Helm has installed or upgraded the operator.
    async fn revision(&self) -> Result<u32> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let selected = ListParams::default().labels("owner=helm,name=fairway");
        let revisions = secrets.list_metadata(&selected).await?;
        let numbers = revisions
            .items
            .iter()
            .filter_map(|secret| secret.labels().get("version")?.parse().ok());
        numbers
            .max()
            .context("Fairway is not installed; run `make install`")
    }

    /// What there is of the demo and of Fairway.
    async fn names(&self) -> Result<Vec<String>> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let definitions = Api::<CustomResourceDefinition>::all(self.client.clone());
        let all = ListParams::default();
        let namespaces = namespaces.list(&all).await?.items;
        let namespaces = namespaces
            .into_iter()
            .map(|namespace| namespace.name_any())
            .filter(|name| [NAMESPACE, OPERATOR_NAMESPACE].contains(&name.as_str()));
        let definitions = definitions.list_metadata(&all).await?.items;
        let definitions = definitions
            .into_iter()
            .map(|definition| definition.name_any())
            .filter(|name| name.ends_with(".fairway.dev"));
        Ok(namespaces.chain(definitions).collect())
    }

    async fn operator(&self) -> Result<Deployment> {
        Ok(Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE)
            .get("fairway")
            .await?)
    }
}

/// Where the applications of the demo run.
const NAMESPACE: &str = "fairway-demo";

const CLUSTER: &str = env!("CARGO_BIN_EXE_cluster");
const DEMO: &str = env!("CARGO_BIN_EXE_demo");

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[tokio::test]
async fn commands_work_on_the_named_context_and_connect_to_no_other() -> Result<()> {
    let machine = Machine::new().await?;
    let host = machine.target.registry();

    let registry = format!("{host}/existing");
    let pushed = machine.well(&["load", "pause"], &registry)?;
    ensure!(
        pushed.contains(&format!("push images to {registry}: all 1 are there")),
        "{pushed}"
    );
    machine.well(&["status"], &host)?;

    // An upgrade to what is installed already: Helm counts it, and nothing restarts.
    let (revision, operator) = (machine.revision().await?, machine.operator().await?);
    machine.well(&["install"], &host)?;
    let (upgraded, after) = (machine.revision().await?, machine.operator().await?);
    ensure!(upgraded == revision + 1, "revision {revision} became {upgraded}");
    assert_eq!(
        after.metadata.generation, operator.metadata.generation,
        "another Fairway was installed; run `make install`"
    );
    assert_eq!(machine.elsewhere.connections()?, 0);

    // Whoever takes the current context instead is seen.
    let kubectl = machine.target.paths.binary("kubectl");
    let kubectl = kubectl.to_str().context("a path that is UTF-8")?;
    let asked = machine.run(kubectl, &["version", "--request-timeout=10s"], "", "")?;
    ensure!(!asked.status.success(), "{}", said(&asked));
    ensure!(machine.elsewhere.connections()? > 0, "nobody was counted");
    Ok(())
}

/// What `make demo` does once everything is built and installed.
#[tokio::test]
#[ignore = "make test-long PART=applications; it takes as long as the demo"]
async fn demo_works_on_the_named_context() -> Result<()> {
    let machine = Machine::new().await?;
    let registry = machine.target.registry();
    let shown = machine.goes_well(DEMO, &["--again"], &registry)?;
    ensure!(
        shown.contains(&format!("kubectl config use-context {NAMED}\n")),
        "{shown}"
    );
    assert_eq!(machine.elsewhere.connections()?, 0);
    Ok(())
}

/// What `make demo-down` does, with the demo that `make demo` has left, or with a small one.
#[tokio::test]
async fn demo_and_fairway_are_removed_from_the_named_context() -> Result<()> {
    let machine = Machine::new().await?;
    let registry = machine.target.registry();
    if !machine.names().await?.contains(&NAMESPACE.to_owned()) {
        let context = ns::fresh(&machine.target, NAMESPACE, PodSecurity::Enforced).await?;
        apps::apply(&context, &small::app(&context, "shop", "v1")?).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    }
    let removed = machine.goes_well(DEMO, &["--down"], &registry);
    let left = machine.names().await;
    // What all other tests need.
    machine.well(&["install"], &registry)?;
    let removed = removed?;
    ensure!(
        removed.contains("the demo is gone, and Fairway with its kinds\n"),
        "{removed}"
    );
    assert_eq!(left?, [""; 0]);
    assert_eq!(machine.elsewhere.connections()?, 0);
    Ok(())
}

#[tokio::test]
async fn user_without_rights_changes_nothing_anywhere() -> Result<()> {
    let machine = Machine::new().await?;
    let registry = machine.target.registry();
    let before = (machine.revision().await?, machine.operator().await?);
    let namespaces = Api::<Namespace>::all(machine.client.clone());
    let demo = namespaces.get_opt(NAMESPACE).await?;

    for (program, arguments) in [(CLUSTER, "install"), (DEMO, "--again"), (DEMO, "--down")] {
        let output = machine.run(program, &[arguments], POWERLESS, &registry)?;
        let said = said(&output);
        ensure!(!output.status.success(), "{arguments}: {said}");
        // The API server's own answer: it is that cluster which was asked, as that user.
        ensure!(
            said.contains(&format!("User \"{POWERLESS}\" cannot")),
            "{arguments}: {said}"
        );
    }
    assert_eq!((machine.revision().await?, machine.operator().await?), before);
    assert_eq!(namespaces.get_opt(NAMESPACE).await?, demo);
    assert_eq!(machine.elsewhere.connections()?, 0);
    Ok(())
}

#[tokio::test]
async fn missing_context_or_registry_is_an_error_before_any_work() -> Result<()> {
    let machine = Machine::new().await?;
    let registry = machine.target.registry();
    for (context, registry, expected) in [
        (NAMED, "", "error: set REGISTRY=host/path too: "),
        (
            "nmaed",
            &registry,
            "set KUBE_CONTEXT to one of these: current, named, powerless\n",
        ),
        ("", &registry, "error: set KUBE_CONTEXT=name too: "),
    ] {
        for (program, arguments) in [
            (DEMO, &[][..]),
            (DEMO, &["--down"]),
            (CLUSTER, &["install"]),
            (CLUSTER, &["images", "pause"]),
            (CLUSTER, &["load", "pause"]),
        ] {
            let output = machine.run(program, arguments, context, registry)?;
            let said = said(&output);
            ensure!(output.status.code() == Some(1), "{program} {arguments:?}: {said}");
            ensure!(said.contains(expected), "{program} {arguments:?}: {said}");
            ensure!(
                said.trim().lines().count() == 1,
                "{program} {arguments:?}: {said}"
            );
        }
    }
    assert_eq!(machine.elsewhere.connections()?, 0);
    Ok(())
}
