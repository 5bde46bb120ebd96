//! Stories: what raidlab promises, told through its command line, its library, and real Linux md.
//!
//! One binary, so that it is linked once. A story whose tools are not installed is ignored and its
//! listing says which package to install; under `RAIDLAB_TOOLS=required` it fails. What is too much
//! for every run is sampled by a seed that a failure prints (`RAIDLAB_SEED`); `RAIDLAB_FULL=1` runs
//! all of it. `tools/test` sets these.
#![allow(clippy::disallowed_methods, reason = "stories run programs in real time, under time limits")]

mod bad_input;
mod blocks;
mod campaign;
mod control;
mod crash;
mod dm_multipath;
mod exhaust;
mod failover;
mod from_md;
mod grub;
mod harness;
mod labs;
mod layers;
mod md;
mod mount;
mod nbd;
mod nbd_matrix;
mod nbd_member;
mod nbd_paths;
mod nbd_tls;
mod paths;
mod scenarios;
mod support;
mod to_md;
mod yardstick;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    let stories = [
        harness::trials(),
        layers::trials(),
        labs::trials(),
        bad_input::trials(),
        crash::trials(),
        md::trials(),
        dm_multipath::trials(),
        campaign::trials(),
        exhaust::trials(),
        failover::trials(),
        paths::trials(),
        scenarios::trials(),
        to_md::trials(),
        from_md::trials(),
        grub::trials(),
        blocks::trials(),
        nbd::trials(),
        control::trials(),
        nbd_matrix::trials(),
        nbd_member::trials(),
        nbd_paths::trials(),
        nbd_tls::trials(),
        mount::trials(),
        yardstick::trials(),
    ];
    libtest_mimic::run(&arguments, stories.into_iter().flatten().collect()).exit_code()
}
