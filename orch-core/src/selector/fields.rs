//! Selecting by fields.

use std::fmt;
use std::str::FromStr;

use super::SelectorError;

/// One condition of a field selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// The field's path, such as `metadata.name`.
    pub field: String,
    /// The value compared with.
    pub value: String,
    /// Whether the field must differ.
    pub not: bool,
}

/// Selects objects whose fields meet all requirements. Which fields can be asked for depends on the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Reads a selector: `a=b,c!=d`. In values `\`, `,` and `=` are escaped with a backslash.
    ///
    /// # Errors
    /// When it is not built like that.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text).into_iter().filter(|term| !term.is_empty()) {
            let Some((field, operator, value)) = split_term(term) else {
                return Err(SelectorError::Fields {
                    selector: text.to_owned(),
                    term: term.to_owned(),
                });
            };
            requirements.push(FieldRequirement {
                field: field.to_owned(),
                value: unescape(value)?,
                not: operator == "!=",
            });
        }
        requirements.sort_by(|a, b| a.field.cmp(&b.field));
        Ok(FieldSelector { requirements })
    }

    /// The requirements by field.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the object is selected whose fields `get` looks up; an absent one counts as empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let requirements = self.requirements.iter();
        requirements
            .into_iter()
            .all(|r| (get(&r.field).unwrap_or_default() == r.value) != r.not)
    }

    /// The one value that `field` must have, if there is one.
    pub fn exact_value(&self, field: &str) -> Option<&str> {
        let found = self.requirements.iter().find(|r| r.field == field && !r.not);
        found.map(|r| r.value.as_str())
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let separator = if i > 0 { "," } else { "" };
            let operator = if r.not { "!=" } else { "=" };
            write!(f, "{separator}{}{operator}{}", r.field, escape(&r.value))?;
        }
        Ok(())
    }
}

/// `value` with the backslashes that a field selector needs.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => return Err(SelectorError::Escape(format!("\\{other}"))),
                None => return Err(SelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(SelectorError::Escape(c.to_string())),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    (0..term.len())
        .filter(|at| term.is_char_boundary(*at))
        .find_map(|at| {
            let operator = ["!=", "==", "="]
                .into_iter()
                .find(|o| term[at..].starts_with(o))?;
            Some((&term[..at], operator, &term[at + operator.len()..]))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn selectors_match_as_upstreams_do() {
        let get = |field: &str| match field {
            "metadata.name" => Some("web"),
            "spec.nodeName" => Some(""),
            _ => None,
        };
        for yes in [
            "",
            "metadata.name=web",
            "metadata.name==web",
            "metadata.name!=db",
            "spec.nodeName=",
            "x!=y",
            "x=",
        ] {
            assert!(FieldSelector::parse(yes).unwrap().matches(get), "{yes}");
        }
        for no in ["metadata.name=db", "metadata.name!=web", "metadata.name=web,x=y"] {
            assert!(!FieldSelector::parse(no).unwrap().matches(get), "{no}");
        }
    }

    #[test]
    fn values_are_escaped() {
        let selector = FieldSelector::parse(r"a=x\,y\=z\\").unwrap();
        assert_eq!(selector.exact_value("a"), Some(r"x,y=z\"));
        assert_eq!(selector.to_string(), r"a=x\,y\=z\\");
        assert!(FieldSelector::parse(r"a=\x").is_err());
        assert!(FieldSelector::parse("a=b=c").is_err());
    }

    #[test]
    fn a_term_without_operator_is_refused_in_upstreams_words() {
        let error = FieldSelector::parse("a=b,cd").unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid selector: 'a=b,cd'; can't understand 'cd'"
        );
    }

    proptest! {
        #[test]
        fn any_value_survives_being_written(value in ".{0,20}") {
            let written = format!("f={}", escape(&value));
            let selector = FieldSelector::parse(&written).unwrap();
            prop_assert_eq!(selector.exact_value("f"), Some(value.as_str()));
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }
    }
}
