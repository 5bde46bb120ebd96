//! External programs and libraries: whether they are here, and which package brings them.

use std::path::PathBuf;

const PACKAGES: &str = include_str!("../../tools/packages.txt");

/// Where `program` is, if it is installed. Also looks where Debian keeps what only root's `PATH` has, and its libraries.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains(".so") {
        let libraries = PathBuf::from(format!("/usr/lib/{}-linux-gnu/{program}", std::env::consts::ARCH));
        return libraries.is_file().then_some(libraries);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Where `program` is; a story that needs it has said so, and does not run without.
pub fn need(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| panic!("{program} is not installed: apt-get install {}", package(program)))
}

/// The Debian packages that bring those of `programs` that are not here, each once.
pub fn missing(programs: &[&str]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        programs.iter().filter(|program| find(program).is_none()).map(|program| package(program)).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether a missing tool is a failure rather than a reason to ignore a story.
pub fn required() -> bool {
    std::env::var_os("RAIDLAB_TOOLS").is_some_and(|value| value == "required")
}

fn package(program: &str) -> &'static str {
    PACKAGES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(char::is_whitespace))
        .find(|(name, _)| *name == program)
        .map_or_else(|| panic!("{program} is not in tools/packages.txt"), |(_, package)| package.trim())
}
