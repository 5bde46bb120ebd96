//! Dependencies point one way.
//!
//! Command line → benchmarks, simulation, front ends, control → stack, reactor → disk, raid, fabric,
//! multipath → block, parity, nbd. Array and multipath do not know each other: that is what lets
//! multipath stand over RAID and RAID over multipath. Unit tests may know more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::support::story::story;

/// Which layers each layer may know.
const KNOWS: &[(&str, &[&str])] = &[
    ("block", &[]),
    ("parity", &[]),
    ("drawing", &[]),
    ("units", &[]),
    ("text", &[]),
    ("nbd", &["block"]),
    // Connections to servers are the paths of a fabric.
    ("disk", &["block", "parity", "nbd", "fabric", "units"]),
    ("raid", &["block", "parity"]),
    ("fabric", &["block", "nbd", "units", "text"]),
    // A map stands on the paths of a fabric, whichever it is.
    ("multipath", &["fabric", "block", "units"]),
    ("config", &["fabric", "multipath", "block", "nbd"]),
    // A stack is an array with the reactor that drives it.
    ("stack", &["reactor", "config", "disk", "raid", "fabric", "multipath", "block", "parity", "nbd"]),
    ("reactor", &["block"]),
    ("control", &["reactor", "disk", "fabric", "block"]),
    (
        "bench",
        &[
            "drawing",
            "text",
            "sim",
            "stack",
            "reactor",
            "disk",
            "raid",
            "fabric",
            "multipath",
            "block",
            "parity",
            "nbd",
        ],
    ),
    ("sim", &["units", "text", "stack", "reactor", "disk", "raid", "fabric", "multipath", "block", "parity", "nbd"]),
    ("export", &["stack", "reactor", "disk", "raid", "fabric", "multipath", "block", "parity", "nbd"]),
    (
        "cli",
        &[
            "bench",
            "drawing",
            "sim",
            "export",
            "control",
            "stack",
            "reactor",
            "config",
            "disk",
            "raid",
            "fabric",
            "multipath",
            "units",
            "block",
            "parity",
            "nbd",
        ],
    ),
];

pub fn trials() -> Vec<Trial> {
    vec![
        story("layers::dependencies_point_one_way").told_by(dependencies_point_one_way),
        story("layers::an_import_is_seen_however_it_is_written").told_by(an_import_is_seen_however_it_is_written),
    ]
}

fn dependencies_point_one_way() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut forbidden = Vec::new();
    for file in rust_files(&sources) {
        let path = file.strip_prefix(&sources).expect("it was found there");
        let module = module_path(path);
        // The root lists the layers, the program calls the command line, and tests may know more.
        let Some(layer) = module.first().filter(|_| !path.ends_with("tests.rs")) else { continue };
        let Some((_, known)) = KNOWS.iter().find(|(name, _)| name == layer) else {
            panic!("{}: the layer `{layer}` is not in the table", path.display());
        };
        let text = std::fs::read_to_string(&file).expect("sources are text");
        for import in imports(&text, module.len()) {
            if import != *layer && !known.contains(&import.as_str()) {
                forbidden.push(format!("{}: {layer} must not know {import}", path.display()));
            }
        }
    }
    assert!(forbidden.is_empty(), "{}", forbidden.join("\n"));
}

fn an_import_is_seen_however_it_is_written() {
    let text = r#"
        //! crate::comment
        use crate::{single, group::{inner, self}, crate_like as renamed};
        pub use crate :: spaced::*;
        mod nested { use super::super::super::above; use super::super::within; }
        fn f(x: crate::argument::T) -> u8 { assert!(crate::in_macro::x() == "crate::string"); super::super::climbed::y() }
        #[cfg(test)]
        #[allow(dead_code)]
        mod tests { use crate::only_in_tests; }
        #[cfg(test)] use crate::also_only_in_tests;
        #[cfg(not(test))] use crate::not_in_tests;
    "#;
    let seen: Vec<_> = imports(text, 2).into_iter().collect();
    let expected =
        ["above", "argument", "climbed", "crate_like", "group", "in_macro", "not_in_tests", "single", "spaced"];
    assert_eq!(seen, expected);
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("sources are here") {
        let path = entry.expect("sources can be listed").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `raid/plan.rs` and `raid/plan/mod.rs` are `[raid, plan]`; `lib.rs` and `main.rs` are the root.
fn module_path(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = path.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.pop_if(|last| last == "mod" || last == "lib" || last == "main");
    names
}

/// The layers that source text names outside its tests, in a module `depth` below the crate's root.
fn imports(text: &str, depth: usize) -> BTreeSet<String> {
    let tokens: TokenStream = text.parse().expect("sources are Rust");
    let mut found = BTreeSet::new();
    visit(tokens, depth, &mut found);
    found
}

fn visit(tokens: TokenStream, depth: usize, found: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Group(_) if is_cfg_test(&tokens[..at]) => at += item_length(&tokens[at..]),
            TokenTree::Group(group) => {
                let is_module = at >= 3 && is_word(&tokens[at - 3], "mod") && group.delimiter() == Delimiter::Brace;
                visit(group.stream(), depth + usize::from(is_module), found);
            }
            TokenTree::Ident(word) if *word == "crate" => first_names(&tokens[at..], found),
            TokenTree::Ident(word) if *word == "super" => {
                // As many as it takes to reach the root; a path that stays below it names no layer.
                let mut climbed = 1;
                while climbed < depth && tokens.get(at + 2).is_some_and(|next| is_word(next, "super")) {
                    at += 3;
                    climbed += 1;
                }
                if climbed == depth {
                    first_names(&tokens[at..], found);
                }
            }
            _ => {}
        }
    }
}

/// What follows `crate`: `::name` or `::{name::…, name}`.
fn first_names(tokens: &[TokenTree], found: &mut BTreeSet<String>) {
    let [TokenTree::Punct(first), TokenTree::Punct(second), next, ..] = tokens else { return };
    if (first.as_char(), second.as_char()) != (':', ':') {
        return;
    }
    match next {
        TokenTree::Ident(name) => {
            found.insert(name.to_string());
        }
        TokenTree::Group(group) => {
            let mut at_start = true;
            for token in group.stream() {
                match token {
                    TokenTree::Ident(name) if at_start => {
                        found.insert(name.to_string());
                        at_start = false;
                    }
                    TokenTree::Punct(mark) if mark.as_char() == ',' => at_start = true,
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// Whether these end with `#[cfg(test)]`.
fn is_cfg_test(tokens: &[TokenTree]) -> bool {
    let [.., TokenTree::Punct(hash), TokenTree::Group(attribute)] = tokens else { return false };
    hash.as_char() == '#' && attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// How many tokens the item takes that begins here: up to its semicolon or its braces.
fn item_length(tokens: &[TokenTree]) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Punct(mark) => mark.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    tokens.iter().position(is_end).map_or(tokens.len(), |last| last + 1)
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}
