//! Devices whose logical block is 4096 bytes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::cli::raidlab;
use crate::support::sample::Sample;
use crate::support::story::story;
use crate::support::twin::images;
use crate::support::{process, tools};

pub fn trials() -> Vec<Trial> {
    let may_attach = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    vec![
        story("blocks::an_array_on_devices_with_blocks_of_4096_bytes_holds_what_is_written")
            .needs(&["losetup"])
            .only_if(may_attach, "needs root and loop devices")
            .sampled_by(an_array_on_devices_with_blocks_of_4096_bytes_holds_what_is_written),
    ]
}

/// A loop device, detached when dropped.
struct Loop(PathBuf);

impl Loop {
    fn attach(image: &Path, block: u32) -> Loop {
        let mut command = Command::new(tools::need("losetup"));
        command.args(["--find", "--show", "--sector-size", &block.to_string()]).arg(image);
        let ran = process::run(&mut command, Duration::from_secs(10)).expect_ok();
        Loop(ran.text().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let mut command = Command::new(tools::need("losetup"));
        process::run(command.arg("--detach").arg(&self.0), Duration::from_secs(10));
    }
}

fn an_array_on_devices_with_blocks_of_4096_bytes_holds_what_is_written(mut sample: Sample) {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let at = directory.path();
    // One member with small blocks among them: the largest block counts.
    let blocks = [4096, 4096, *sample.one(&[512, 4096]), 4096];
    let images = images(at, "image", &[16 * 1024; 4]);
    let loops: Vec<_> = images.iter().zip(blocks).map(|(image, block)| Loop::attach(image, block)).collect();
    let (level, chunk) = *sample.one(&[("5", "4K"), ("6", "64K"), ("10", "16K"), ("0", "64K"), ("1", "64K")]);
    let devices: Vec<String> = loops.iter().map(|device| device.0.display().to_string()).collect();
    let words = ["create", "lab", "--level", level, "--chunk", chunk, "--backend", "uring", "--members"];
    let words = words.into_iter().chain(devices.iter().map(String::as_str));
    raidlab(at, words).run().expect_ok();

    let content = sample.bytes(5_000_000);
    raidlab(at, ["write", "lab", "--offset", "12345"]).stdin(&content).run().expect_ok();
    let read = |offset: &str| {
        let words = ["read", "lab", "--offset", offset, "--length", "5000000"];
        raidlab(at, words).run().expect_ok().stdout
    };
    assert!(read("12345") == content);
    if level != "0" {
        raidlab(at, ["check", "lab"]).run().expect_ok();
        raidlab(at, ["fail", "lab", "disk-1"]).run().expect_ok();
        assert!(read("12345") == content);
    }
}
