//! One test for each user story. Each has a namespace of its own, so they run side by side.

mod adoption;
mod agent_pods;
mod audit;
mod bad_databases;
mod bad_health;
mod bad_migrations;
mod bad_stores;
mod bad_templates;
mod crm;
mod deletion;
mod edits;
mod fences;
mod fields;
mod forged;
mod idle;
mod images;
mod inputs;
mod metrics;
mod network_policies;
mod others;
mod provisioned;
mod restoring;
mod retention;
mod schedules;
mod secrets;
mod services;
mod shown;
mod sidecars;
mod stores;
mod verbs;

use std::time::Duration;

/// Time for what needs no pod to start.
const SOON: Duration = Duration::from_secs(20);
