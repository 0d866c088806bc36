//! Metrics of the process, by the names that Prometheus' client libraries give them. Linux only: read from /proc when the
//! page is asked for.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fs;
use std::path::{Path, PathBuf};

/// Ticks of /proc's times in a second: part of Linux' interface to programs (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Reads /proc whenever the metrics are shown. What cannot be read is left out.
#[derive(Debug)]
pub(crate) struct Process {
    proc: PathBuf,
}

impl Default for Process {
    fn default() -> Self {
        Self { proc: "/proc".into() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let own = self.proc.join("self");
        let stat = Stat::read(&own);
        let status = fs::read_to_string(own.join("status")).unwrap_or_default();
        let limits = fs::read_to_string(own.join("limits")).unwrap_or_default();
        let kibibytes = |name: &str| Some(field(&status, name)? * 1024.0);
        let started = stat
            .as_ref()
            .and_then(|stat| Some(boot_time(&self.proc)? + stat.started));
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory that is resident",
                kibibytes("VmRSS:"),
            ),
            (
                "process_virtual_memory_bytes",
                "Address space that is used",
                kibibytes("VmSize:"),
            ),
            ("process_threads", "Threads", field(&status, "Threads:")),
            (
                "process_open_fds",
                "File descriptors that are open",
                open_files(&own),
            ),
            (
                "process_max_fds",
                "File descriptors that may be open",
                field(&limits, "Max open files"),
            ),
            (
                "process_start_time_seconds",
                "Start of the process, since the epoch",
                started,
            ),
        ];
        if let Some(stat) = stat {
            let seconds = ConstCounter::new(stat.processor);
            show(
                &mut encoder,
                "process_cpu_seconds",
                "Processor time that was used",
                &seconds,
            )?;
        }
        for (name, help, value) in gauges {
            if let Some(value) = value {
                show(&mut encoder, name, help, &ConstGauge::new(value))?;
            }
        }
        Ok(())
    }
}

fn show(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), std::fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// What /proc/self/stat says, in seconds.
struct Stat {
    /// Processor time in user and kernel mode.
    processor: f64,
    /// Start after the machine's.
    started: f64,
}

impl Stat {
    fn read(own: &Path) -> Option<Self> {
        let text = fs::read_to_string(own.join("stat")).ok()?;
        // The program's name, in brackets, may hold anything. Fields are counted from 1 in proc(5); the third follows it.
        let (_, fields) = text.rsplit_once(") ")?;
        let ticks = |field: usize| -> Option<f64> {
            let ticks: f64 = fields.split(' ').nth(field - 3)?.trim().parse().ok()?;
            Some(ticks / TICKS)
        };
        Some(Self {
            processor: ticks(14)? + ticks(15)?,
            started: ticks(22)?,
        })
    }
}

/// The first number in the line that begins with that name.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn boot_time(proc: &Path) -> Option<f64> {
    field(&fs::read_to_string(proc.join("stat")).ok()?, "btime ")
}

fn open_files(own: &Path) -> Option<f64> {
    let files = fs::read_dir(own.join("fd")).ok()?.count();
    // One of them is the folder that is being read.
    Some(u32::try_from(files.saturating_sub(1)).unwrap_or(u32::MAX).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    fn shown(process: Process) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process));
        crate::metrics::text(&registry).unwrap()
    }

    #[test]
    fn a_process_is_shown_as_prometheus_names_it() {
        let text = shown(Process::default());
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_threads",
            "process_open_fds",
            "process_start_time_seconds",
        ] {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            let value: f64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!(value >= 0.0, "{text}");
        }
    }

    #[test]
    fn times_are_read_in_seconds_of_the_epoch() {
        let proc = tempfile::tempdir().unwrap();
        let own = proc.path().join("self");
        fs::create_dir(&own).unwrap();
        fs::write(
            proc.path().join("stat"),
            "cpu  1 2 3\nbtime 1700000000\nprocesses 9\n",
        )
        .unwrap();
        // Fields 14 and 15 are processor time, field 22 the start; the name holds what ends a name.
        let fields = "S 1 1 1 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 4 0 12345 1000 50";
        fs::write(own.join("stat"), format!("7 (a) b) {fields}\n")).unwrap();
        let text = shown(Process {
            proc: proc.path().into(),
        });
        for line in [
            "process_cpu_seconds_total 1.75",
            "process_start_time_seconds 1700000123.45",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{text}");
        }
    }

    #[test]
    fn without_proc_nothing_is_shown() {
        let text = shown(Process {
            proc: "/nowhere".into(),
        });
        assert!(!text.contains("process_"), "{text}");
    }
}
