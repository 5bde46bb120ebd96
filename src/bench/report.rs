//! The report of a benchmark: everything needed to read its figures, and to get them again.
//!
//! Written as JSON with a `schema` that changes when the meaning of a field does; the table and the
//! picture are drawn from it and hold nothing else.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

use super::series::Findings;
use super::{Cost, Disturbance, Plan, Shape, Workload};

/// The schema of reports written here.
pub const SCHEMA: &str = "raidlab-bench/v1";

/// A whole benchmark.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it began, UTC, as ISO 8601.
    pub date: String,
    /// The command line.
    pub command: Vec<String>,
    /// Chose offsets and data.
    pub seed: u64,
    /// This computer.
    pub machine: Machine,
    /// What the figures are figures of.
    pub measured: Measured,
    /// Workloads of the optimal state, in order.
    pub workloads: Vec<Workload>,
    /// Workloads of the degraded state, in order.
    pub degraded_workloads: Vec<Workload>,
    /// Repetitions planned.
    pub reps: u32,
    /// Measured time planned for each repetition, in seconds.
    pub rep_seconds: f64,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// What was compared.
    pub subjects: Vec<SubjectFacts>,
    /// One for each subject, state and workload.
    pub cells: Vec<Cell>,
    /// One for each subject that was recovered.
    pub rebuilds: Vec<Rebuild>,
    /// Why something is missing or shorter than planned; empty if nothing is.
    pub partial: Vec<String>,
}

/// The computer measured on; "unknown" where it does not say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Model name.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Kernel and release.
    pub kernel: String,
}

/// What the figures are figures of, and what not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// One sentence: `page cache of image files on ext4 at /tmp/x`.
    pub what: String,
    /// `mmap`, `file`, `uring` or `mem`.
    pub backend: String,
    /// Threads that carry requests out.
    pub threads: u32,
}

/// A subject.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SubjectFacts {
    /// Its name in the cells.
    pub name: String,
    /// What it is made of.
    pub description: String,
    /// How it lays data over its members.
    pub shape: Shape,
    /// Its size.
    pub usable_bytes: u64,
    /// Members that may fail, any of them, with all data still there.
    pub failures_tolerated: u32,
    /// How much of it, from the start, was filled with random data and then measured.
    pub measured_bytes: u64,
}

/// A state of an array.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All members in sync.
    Optimal,
    /// One member missing. The raw file, which has none, runs beside as the yardstick.
    Degraded,
    /// Between recoveries: the raw file alone, as their yardstick.
    Recovering,
}

/// A value over the repetitions.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Latencies of all repetitions together, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the requests took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p99_9: f64,
    /// All of them.
    pub max: f64,
}

/// One workload on one subject in one state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the subject.
    pub subject: String,
    /// All members there, or one missing.
    pub state: State,
    /// What was asked.
    pub workload: Workload,
    /// How fio is asked for the same.
    pub fio: String,
    /// Requests per second.
    pub iops: Spread,
    /// 10⁶ bytes per second.
    pub mb_per_second: Spread,
    /// From submission to completion.
    pub latency_us: Latency,
    /// Requests that failed.
    pub errors: u64,
    /// How the first of them failed.
    pub first_error: Option<String>,
    /// Write requests to members per write; none where nothing was written or nobody counts.
    pub member_writes_per_write: Option<f64>,
    /// Bytes written to members per byte written.
    pub member_bytes_per_byte_written: Option<f64>,
    /// Member bytes per byte that theory charges.
    pub theory_cost: Option<Cost>,
    /// Requests per second theory allows from the raw file; none where that was not measured.
    pub theory_iops: Option<f64>,
    /// What was reached of it.
    pub theory_percent: Option<Spread>,
    /// What else ran; empty if nothing worth a word did.
    pub disturbed: Vec<Disturbance>,
    /// Each repetition.
    pub repetitions: Vec<Repetition>,
}

/// A recovery.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rebuild {
    /// Name of the subject.
    pub subject: String,
    /// 10⁶ bytes per second written to the new member.
    pub mb_per_second: Spread,
    /// Bytes written to it, in one repetition.
    pub bytes: u64,
    /// Member bytes per byte recovered that theory charges.
    pub theory_cost: Option<Cost>,
    /// What theory allows from the raw file.
    pub theory_mb_per_second: Option<f64>,
    /// What was reached of it.
    pub theory_percent: Option<Spread>,
    /// What else ran.
    pub disturbed: Vec<Disturbance>,
    /// Each repetition.
    pub repetitions: Vec<Repetition>,
}

/// One repetition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Repetition {
    /// Requests that succeeded; none for a recovery.
    pub requests: u64,
    /// Bytes they covered.
    pub bytes: u64,
    /// Time they took.
    pub seconds: f64,
    /// What else ran.
    pub disturbed: Vec<Disturbance>,
}

impl Report {
    /// The report of a series that ran `plan` and began at `date`.
    pub fn new(
        plan: &Plan,
        findings: Findings,
        machine: Machine,
        measured: Measured,
        date: String,
        command: Vec<String>,
    ) -> Report {
        Report {
            schema: SCHEMA.to_owned(),
            date,
            command,
            seed: plan.seed,
            machine,
            measured,
            workloads: plan.workloads.clone(),
            degraded_workloads: plan.degraded.clone(),
            reps: plan.reps,
            rep_seconds: plan.measure.as_secs_f64(),
            seconds: findings.elapsed.as_secs_f64(),
            subjects: findings.subjects,
            cells: findings.cells,
            rebuilds: findings.rebuilds,
            partial: findings.partial,
        }
    }

    /// The report as JSON, indented, with a newline at the end.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("a report is maps of strings and numbers");
        json.push('\n');
        json
    }

    /// Reads a report back.
    ///
    /// # Errors
    /// If `json` is not JSON, not a report, or of another schema.
    pub fn from_json(json: &str) -> Result<Report, serde_json::Error> {
        let report: Report = serde_json::from_str(json)?;
        if report.schema == SCHEMA {
            Ok(report)
        } else {
            Err(serde::de::Error::custom(format!("schema is {:?}, not {SCHEMA:?}", report.schema)))
        }
    }

    /// The cell of a subject.
    pub fn cell(&self, subject: &str, state: State, workload: Workload) -> Option<&Cell> {
        self.cells.iter().find(|c| c.subject == subject && c.state == state && c.workload == workload)
    }

    /// The recovery of a subject.
    pub fn rebuild(&self, subject: &str) -> Option<&Rebuild> {
        self.rebuilds.iter().find(|rebuild| rebuild.subject == subject)
    }

    /// Cells and recoveries that were disturbed, and how many there are.
    pub fn disturbed(&self) -> (usize, usize) {
        let marks = self.cells.iter().map(|c| &c.disturbed).chain(self.rebuilds.iter().map(|r| &r.disturbed));
        let disturbed = marks.filter(|causes| !causes.is_empty()).count();
        (disturbed, self.cells.len() + self.rebuilds.len())
    }

    /// Every cause of disturbance, at its worst.
    pub fn causes(&self) -> Vec<Disturbance> {
        let marks = self.cells.iter().flat_map(|c| &c.disturbed).chain(self.rebuilds.iter().flat_map(|r| &r.disturbed));
        Disturbance::worst(marks)
    }
}

impl Spread {
    /// The spread of `values`; all zero if there are none.
    pub fn of(values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Spread { median: 0.0, min: 0.0, max: 0.0 };
        };
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Spread { median, min, max }
    }
}

impl Machine {
    /// This computer, from `/proc` and `uname`.
    pub fn this() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        // x86 says "model name"; other architectures spell it differently or not at all.
        let cpu = ["model name", "Model", "cpu model", "uarch", "cpu"].iter().find_map(|key| field(&cpuinfo, key));
        let memory =
            field(&meminfo, "MemTotal").and_then(|total| total.strip_suffix(" kB")?.trim().parse::<u64>().ok());
        let uname = rustix::system::uname();
        Machine {
            cpu: cpu.unwrap_or("unknown").to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32),
            memory_bytes: memory.unwrap_or(0) * 1024,
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
        }
    }
}

/// The value of the first `key : value` line of a file in `/proc`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus = if self.cpus == 1 { "CPU" } else { "CPUs" };
        let memory = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "{}, {} {cpus}, {memory:.0} GiB, {}", self.cpu, self.cpus, self.kernel)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = if self.threads == 1 { "one thread".to_owned() } else { format!("{} threads", self.threads) };
        write!(f, "{}, backend {}, {threads}", self.what, self.backend)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Optimal => "optimal",
            State::Degraded => "degraded",
            State::Recovering => "recovering",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn a_report_reads_back_as_it_was_written() {
        let report = fixture::report();
        let json = report.to_json();
        assert_eq!(Report::from_json(&json).unwrap(), report);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["schema"], "raidlab-bench/v1");
        assert_eq!(value["cells"][0]["workload"], "seq-read-1M-q4");
        assert!(Report::from_json(&json.replace("bench/v1", "bench/v9")).is_err());
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[]), Spread { median: 0.0, min: 0.0, max: 0.0 });
    }

    #[test]
    fn this_machine_has_a_kernel_and_memory() {
        let machine = Machine::this();
        assert!(machine.kernel.starts_with("Linux ") && machine.memory_bytes > 1 << 20 && machine.cpus > 0);
        assert_eq!(field("a : 1\nmodel name\t: X Y\n", "model name"), Some("X Y"));
    }
}
