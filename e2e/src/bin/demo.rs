//! `demo`: builds what is missing, starts a cluster, installs Fairway and shows the story of a release
//! that goes well, one that is stopped and one that is rolled back. It ends with an error if any of it
//! is not as it should be.

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use fairway_e2e::apps::{crm, unleash};
use fairway_e2e::cluster::{Cluster, Options};
use fairway_e2e::load::{self, Load};
use fairway_e2e::ns::{self, Context, PodSecurity};
use fairway_e2e::story::Story;
use fairway_e2e::story::crm::{BACK_WITHIN, BadMigration, TurnsBad};
use fairway_e2e::story::unleash::Upgrade;
use fairway_e2e::target::Target;
use fairway_e2e::volumes::{Behaviour, claim};
use fairway_e2e::{images, install, tools};
use serde_json::json;

/// Where the applications of the demo run.
const NAMESPACE: &str = "fairway-demo";

/// Upgrades a real application with a real database, stops a bad version and rolls another one back.
#[derive(Parser)]
struct Arguments {
    /// Remove what the demo created, and the embedded cluster.
    #[arg(long)]
    down: bool,
    /// Show the story again with the images and the operator that are there, without building anything.
    #[arg(long, conflicts_with = "down")]
    again: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.down {
        true => down().await,
        false => up(arguments.again).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn up(again: bool) -> Result<()> {
    let target = Target::from_env()?;
    if !again {
        make_ready(&target).await?;
    }
    let context = ns::fresh(&target, NAMESPACE, PodSecurity::Enforced).await?;
    show(&context).await?;
    what_next(&target);
    Ok(())
}

/// Builds what is missing, starts the cluster and installs Fairway.
async fn make_ready(target: &Target) -> Result<()> {
    tools::build(&target.paths)?;
    let images = images::of_the_story();
    images::build(&target.paths, &images)?;
    if target.is_embedded() {
        Cluster::up(&target.paths, &Options::default()).await?;
    }
    images::push(&target.paths, &target.registry(), &images)?;
    install::fairway(target, json!({})).context("install Fairway")
}

async fn show(context: &Context) -> Result<()> {
    let story = Story::new(context);
    let Story { timeline, .. } = &story;
    timeline
        .chapter("Step 1 · Unleash 7.6.5 and CRM v1 are live, with data, databases of their own and clients");
    claim(context, "backups", "2Gi", Behaviour::Good).await?;
    let (upgrade, app) = tokio::try_join!(
        async { Upgrade::prepare(&story, unleash::app(context, "7.6.5").await?).await },
        async {
            crm::database(context).await?;
            let mut app = crm::app(context, "v1")?;
            timeline.act("kubectl apply -f crm/app.yaml                (CRM v1, an empty PostgreSQL)");
            crm::first(context, &mut app).await?;
            crm::add_leads(context, &["Ada", "Grace", "Katherine"]).await?;
            anyhow::Ok(app)
        },
    )?;
    let (mut upgrade, mut app) = (upgrade, app);

    timeline.chapter("Step 2 · Unleash 7.6.5 → 8.2.0");
    upgrade.upgrade(&story).await?;

    timeline.chapter("Step 3 · CRM v1 → v2, whose migration fails");
    let clients = load::start(context, &Load::on("crm", 80, "/api/leads")).await?;
    BadMigration::is_stopped(&story, &mut app, &clients).await?;

    timeline.chapter("Step 4 · CRM v1 → v3, which becomes unhealthy after the switch");
    let took = TurnsBad::is_rolled_back(&story, &mut app, &clients).await?;
    ensure!(
        took <= BACK_WITHIN,
        "the Service selected crm-1 again {took:?} after the third failed health request; expected at most {BACK_WITHIN:?}"
    );

    timeline.chapter("The end");
    story.no_request_failed("Unleash", &upgrade.load).await?;
    story.no_request_failed("CRM", &clients).await?;
    Ok(())
}

fn what_next(target: &Target) {
    println!("\nEverything is still up. To look around:");
    if target.is_embedded() {
        println!(
            "  export KUBECONFIG={} PATH={}:$PATH",
            target.paths.kubeconfig().display(),
            target.paths.bin().display()
        );
    } else {
        println!("  kubectl config use-context {}", target.context());
    }
    println!("Three commands to try next:");
    println!("  kubectl -n {NAMESPACE} get apps,releases,migrations,backups");
    println!("  kubectl -n {NAMESPACE} describe release crm-3");
    println!(
        "  kubectl -n {NAMESPACE} annotate release unleash-2 fairway.dev/rollback=\"$(date +%s)\" --overwrite     # 7.6.5 again, on the schema of 8.2.0"
    );
    println!("`make demo-down` removes all of it.");
}

async fn down() -> Result<()> {
    let target = Target::from_env()?;
    if target.is_embedded() {
        return Cluster::down(&target.paths);
    }
    let context = Context {
        client: target.client().await?,
        target: target.clone(),
        namespace: NAMESPACE.to_owned(),
    };
    ns::remove(&context).await?;
    install::remove_operator(&target)?;
    if install::remove_unused(&target).await? {
        eprintln!("the demo is gone, and Fairway with its kinds");
    } else {
        eprintln!(
            "the demo and the operator are gone; the kinds stay, because there are other Apps or Backups: \
             kubectl get apps,backups.fairway.dev --all-namespaces"
        );
    }
    Ok(())
}
