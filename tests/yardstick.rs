//! Speed beside others: what is compared must be the same work.

use libtest_mimic::Trial;

use crate::support::cli::raidlab;
use crate::support::story::story;

/// Every story of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        story("yardstick::parity_is_that_of_isal_before_it_is_timed")
            .needs(&["libisal.so.2"])
            .told_by(parity_is_that_of_isal),
    ]
}

/// `bench self` compares P and Q of every shape with ISA-L's, and ends where they differ.
fn parity_is_that_of_isal() {
    let words = ["bench", "self", "--only", "parity", "--rounds", "1", "--json"];
    let report = raidlab(&std::env::temp_dir(), words).run().expect_ok().json();
    let rows = report["rows"].as_array().expect("rows");
    for work in ["XOR", "P+Q"] {
        let row = rows.iter().find(|row| row["work"] == work && row["against"] == "ISA-L").expect(work);
        assert!(row["skipped"].is_null(), "{row}");
        assert_eq!(
            row["cells"].as_array().map(Vec::len),
            Some(24),
            "{work}: 3 numbers of disks, 4 chunks, hot and cold"
        );
    }
}
