//! Many Apps at once.

use std::time::{Duration, Instant};

use anyhow::Result;
use fairway_crds::Release;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, small};
use fairway_e2e::ns::alone;
use fairway_e2e::{seen, wait};
use futures::{StreamExt, TryStreamExt, stream};

/// Apps that are released at once on the one node.
const APPS: usize = 50;

#[tokio::test]
#[ignore = "make test-long PART=scale"]
async fn fifty_apps_released_at_once_all_finish() -> Result<()> {
    alone(|context| async move {
        let mut desired = Vec::new();
        for number in 0..APPS {
            let mut app = small::app(&context, &format!("app-{number}"), "v1")?;
            // Starting so many pods takes one node a while.
            let health = apps::component(&mut app, "web").health.as_mut();
            health
                .into_iter()
                .for_each(|health| health.deadline = fairway_crds::duration::Duration::from_seconds(600));
            desired.push(app);
        }
        let begun = Instant::now();
        stream::iter(&desired)
            .map(|app| apps::apply(&context, app))
            .buffer_unordered(10)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        let done = |releases: &[Release]| {
            releases
                .iter()
                .filter(|release| seen::outcome(release) == Some(ReleaseOutcome::Succeeded))
                .count()
                == APPS
        };
        wait::wait_for_all(
            context.api::<Release>(),
            <_>::default(),
            "50 releases to succeed",
            done,
            Duration::from_secs(480),
        )
        .await?;
        println!("{APPS} Apps released in {:.0} s", begun.elapsed().as_secs_f64());
        Ok(())
    })
    .await
}
