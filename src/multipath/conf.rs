//! multipath.conf(5), as far as it says how long things take.
//!
//! ```text
//!   defaults  { polling_interval 5   path_selector "service-time 0" }
//!   devices   { device { vendor "X" product "Y" fast_io_fail_tmo 5 } }
//!   overrides { no_path_retry 2 }
//! ```
//!
//! Sections nest in braces; a keyword takes the rest of its words up to the next keyword's line as its value, in quotes if it holds
//! blanks. What starts with `#` or `!` is a comment.

use std::fmt;

/// A keyword and its value, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The keyword.
    pub key: String,
    /// The value, without quotes.
    pub value: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// A section: its settings, and the sections in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Section {
    /// `defaults`, `device`, ...
    pub name: String,
    /// Where it begins.
    pub line: usize,
    /// In the order they stand.
    pub settings: Vec<Setting>,
    /// In the order they stand.
    pub sections: Vec<Section>,
}

/// What is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What, and what was expected.
    pub message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for SyntaxError {}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    Open,
    Close,
}

struct Placed {
    token: Token,
    line: usize,
    column: usize,
}

fn tokens(text: &str) -> Result<Vec<Placed>, SyntaxError> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let chars: Vec<char> = line.chars().collect();
        let mut column = 0;
        while column < chars.len() {
            let begin = column;
            let mut push = |token| found.push(Placed { token, line: at + 1, column: begin + 1 });
            match chars[column] {
                c if c.is_whitespace() => column += 1,
                '#' | '!' => break,
                '{' => {
                    push(Token::Open);
                    column += 1;
                }
                '}' => {
                    push(Token::Close);
                    column += 1;
                }
                '"' => {
                    let close = chars[column + 1..].iter().position(|c| *c == '"').ok_or_else(|| SyntaxError {
                        line: at + 1,
                        column: begin + 1,
                        message: "this quote is not closed on its line: add a \"".to_owned(),
                    })?;
                    push(Token::Word(chars[begin + 1..begin + 1 + close].iter().collect()));
                    column += close + 2;
                }
                _ => {
                    let length =
                        chars[column..].iter().take_while(|c| !c.is_whitespace() && !"{}\"".contains(**c)).count();
                    push(Token::Word(chars[begin..begin + length].iter().collect()));
                    column += length;
                }
            }
        }
    }
    Ok(found)
}

/// All sections of a file.
///
/// # Errors
/// Where the text is not multipath.conf's syntax: the first place, and what is wrong there.
pub fn parse(text: &str) -> Result<Section, SyntaxError> {
    let mut root = Section::default();
    let mut open: Vec<Section> = Vec::new();
    let found = tokens(text)?;
    let mut at = 0;
    while at < found.len() {
        let Placed { token, line, column } = &found[at];
        let wrong = |message: String| SyntaxError { line: *line, column: *column, message };
        match token {
            Token::Open => return Err(wrong("a { needs the name of a section before it".to_owned())),
            Token::Close => {
                let section = open.pop().ok_or_else(|| wrong("this } closes nothing: remove it".to_owned()))?;
                open.last_mut().unwrap_or(&mut root).sections.push(section);
                at += 1;
            }
            Token::Word(word) => match found.get(at + 1) {
                Some(Placed { token: Token::Open, .. }) => {
                    open.push(Section { name: word.clone(), line: *line, ..Section::default() });
                    at += 2;
                }
                Some(Placed { token: Token::Word(value), line: of_value, .. }) if of_value == line => {
                    let Some(section) = open.last_mut() else {
                        return Err(wrong(format!("{word} stands in no section: put it into defaults {{ }}")));
                    };
                    section.settings.push(Setting {
                        key: word.clone(),
                        value: value.clone(),
                        line: *line,
                        column: *column,
                    });
                    at += 2;
                }
                _ => return Err(wrong(format!("{word} has no value: write one behind it, or {{ if it is a section"))),
            },
        }
    }
    match open.pop() {
        Some(section) => Err(SyntaxError {
            line: section.line,
            column: 1,
            message: format!("the section {} that begins here is not closed: add a }}", section.name),
        }),
        None => Ok(root),
    }
}

/// Keywords that say nothing of time: how maps are named, which devices are taken, what the host does besides.
pub const PLUMBING: &[&str] = &[
    "alias",
    "alias_prefix",
    "all_tg_pt",
    "allow_usb_devices",
    "auto_resize",
    "bindings_file",
    "checker",
    "config_dir",
    "deferred_remove",
    "delay_wait_checks",
    "delay_watch_checks",
    "detect_checker",
    "detect_pgpolicy",
    "detect_pgpolicy_use_tpg",
    "detect_prio",
    "devnode",
    "disable_changed_wwids",
    "enable_foreign",
    "find_multipaths",
    "find_multipaths_timeout",
    "flush_on_last_del",
    "force_sync",
    "getuid_callout",
    "ghost_delay",
    "gid",
    "hardware_handler",
    "log_checker_err",
    "max_fds",
    "max_sectors_kb",
    "missing_uev_wait_timeout",
    "mode",
    "multipath_dir",
    "partition_delimiter",
    "pg_timeout",
    "prkeys_file",
    "product",
    "product_blacklist",
    "property",
    "protocol",
    "purge_disconnected",
    "queue_without_daemon",
    "reassign_maps",
    "recheck_wwid",
    "remove_retries",
    "reservation_key",
    "retain_attached_hw_handler",
    "retrigger_delay",
    "retrigger_tries",
    "revision",
    "rr_min_io",
    "rr_min_io_rq",
    "rr_weight",
    "skip_kpartx",
    "strict_timing",
    "type",
    "uev_wait_timeout",
    "uid",
    "uid_attribute",
    "uid_attrs",
    "user_friendly_names",
    "uxsock_timeout",
    "vendor",
    "verbosity",
    "vpd_vendor",
    "wwid",
    "wwids_file",
];

/// Keywords that say how long things take, or what happens then.
pub const TIMED: &[&str] = &[
    "polling_interval",
    "max_polling_interval",
    "checker_timeout",
    "path_checker",
    "fast_io_fail_tmo",
    "dev_loss_tmo",
    "eh_deadline",
    "max_retries",
    "no_path_retry",
    "failback",
    "path_selector",
    "path_grouping_policy",
    "prio",
    "prio_args",
    "features",
    "marginal_path_double_failed_time",
    "marginal_path_err_rate_threshold",
    "marginal_path_err_recheck_gap_time",
    "marginal_path_err_sample_time",
    "marginal_pathgroups",
    "san_path_err_forget_rate",
    "san_path_err_recovery_time",
    "san_path_err_threshold",
];

/// Sections there are.
pub const SECTIONS: &[&str] = &[
    "defaults",
    "devices",
    "device",
    "overrides",
    "multipaths",
    "multipath",
    "blacklist",
    "blacklist_exceptions",
    "protocol",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_nest_and_comments_are_none() {
        let text = "# mine\ndefaults {\n  polling_interval 5 # often\n  path_selector \"service-time 0\"\n}\n\
                    devices { device {\n vendor \"X\"\n fast_io_fail_tmo off } }\n";
        let root = parse(text).unwrap();
        assert_eq!(root.sections[0].name, "defaults");
        assert_eq!(root.sections[0].settings[1].value, "service-time 0");
        let device = &root.sections[1].sections[0];
        assert_eq!((device.settings[1].key.as_str(), device.settings[1].line), ("fast_io_fail_tmo", 8));
    }

    #[test]
    fn an_error_is_where_it_is() {
        let place = |text: &str| parse(text).map_err(|error| (error.line, error.column)).unwrap_err();
        assert_eq!(place("defaults {\n  polling_interval\n}\n"), (2, 3));
        assert_eq!(place("defaults {\n  prio \"alua\n}\n"), (2, 8));
        assert_eq!(place("defaults { }\n }\n"), (2, 2));
        assert_eq!(place("\ndefaults {\n"), (2, 1));
        assert_eq!(place("polling_interval 5\n"), (1, 1));
        assert_eq!(place("{ }"), (1, 1));
    }
}
