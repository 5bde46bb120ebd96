//! How the terminal wants to be written to.

use std::env;

/// Whether text may leave ASCII: what the locale says (`LC_ALL`, else `LC_CTYPE`, else `LANG`).
pub fn is_utf8() -> bool {
    let set = |name: &&str| env::var(name).ok().filter(|value| !value.is_empty());
    ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).is_some_and(|locale| names_utf8(&locale))
}

/// Somebody else's text, safe to print: what would steer the terminal, or what it cannot show, is escaped.
pub fn plain(text: &str) -> String {
    plain_on(text, is_utf8())
}

/// As [`plain`], for a terminal that is not this process's.
pub fn plain_on(text: &str, utf8: bool) -> String {
    let is_shown = |c: char| !c.is_control() && (c.is_ascii() || utf8);
    text.chars().map(|c| if is_shown(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

fn names_utf8(locale: &str) -> bool {
    let codeset = locale.split_once('.').map_or("", |(_, codeset)| codeset);
    let codeset = codeset.split('@').next().unwrap_or_default();
    codeset.eq_ignore_ascii_case("UTF-8") || codeset.eq_ignore_ascii_case("UTF8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(plain("lab 1\x1b[2J\n"), "lab 1\\u{1b}[2J\\n");
    }

    #[test]
    fn a_locale_names_its_codeset_behind_a_point() {
        for locale in ["C.UTF-8", "de_DE.utf8", "ca_ES.UTF-8@valencia"] {
            assert!(names_utf8(locale), "{locale}");
        }
        for locale in ["C", "POSIX", "de_DE@euro", "de_DE.ISO-8859-15@euro", ""] {
            assert!(!names_utf8(locale), "{locale}");
        }
    }
}
