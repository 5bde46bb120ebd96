//! The built program, as a user runs it.

use std::ffi::OsStr;
use std::io::{Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::process::{self, Ran, Running};

/// One call of `raidlab`.
pub struct Raidlab {
    command: Command,
    limit: Duration,
}

/// `raidlab ARGUMENTS` in the directory `at`, on no terminal, with a minute to do it in.
pub fn raidlab<A: AsRef<OsStr>>(at: &Path, arguments: impl IntoIterator<Item = A>) -> Raidlab {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raidlab"));
    command.args(arguments).current_dir(at).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1");
    Raidlab { command, limit: Duration::from_secs(60) }
}

impl Raidlab {
    /// Finds `bytes` on standard input.
    pub fn stdin(mut self, bytes: &[u8]) -> Raidlab {
        let mut file = tempfile::tempfile().expect("the temporary directory takes files");
        file.write_all(bytes).and_then(|()| file.rewind()).expect("the temporary directory has room");
        self.command.stdin(file);
        self
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Raidlab {
        self.command.env(name, value);
        self
    }

    /// With `limit` to do it in.
    pub fn within(mut self, limit: Duration) -> Raidlab {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(mut self) -> Ran {
        process::run(&mut self.command, self.limit)
    }

    /// Starts it, to be interrupted or killed.
    #[track_caller]
    pub fn start(mut self) -> Running {
        process::start(&mut self.command)
    }
}
