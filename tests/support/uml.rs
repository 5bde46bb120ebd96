//! Real Linux md, in a user-mode Linux: a kernel that runs as an ordinary process, needs no rights,
//! boots in about a second, and can have its power cut.
//!
//! A boot costs more than most work on a small array, so many arrays are done in one: an [`Array`] is
//! a list of steps, [`run_arrays`] carries out the steps of all of them. The words are in `tools/uml/lib.sh`.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::process;

/// What a story that uses this module needs.
pub const TOOLS: &[&str] = &["linux.uml", "mdadm", "modprobe", "losetup"];

/// How a payload ended.
pub struct Outcome {
    /// What it wrote to standard output and standard error.
    pub output: String,
    /// Its exit code.
    pub code: i32,
}

/// Work on one array: which images, then step by step what to do. Members are named by their place
/// among the images.
#[derive(Clone)]
pub struct Array {
    name: String,
    begin: String,
    steps: Vec<String>,
}

/// How the work on one array ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The array's name.
    pub name: String,
    /// md's word for its level; empty if it never ran.
    pub level: String,
    /// Its size in 512-byte sectors.
    pub sectors: Option<u64>,
    /// How many members it lacked at the end.
    pub degraded: u64,
    /// What its checks counted in `mismatch_cnt`, all together; `None` if there was none.
    pub mismatches: Option<u64>,
    /// MD5 of its content at the last [`Array::content`].
    pub md5: Option<String>,
    /// The step that failed, and what was said then. The steps after it were left out.
    pub problem: Option<String>,
    /// What the steps printed, of all arrays of the boot.
    pub log: String,
}

impl Array {
    /// An array that is made over `images` by `mdadm --create` with `arguments` (`--level=5`,
    /// `--raid-devices=3`, …; metadata is 1.2 unless they say otherwise). An image called `missing` is none.
    pub fn create<A: Display>(name: &str, images: &[PathBuf], arguments: &[A]) -> Array {
        Array::begin(name, images).step("create", arguments)
    }

    /// The array that `images` hold, by `mdadm --assemble --run` with `arguments` (`--force`,
    /// `--readonly`, …).
    pub fn assemble(name: &str, images: &[PathBuf], arguments: &[&str]) -> Array {
        Array::begin(name, images).step("assemble", arguments)
    }

    /// As [`Array::create`]; the last image is the write journal.
    pub fn create_journalled(name: &str, images: &[PathBuf], arguments: &[&str]) -> Array {
        Array::begin(name, images).step("create_journalled", arguments)
    }

    fn begin(name: &str, images: &[PathBuf]) -> Array {
        let images: Vec<String> = images.iter().map(|image| quoted(&image.display())).collect();
        Array { name: name.into(), begin: format!("begin {} {}", quoted(&name), images.join(" ")), steps: vec![] }
    }

    fn step<T: Display>(mut self, verb: &str, arguments: &[T]) -> Array {
        let arguments: Vec<String> = arguments.iter().map(quoted).collect();
        self.steps.push(format!("step {verb} {}", arguments.join(" ")));
        self
    }

    /// Waits until no resync or recovery is running or due.
    pub fn settle(self) -> Array {
        self.step::<&str>("settle", &[])
    }

    /// Writes the beginning of `file`, as much as fits.
    pub fn fill(self, file: &Path) -> Array {
        self.step("fill", &[file.display()])
    }

    /// Writes the beginning of `file`, as much as fits, from MiB `at` on.
    pub fn fill_from(self, at: u64, file: &Path) -> Array {
        self.step("fill", &[file.display().to_string(), at.to_string()])
    }

    /// Fails a member.
    pub fn fail(self, member: usize) -> Array {
        self.step("fail", &[member])
    }

    /// Takes a faulty member or a spare out.
    pub fn remove(self, member: usize) -> Array {
        self.step("remove", &[member])
    }

    /// Erases the superblock of a member that was taken out.
    pub fn wipe(self, member: usize) -> Array {
        self.step("wipe", &[member])
    }

    /// Adds a member as a spare; a degraded array takes it at once.
    pub fn add(self, member: usize) -> Array {
        self.step("add", &[member])
    }

    /// Adds a spare and lets the recovery go as far as `sectors` of the member, a multiple of the chunk.
    pub fn add_until(self, member: usize, sectors: u64) -> Array {
        self.step("add_until", &[member.to_string(), sectors.to_string()])
    }

    /// Starts a resync of a stopped and reassembled array and lets it go as far as `sectors` of the members
    /// (of the array on RAID10), a multiple of the chunk.
    pub fn resync_until(self, sectors: u64) -> Array {
        self.step("resync_until", &[sectors])
    }

    /// Puts back a member that was taken out: the bitmap says what it missed.
    pub fn re_add(self, member: usize) -> Array {
        self.step("re_add", &[member])
    }

    /// Replaces a member by a spare of the array.
    pub fn replace(self, member: usize, spare: usize) -> Array {
        self.step("replace", &[member, spare])
    }

    /// Replaces a member by a spare of the array and lets the copy go as far as `sectors` of the member, a
    /// multiple of the chunk.
    pub fn replace_until(self, member: usize, spare: usize, sectors: u64) -> Array {
        self.step("replace_until", &[member as u64, spare as u64, sectors])
    }

    /// Begins a reshape to `devices` members, of which the last are spares yet, and stops the array on its way.
    pub fn grow(self, devices: usize) -> Array {
        self.step("grow", &[devices])
    }

    /// Puts `sectors` sectors of a member, from its sector `at` on, into its bad-block log.
    pub fn bad_block(self, member: usize, at: u64, sectors: u64) -> Array {
        self.step("bad_block", &[member as u64, at, sectors])
    }

    /// Runs a check and counts its mismatches; nothing on levels without redundancy.
    pub fn check(self) -> Array {
        self.step::<&str>("check", &[])
    }

    /// Reads all of the array for the verdict's MD5.
    pub fn content(self) -> Array {
        self.step::<&str>("content", &[])
    }

    /// Mounts the file system on the array, and takes the MD5 of all its files' MD5s for the verdict's.
    pub fn tree(self, file_system: &str) -> Array {
        self.step("tree", &[file_system])
    }

    /// From here on the array stays active, its bitmap bits stay set, and at the end its power is cut.
    /// Does not return to clean; of use before the last [`Array::fill`].
    pub fn stay_dirty(self) -> Array {
        self.step::<&str>("stay_dirty", &[])
    }
}

impl Verdict {
    /// Itself, if every step went well, no member is missing and checks found nothing.
    #[track_caller]
    pub fn expect_clean(&self) -> &Verdict {
        self.expect_degraded(0)
    }

    /// Itself, if every step went well, `missing` members are missing and checks found nothing.
    #[track_caller]
    pub fn expect_degraded(&self, missing: u64) -> &Verdict {
        let Verdict { name, problem, degraded, mismatches, log, .. } = self;
        assert!(problem.is_none(), "{name}: {}\n{log}", problem.as_deref().unwrap_or_default());
        assert!(*degraded == missing, "{name}: {degraded} members are missing, not {missing}\n{log}");
        assert!(mismatches.unwrap_or(0) == 0, "{name}: {mismatches:?} mismatches\n{log}");
        self
    }

    /// Itself, if the content's MD5 is `md5`.
    #[track_caller]
    pub fn expect_md5(&self, md5: &str) -> &Verdict {
        assert!(self.md5.as_deref() == Some(md5), "{}: content {:?}, not {md5}\n{}", self.name, self.md5, self.log);
        self
    }

    fn parse(line: &str, log: &str) -> Verdict {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[_, name, level, sectors, degraded, mismatches, md5, problem] = &fields[..] else {
            panic!("not a verdict: {line}\n{log}");
        };
        let text = |field: &str| (field != "-").then(|| field.trim().to_owned());
        let number = |field: &str| text(field).map(|digits| digits.parse().expect("the kernel writes numbers"));
        Verdict {
            name: name.to_owned(),
            level: text(level).unwrap_or_default(),
            sectors: number(sectors),
            degraded: number(degraded).unwrap_or(0),
            mismatches: number(mismatches),
            md5: text(md5),
            problem: text(problem.trim()),
            log: log.to_owned(),
        }
    }
}

/// Carries out the steps of all `arrays` in one boot, one array after the other.
#[track_caller]
pub fn run_arrays(arrays: &[Array]) -> Vec<Verdict> {
    let mut payload = String::from("modules || exit\n");
    for array in arrays {
        payload += &format!("{}\n{}\nend\n", array.begin, array.steps.join("\n"));
    }
    // An array takes about half a second; this is for a machine that has much else to do.
    let limit = Duration::from_secs(60 + 15 * arrays.len() as u64);
    let outcome = boot(&payload, &[], &[], limit);
    let lines = outcome.output.lines().filter(|line| line.starts_with("verdict\t"));
    let verdicts: Vec<_> = lines.map(|line| Verdict::parse(line, &outcome.output)).collect();
    let told: Vec<_> = verdicts.iter().map(|verdict| &verdict.name).collect();
    let asked: Vec<_> = arrays.iter().map(|array| &array.name).collect();
    assert!(told == asked, "verdicts of {told:?}, not {asked:?}\n{}", outcome.output);
    verdicts
}

/// Runs `payload`, text for bash, as root of a user-mode Linux, with a minute to do it in. The words of
/// `tools/uml/lib.sh` are known to it, image number n is `/dev/ubdb`, `/dev/ubdc`, …, and the power is
/// cut when it ends.
#[track_caller]
pub fn run(payload: &str, env: &[(&str, &str)], images: &[PathBuf]) -> Outcome {
    boot(payload, env, images, Duration::from_secs(60))
}

/// As [`run`], with more time.
#[track_caller]
pub fn run_within(limit: Duration, payload: &str, env: &[(&str, &str)]) -> Outcome {
    boot(payload, env, &[], limit)
}

#[track_caller]
fn boot(payload: &str, env: &[(&str, &str)], images: &[PathBuf], limit: Duration) -> Outcome {
    assert!(images.len() <= 15, "user-mode Linux has 16 block devices of this kind, the first is not for us");
    let uml = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/uml");
    let directory = tempfile::Builder::new().prefix("uml-").tempdir().expect("the temporary directory takes files");
    let file = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("the temporary directory has room");
    let variables: Vec<_> = env.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
    write("env", &variables.concat());
    write("payload", &format!(". {}\n{payload}", quoted(&uml.join("lib.sh").display())));

    let mut words = vec![
        "mem=256M".into(),
        "root=/dev/root rootfstype=hostfs rootflags=/ rw quiet con=null con0=null,null".to_owned(),
        format!("uml_dir={}", directory.path().display()),
        format!("init={}", uml.join("init").display()),
        format!("raidlab={}", directory.path().display()),
    ];
    words.extend(('b'..).zip(images).map(|(letter, image)| format!("ubd{letter}={}", image.display())));
    let words: Vec<&str> = words.iter().flat_map(|text| text.split(' ')).collect();
    let mut kernel = Command::new(super::tools::need("linux.uml"));
    let mut running = process::start(kernel.args(words).env("LD_PRELOAD", preloaded()).stdin(Stdio::null()));
    let done = running.wait_for_file(&file("code"), limit);
    let kernel = running.kill();

    let output = std::fs::read(file("out")).unwrap_or_default();
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(done, "no end of the payload within {limit:?}; so far:\n{output}\nthe kernel:\n{kernel}");
    let code = std::fs::read_to_string(file("code")).expect("the file was there");
    Outcome { output, code: code.trim().parse().expect("bash has exit codes") }
}

/// `tools/uml/xstate.rs` as a library, compiled once a test program: with it the kernel also runs where the
/// processor has more registers than it knows.
fn preloaded() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = folder.join("libxstate.so");
        // Other test programs may run at the same time, so it appears whole or not at all.
        let part = folder.join(format!("libxstate.{}.part", std::process::id()));
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let form = ["--edition=2024", "--crate-type=cdylib", "-Copt-level=2", "-Cpanic=abort", "-o"];
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/uml/xstate.rs");
        process::run(rustc.args(form).arg(&part).arg(source), Duration::from_secs(60)).expect_ok();
        std::fs::rename(&part, &library).expect("a file can be renamed in its folder");
        library
    })
}

/// `text` as one word of bash.
fn quoted(text: &impl Display) -> String {
    format!("'{}'", text.to_string().replace('\'', r"'\''"))
}
