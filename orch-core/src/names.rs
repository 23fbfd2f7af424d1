//! The syntax of names: DNS labels and subdomains, qualified names, label values, port names.
//!
//! Each check returns what is wrong in upstream's words; nothing wrong is an empty list.
//!
//! ```
//! use orch_core::names;
//!
//! assert!(names::dns1123_label("web-1").is_empty());
//! assert_eq!(names::dns1123_label("Web").len(), 1);
//! ```

/// Longest DNS label, port name excepted.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL_RE: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_RE: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1035_RE: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_RE: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const VALUE_RE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const KEY_RE: &str = "[-._a-zA-Z0-9]+";
const WILDCARD_RE: &str = "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// `must be no more than N bytes`.
pub fn max_len_error(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// `must be non-empty`.
pub fn empty_error() -> String {
    "must be non-empty".to_owned()
}

/// A message about a value that does not match a pattern, with examples that do.
pub fn regex_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{pattern}')");
    }
    let quoted: Vec<_> = examples.iter().map(|example| format!("'{example}', ")).collect();
    let examples = quoted.join(" or ");
    format!("{message} (e.g. {examples}regex used for validation is '{pattern}')")
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn bounded(s: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = s.as_bytes();
    match bytes {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => {
            edge(*first) && edge(*last) && middle.iter().all(|b| edge(*b) || inner(*b))
        }
    }
}

fn is_label(s: &str) -> bool {
    bounded(s, lower_alnum, |b| b == b'-')
}

fn is_qualified_part(s: &str) -> bool {
    bounded(
        s,
        |b| b.is_ascii_alphanumeric(),
        |b| matches!(b, b'-' | b'_' | b'.'),
    )
}

fn check(s: &str, max: usize, matches: bool, message: impl FnOnce() -> String) -> Vec<String> {
    let mut wrong = Vec::new();
    if s.len() > max {
        wrong.push(max_len_error(max));
    }
    if !matches {
        wrong.push(message());
    }
    wrong
}

/// A DNS label of RFC 1123: names of namespaces and containers, generated host names.
pub fn dns1123_label(s: &str) -> Vec<String> {
    check(s, LABEL_MAX, is_label(s), || {
        let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                       start and end with an alphanumeric character";
        regex_error(message, LABEL_RE, &["my-name", "123-abc"])
    })
}

/// A DNS subdomain of RFC 1123: names of most objects.
pub fn dns1123_subdomain(s: &str) -> Vec<String> {
    check(s, SUBDOMAIN_MAX, s.split('.').all(is_label), || {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                       must start and end with an alphanumeric character";
        regex_error(message, SUBDOMAIN_RE, &["example.com"])
    })
}

/// A DNS subdomain whose first label is `*`.
pub fn wildcard_dns1123_subdomain(s: &str) -> Vec<String> {
    let rest = s.strip_prefix("*.");
    let matches = rest.is_some_and(|rest| rest.split('.').all(is_label));
    check(s, SUBDOMAIN_MAX, matches, || {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
                       consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        regex_error(message, WILDCARD_RE, &["*.example.com"])
    })
}

/// A DNS label of RFC 1035, which begins with a letter: names of Services.
pub fn dns1035_label(s: &str) -> Vec<String> {
    let matches = is_label(s) && s.as_bytes()[0].is_ascii_lowercase();
    check(s, LABEL_MAX, matches, || {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                       alphabetic character, and end with an alphanumeric character";
        regex_error(message, DNS1035_RE, &["my-name", "abc-123"])
    })
}

/// A name with an optional DNS prefix: keys of labels, annotations, taints and resources.
pub fn qualified_name(s: &str) -> Vec<String> {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                           alphanumeric character";
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    let mut wrong = Vec::new();
    let parts: Vec<_> = s.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push(format!("prefix part {}", empty_error()));
            } else {
                wrong.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|m| format!("prefix part {m}")),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(MESSAGE, QUALIFIED_RE, &EXAMPLES)
            )];
        }
    };
    if name.is_empty() {
        wrong.push(format!("name part {}", empty_error()));
    } else if name.len() > LABEL_MAX {
        wrong.push(format!("name part {}", max_len_error(LABEL_MAX)));
    }
    if !is_qualified_part(name) {
        wrong.push(format!(
            "name part {}",
            regex_error(MESSAGE, QUALIFIED_RE, &EXAMPLES)
        ));
    }
    wrong
}

/// A label's value: empty, or like the name part of a qualified name.
pub fn label_value(s: &str) -> Vec<String> {
    check(s, LABEL_MAX, s.is_empty() || is_qualified_part(s), || {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
                       must start and end with an alphanumeric character";
        regex_error(message, VALUE_RE, &["MyValue", "my_value", "12345"])
    })
}

/// A key of a ConfigMap or Secret, usable as a file name.
pub fn config_map_key(s: &str) -> Vec<String> {
    let charset = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let matches = !s.is_empty() && s.bytes().all(charset);
    let mut wrong = check(s, SUBDOMAIN_MAX, matches, || {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        regex_error(message, KEY_RE, &["key.name", "KEY_NAME", "key-name"])
    });
    match s {
        "." => wrong.push("must not be '.'".to_owned()),
        ".." => wrong.push("must not be '..'".to_owned()),
        s if s.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// The name of a port, as IANA registers service names.
pub fn port_name(s: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if s.len() > 15 {
        wrong.push(max_len_error(15));
    }
    if !s.bytes().all(|b| lower_alnum(b) || b == b'-') || s.is_empty() {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !s.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if s.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if s.starts_with('-') || s.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// A port's number.
pub fn port_number(port: i64) -> Vec<String> {
    match port {
        1..=65535 => Vec::new(),
        _ => vec!["must be between 1 and 65535, inclusive".to_owned()],
    }
}

/// The name of an environment variable.
pub fn env_var_name(s: &str) -> Vec<String> {
    if s.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    match s.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        true => Vec::new(),
        false => {
            vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_follow_rfc_1123() {
        for good in ["a", "ab-1", "1a", &"a".repeat(63)] {
            assert!(dns1123_label(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä"] {
            assert_eq!(dns1123_label(bad).len(), 1, "{bad}");
        }
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert!(dns1123_subdomain("a.b-c.d").is_empty());
        assert_eq!(dns1123_subdomain("a..b").len(), 1);
        assert!(dns1035_label("a1").is_empty());
        assert_eq!(dns1035_label("1a").len(), 1);
        assert!(wildcard_dns1123_subdomain("*.a.b").is_empty());
        assert_eq!(wildcard_dns1123_subdomain("a.b").len(), 1);
    }

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(
            dns1123_label("A")[0],
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
             with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        );
        assert_eq!(
            dns1123_subdomain("A")[0],
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        );
    }

    #[test]
    fn qualified_names_have_a_name_and_perhaps_a_prefix() {
        for good in ["a", "A.b_c-1", "example.com/A", "kubernetes.io/os"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        assert_eq!(qualified_name("/a")[0], "prefix part must be non-empty");
        assert_eq!(qualified_name("a/")[0], "name part must be non-empty");
        assert!(qualified_name("A/b")[0].starts_with("prefix part a lowercase RFC 1123 subdomain"));
        assert!(qualified_name("a/b/c")[0].starts_with("a qualified name must consist"));
        assert_eq!(
            qualified_name(&"a".repeat(64))[0],
            "name part must be no more than 63 bytes"
        );
    }

    #[test]
    fn the_smaller_checks_hold() {
        assert!(label_value("").is_empty());
        assert_eq!(label_value("-a").len(), 1);
        assert!(config_map_key("tls.crt").is_empty());
        assert_eq!(config_map_key(".."), ["must not be '..'"]);
        assert_eq!(config_map_key("a/b").len(), 1);
        assert!(port_name("http").is_empty());
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(port_number(0).len(), 1);
        assert!(env_var_name("MY.VAR-1").is_empty());
        assert_eq!(env_var_name("A=B").len(), 1);
    }
}
