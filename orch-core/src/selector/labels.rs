//! Selecting by labels.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiLabelSelector;

use super::{SelectorError, parse};
use crate::field::{FieldError, Path};
use crate::names;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operator {
    /// `key=value`
    Equals,
    /// `key!=value`; an absent key matches.
    NotEquals,
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`; an absent key matches.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>n`: the label is a greater integer.
    GreaterThan,
    /// `key<n`: the label is a lesser integer.
    LessThan,
}

/// One condition of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// A condition; checks key and values as upstream does. Values are sorted.
    ///
    /// # Errors
    /// When the key is no label key, a value no label value, or their number does not suit the operator.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, FieldError> {
        let path = Path::root();
        if let Some(wrong) = names::qualified_name(key).first() {
            return Err(FieldError::invalid(&path.child("key"), key, wrong.as_str()));
        }
        check_count(&path, operator, &values)?;
        for (i, value) in values.iter().enumerate() {
            let at = path.child("values").index(i).child(key.to_owned());
            if let Some(wrong) = names::label_value(value).first() {
                return Err(FieldError::invalid(&at, value.as_str(), wrong.as_str()));
            }
        }
        Ok(Self::unchecked(key, operator, values))
    }

    pub(super) fn unchecked(key: &str, operator: Operator, mut values: Vec<String>) -> Self {
        values.sort();
        values.dedup();
        Requirement {
            key: key.to_owned(),
            operator,
            values,
        }
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The comparison.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values compared with, sorted.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label of this value, or none, meets the condition.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let among = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In | Operator::Equals => value.is_some_and(among),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|(label, bound)| label > bound),
            Operator::LessThan => self.compare(value).is_some_and(|(label, bound)| label < bound),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        let bound = self.values.first()?.parse().ok()?;
        Some((value?.parse().ok()?, bound))
    }
}

fn check_count(path: &Path, operator: Operator, values: &[String]) -> Result<(), FieldError> {
    let path = path.child("values");
    let wrong = |message: &str| Err(FieldError::invalid(&path, values.to_vec(), message));
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            wrong("for 'in', 'notin' operators, values set can't be empty")
        }
        Operator::Equals | Operator::NotEquals if values.len() != 1 => {
            wrong("exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            wrong("values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan => match values {
            [one] if one.parse::<i64>().is_ok() => Ok(()),
            [one] => Err(FieldError::invalid(
                &path.index(0),
                one.as_str(),
                "for 'Gt', 'Lt' operators, the value must be an integer",
            )),
            _ => wrong("for 'Gt', 'Lt' operators, exactly one value is required"),
        },
        _ => Ok(()),
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let one = self.values.first().map_or("", String::as_str);
        match self.operator {
            Operator::Equals => write!(f, "{key}={one}"),
            Operator::NotEquals => write!(f, "{key}!={one}"),
            Operator::In => write!(f, "{key} in ({})", self.values.join(",")),
            Operator::NotIn => write!(f, "{key} notin ({})", self.values.join(",")),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{one}"),
            Operator::LessThan => write!(f, "{key}<{one}"),
        }
    }
}

/// Selects objects whose labels meet all requirements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// `None` selects nothing at all.
    requirements: Option<Vec<Requirement>>,
}

/// Selects everything.
impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::from_requirements(Vec::new())
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        LabelSelector { requirements: None }
    }

    /// Selects what meets all of `requirements`.
    pub fn from_requirements(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector {
            requirements: Some(requirements),
        }
    }

    /// Reads a selector: `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>1`.
    ///
    /// # Errors
    /// When it is not built like that, or a key or value is no label's.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::labels(text).map(Self::from_requirements)
    }

    /// The selector of an API object. An empty one selects everything.
    ///
    /// # Errors
    /// When an operator, key or value is wrong.
    pub fn from_api(selector: &ApiLabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError::Operator {
                        operator: other.to_owned(),
                        kind: "label selector",
                    });
                }
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// The selector of an API object where it may be absent, which selects nothing.
    ///
    /// # Errors
    /// When an operator, key or value is wrong.
    pub fn from_api_option(selector: Option<&ApiLabelSelector>) -> Result<Self, SelectorError> {
        selector.map_or_else(|| Ok(Self::nothing()), Self::from_api)
    }

    /// Selects what has all of these labels, as the selectors of Services do. Keys and values are not checked.
    pub fn from_labels<'a, K, V>(labels: impl IntoIterator<Item = (&'a K, &'a V)>) -> Self
    where
        K: AsRef<str> + ?Sized + 'a,
        V: AsRef<str> + ?Sized + 'a,
    {
        let equals = |(key, value): (&K, &V)| {
            Requirement::unchecked(key.as_ref(), Operator::Equals, vec![value.as_ref().to_owned()])
        };
        Self::from_requirements(labels.into_iter().map(equals).collect())
    }

    /// Whether these labels are selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether the labels of an object are selected, which may be absent.
    pub fn matches_option(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches_with(|key| labels?.get(key).map(String::as_str))
    }

    /// Whether labels that `get` looks up are selected.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        match &self.requirements {
            None => false,
            Some(requirements) => requirements.iter().all(|r| r.matches(get(&r.key))),
        }
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether nothing is selected, whatever its labels.
    pub fn is_nothing(&self) -> bool {
        self.requirements.is_none()
    }

    /// The requirements by key; none for the selector that selects nothing.
    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }

    /// The one value that the label `key` must have, if there is one.
    pub fn exact_value(&self, key: &str) -> Option<&str> {
        self.requirements()
            .iter()
            .find_map(|r| match (r.operator, &r.values[..]) {
                (Operator::Equals | Operator::In, [one]) if r.key == key => Some(one.as_str()),
                _ => None,
            })
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn selectors_match_as_upstreams_do() {
        let web = labels(&[("app", "web"), ("n", "5"), ("empty", "")]);
        for yes in [
            "",
            "app",
            "app=web",
            "app==web",
            "app = web",
            "app!=db",
            "x!=y",
            "app in (web,db)",
            "app notin (db)",
            "x notin (a)",
            "!x",
            "n>4",
            "n<6",
            "empty=",
            "empty in (,a)",
            "app,n",
            "in=1,!x", /* a key may be named like an operator */
        ] {
            let mut with = web.clone();
            if yes.starts_with("in=") {
                with.insert("in".into(), "1".into());
            }
            assert!(LabelSelector::parse(yes).unwrap().matches(&with), "{yes}");
        }
        for no in [
            "x",
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (web)",
            "!app",
            "n>5",
            "app>1",
            "x<1",
            "app=",
        ] {
            assert!(!LabelSelector::parse(no).unwrap().matches(&web), "{no}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for bad in [
            "a=b,",
            ",",
            "a in",
            "a in (",
            "a in (b",
            "a in b",
            "a notin ()x",
            "=b",
            "!",
            "a!b",
            "a b",
            "a>b",
            "a>",
            "_a",
            "a=b c",
            "a in (b))",
            "a==b==c",
            "!a=b",
            "a=b=c",
        ] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_written_form_is_canonical() {
        let table = [
            ("b=1, a = 2", "a=2,b=1"),
            ("a in (z,y, x)", "a in (x,y,z)"),
            ("a notin (x),b", "a notin (x),b"),
            ("a==b", "a=b"),
            ("! a,b>1", "!a,b>1"),
        ];
        for (text, canonical) in table {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn absent_selects_nothing_and_empty_everything() {
        assert!(LabelSelector::from_api_option(None).unwrap().is_nothing());
        assert!(!LabelSelector::nothing().matches(&BTreeMap::new()));
        let empty = LabelSelector::from_api(&ApiLabelSelector::default()).unwrap();
        assert!(empty.is_everything());
        assert!(empty.matches(&BTreeMap::new()));
    }

    #[test]
    fn expressions_of_api_objects_are_checked() {
        let expression = |operator: &str, values: &[&str]| ApiLabelSelector {
            match_labels: None,
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "a".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| (*v).into()).collect()),
            }]),
        };
        assert!(
            LabelSelector::from_api(&expression("In", &["x"]))
                .unwrap()
                .matches(&labels(&[("a", "x")]))
        );
        assert!(LabelSelector::from_api(&expression("In", &[])).is_err());
        assert!(LabelSelector::from_api(&expression("Exists", &["x"])).is_err());
        let error = LabelSelector::from_api(&expression("Nope", &[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"Nope\" is not a valid label selector operator"
        );
    }

    proptest! {
        #[test]
        fn any_text_parses_or_errs(text in "[a-c!=<>(), in]{0,24}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                let written = selector.to_string();
                prop_assert_eq!(LabelSelector::parse(&written).unwrap(), selector);
            }
        }

        #[test]
        fn opposites_never_agree(value in prop::option::of("[ab]{0,1}"), of in "[ab]{1}") {
            let with = value.as_deref();
            for (yes, no) in [(Operator::In, Operator::NotIn), (Operator::Equals, Operator::NotEquals)] {
                let yes = Requirement::new("k", yes, vec![of.clone()]).unwrap();
                let no = Requirement::new("k", no, vec![of.clone()]).unwrap();
                prop_assert_ne!(yes.matches(with), no.matches(with));
            }
        }
    }
}
