//! What is asked of an array that runs, and what it answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::disk::FaultSpec;
use crate::fabric::health::Health;

/// The version of the protocol.
pub const VERSION: u32 = 1;

/// The one line that a command sends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What the lab was called on the command line, for what is said.
    pub lab: PathBuf,
    /// Where relative paths begin.
    pub directory: PathBuf,
    /// Begin the work, and do not wait for its end.
    #[serde(default)]
    pub no_wait: bool,
    /// What is wanted.
    pub command: Command,
}

/// A command; the command line's words.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// What the array is.
    Status {
        /// How it is shown.
        form: StatusForm,
        /// The exit code says what state it is in.
        test: bool,
        /// The terminal shows all characters there are.
        utf8: bool,
    },
    /// Fail a disk.
    Fail {
        /// Which.
        disk: String,
    },
    /// Take a failed or spare disk out.
    Remove {
        /// Which.
        disk: String,
    },
    /// Add a disk.
    Add {
        /// One of the lab, an image, a device; a new image if none is said.
        disk: Option<String>,
        /// As a new disk.
        spare: bool,
        /// Although something is on it.
        yes: bool,
    },
    /// Put a disk back that left.
    ReAdd {
        /// Which.
        disk: String,
    },
    /// Copy a disk to another that takes its place.
    Replace {
        /// Which.
        disk: String,
        /// By what; a spare if not said.
        with: Option<String>,
        /// Although something is on it.
        yes: bool,
    },
    /// Read everything and compare.
    Check {
        /// First byte and the one behind the last; all if not said.
        range: Option<(u64, u64)>,
    },
    /// Read everything, compare, and mend.
    Repair {
        /// Where it cannot be known who is wrong, take the data for right.
        trust_data: bool,
    },
    /// Interrupt a check or repair; the next one goes on from there.
    PauseScrub,
    /// End a check or repair, and forget how far it came.
    CancelScrub,
    /// Wait until recovery and resync have nothing left to do.
    Wait,
    /// Change settings.
    Set {
        /// `KEY=VALUE` each.
        settings: Vec<String>,
    },
    /// Something of the lab's paths.
    Path(PathCommand),
    /// Which faults there are.
    FaultList,
    /// Arm a fault.
    FaultAdd {
        /// Of which disk.
        disk: String,
        /// Which.
        fault: FaultSpec,
    },
    /// Say how a component of a fabric is.
    ComponentFault {
        /// Which: `volume/cable0`.
        component: String,
        /// As what.
        health: Health,
    },
    /// Disarm faults.
    FaultClear {
        /// Of one disk, or a component; of all if not said.
        disk: Option<String>,
    },
    /// Bytes of the volume, to a descriptor.
    Read {
        /// The first byte.
        offset: u64,
        /// How many; all to the end if not said.
        length: Option<u64>,
    },
    /// Bytes of the volume, from a descriptor.
    Write {
        /// The first byte.
        offset: u64,
    },
    /// End the process that serves the array, as SIGTERM does.
    Stop,
    /// Lose what volatile caches hold, and end as by a power cut.
    PowerCut {
        /// Decides what is lost.
        seed: u64,
    },
}

/// What is asked of a lab's paths; the command line's words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum PathCommand {
    /// Show maps, groups and paths.
    List {
        /// As multipathd's JSON, and more.
        json: bool,
    },
    /// Nothing new goes down a path.
    Fail {
        /// Which.
        path: String,
    },
    /// A path takes requests again.
    Reinstate {
        /// Which.
        path: String,
    },
    /// Requests go down another group.
    Switch {
        /// Its number, from 1.
        group: u16,
        /// Of which map.
        map: Option<String>,
    },
    /// Whether requests wait when no path is left.
    Queueing {
        /// They do, as `no_path_retry` says.
        on: bool,
        /// Of one map only.
        map: Option<String>,
    },
}

/// How the state of an array is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatusForm {
    /// On one screen.
    Screen,
    /// As JSON (`raidlab-status/v1`).
    Json,
    /// As `/proc/mdstat` shows an array.
    Mdstat,
}

/// A line of the answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// For the person at the terminal.
    Hint(String),
    /// As a hint, for those who want to know everything.
    Detail(String),
    /// How far background work has come.
    Progress {
        /// What it is.
        action: String,
        /// Sectors done.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// Data: a line of standard output, without its end.
    Line(String),
    /// The last line.
    End {
        /// The exit code.
        code: u8,
        /// What went wrong, why, and what to type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let commands = [
            Command::Status { form: StatusForm::Json, test: false, utf8: true },
            Command::Fail { disk: "disk-1".into() },
            Command::Add { disk: None, spare: true, yes: false },
            Command::Check { range: Some((0, 1 << 40)) },
            Command::FaultAdd {
                disk: "disk-0".into(),
                fault: FaultSpec {
                    kind: "torn=3".parse().unwrap(),
                    range: None,
                    trigger: crate::disk::Trigger::AtIo(5),
                    times: Some(2),
                },
            },
            Command::PowerCut { seed: u64::MAX },
        ];
        let request =
            |command| Request { version: VERSION, lab: "lab".into(), directory: "/".into(), no_wait: false, command };
        commands.map(request).into()
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for request in requests() {
            let line = serde_json::to_string(&request).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request, "{line}");
        }
    }

    #[test]
    fn a_word_that_is_not_known_is_named() {
        let line = r#"{"version":1,"lab":"l","directory":"/","command":{"fial":{"disk":"disk-0"}}}"#;
        let error = serde_json::from_str::<Request>(line).unwrap_err().to_string();
        assert!(error.contains("fial"), "{error}");
    }
}
