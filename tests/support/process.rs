//! Programs under a time limit: nothing a story starts outlives it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// A program that ran to its end.
pub struct Ran {
    /// What was run, for messages.
    pub what: String,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// How long it took.
    pub took: Duration,
}

/// A program that is running, with whatever it started: all of it is killed when this is dropped.
pub struct Running {
    what: String,
    child: Child,
    stdout: File,
    stderr: File,
    started: Instant,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap_or_else(|_| panic!("{} wrote no text", self.what))
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Itself, if it ended with exit code `code`; otherwise the story ends here.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ran {
        assert!(self.code == Some(code), "exit code {code} was expected of {self}");
        self
    }

    /// Itself, if it ended well.
    #[track_caller]
    pub fn expect_ok(self) -> Ran {
        self.expect_code(0)
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        let (code, signal) = (self.code, self.signal);
        write!(f, "{} (code {code:?}, signal {signal:?}, {:?})\n{stdout}{}", self.what, self.took, self.stderr)
    }
}

/// Runs `command` to its end; a story that has to wait longer than `limit` for it ends here.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Ran {
    start(command).wait(limit)
}

/// Starts `command` as the leader of its own process group. It finds nothing on standard input
/// unless something was put there.
#[track_caller]
pub fn start(command: &mut Command) -> Running {
    let what = format!("{command:?}");
    let [stdout, stderr] = [(); 2].map(|()| tempfile::tempfile().expect("the temporary directory takes files"));
    let twin = |file: &File| Stdio::from(file.try_clone().expect("descriptors are left"));
    command.stdout(twin(&stdout)).stderr(twin(&stderr)).process_group(0);
    let started = Instant::now();
    let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    Running { what, child, stdout, stderr, started }
}

impl Running {
    /// Waits for its end, `limit` from now at most.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Ran {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            if Instant::now() > deadline {
                self.kill_group();
                let status = self.child.wait().expect("it is our child");
                panic!("not done within {limit:?}: {}", self.ran(status));
            }
            sleep(Duration::from_millis(2));
        };
        self.ran(status)
    }

    /// Waits until `file` is there or the program has ended, `limit` from now at most; says whether it is.
    pub fn wait_for_file(&mut self, file: &Path, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while !file.exists() {
            if Instant::now() > deadline || self.child.try_wait().expect("it is our child").is_some() {
                return file.exists();
            }
            sleep(Duration::from_millis(2));
        }
        true
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        bytes_of(&self.stdout)
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, and nobody else.
    pub fn signal(&self, signal: Signal) {
        // It may have ended: then there is nobody to tell.
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), signal);
    }

    /// Kills it (`kill -9`) and whatever it started.
    pub fn kill(mut self) -> Ran {
        self.kill_group();
        let status = self.child.wait().expect("it is our child");
        self.ran(status)
    }

    fn kill_group(&self) {
        // Nobody may be left of it.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }

    fn ran(&self, status: ExitStatus) -> Ran {
        Ran {
            what: self.what.clone(),
            stdout: bytes_of(&self.stdout),
            stderr: String::from_utf8_lossy(&bytes_of(&self.stderr)).into_owned(),
            code: status.code(),
            signal: status.signal(),
            took: self.started.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
        let _ = self.child.wait();
    }
}

/// All of a file whose cursor another process moves.
fn bytes_of(file: &File) -> Vec<u8> {
    let length = file.metadata().expect("the file is open").len();
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).expect("output files only grow");
    bytes
}
