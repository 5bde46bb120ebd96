//! Certificates as NBD programs want them, made by OpenSSL.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process;

/// The program that makes them.
pub const TOOL: &str = "openssl";

const SCRIPT: &str = r#"set -e
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca-key.pem -out ca-cert.pem -days 2 \
        -subj "/CN=authority of $1" -addext keyUsage=critical,keyCertSign,cRLSign
    for side in server client; do
        openssl req -new -newkey rsa:2048 -nodes -keyout $side-key.pem -out $side.csr -subj /CN=localhost
        printf "%s\n" "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1" extendedKeyUsage=${side}Auth \
            keyUsage=critical,digitalSignature,keyEncipherment basicConstraints=critical,CA:FALSE > extensions
        openssl x509 -req -in $side.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -out $side-cert.pem -days 2 \
            -extfile extensions
    done"#;

/// Makes a directory `name` with an authority of its own, and what a server and a client of it show.
pub fn make(at: &Path, name: &str) -> PathBuf {
    let directory = at.join(name);
    std::fs::create_dir(&directory).expect("there is none");
    let mut command = Command::new("bash");
    command.args(["-c", SCRIPT, "bash", name]).current_dir(&directory);
    process::run(&mut command, Duration::from_secs(60)).expect_ok();
    directory
}
