//! The JSON paths of columns, scale and selectable fields: the part of kubectl's syntax that reads values.

use serde_json::Value;

/// Steps are few in honest paths, and filters may nest.
const MAX_LENGTH: usize = 4096;

/// A compiled path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Slice(Option<i64>, Option<i64>),
    Descend,
    Filter(Filter),
}

/// `@.type=="Ready"`, or only `@.type`.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    path: JsonPath,
    test: Option<(Comparison, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::MoreOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::More),
];

impl JsonPath {
    /// Reads `.spec.items[0].name` and the like.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("path is longer than {MAX_LENGTH} bytes"));
        }
        let mut parser = Parser { text, at: 0 };
        let steps = parser.steps()?;
        if parser.at < text.len() {
            return Err(format!("unexpected {:?} at {}", parser.rest(), parser.at));
        }
        Ok(Self { steps })
    }

    /// The names of a path that is only names: `.spec.replicas`.
    pub(crate) fn names(&self) -> Option<Vec<&str>> {
        let name = |step: &'_ Step| matches!(step, Step::Field(_));
        self.steps.iter().all(name).then(|| {
            self.steps
                .iter()
                .filter_map(|step| match step {
                    Step::Field(name) => Some(name.as_str()),
                    _ => None,
                })
                .collect()
        })
    }

    /// The values that the path leads to.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.take(value)).collect();
        }
        found
    }

    /// The first of them.
    pub(crate) fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.find(value).into_iter().next()
    }
}

impl Step {
    fn take<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Step::Field(name), value) => value.get(name).into_iter().collect(),
            (Step::Index(index), Value::Array(items)) => place(*index, items.len())
                .and_then(|index| items.get(index))
                .into_iter()
                .collect(),
            (Step::All, Value::Array(items)) => items.iter().collect(),
            (Step::All, Value::Object(fields)) => fields.values().collect(),
            (Step::Slice(from, to), Value::Array(items)) => {
                let bound = |bound: Option<i64>, default| {
                    bound.map_or(default, |bound| {
                        place(bound, items.len()).unwrap_or(0).min(items.len())
                    })
                };
                let (from, to) = (bound(*from, 0), bound(*to, items.len()));
                items.get(from..to).unwrap_or_default().iter().collect()
            }
            (Step::Descend, value) => {
                let mut all = Vec::new();
                descend(value, &mut all);
                all
            }
            (Step::Filter(filter), Value::Array(items)) => {
                items.iter().filter(|item| filter.takes(item)).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    if index < 0 {
        let back = usize::try_from(index.unsigned_abs()).ok()?;
        length.checked_sub(back)
    } else {
        usize::try_from(index).ok()
    }
}

fn descend<'v>(value: &'v Value, all: &mut Vec<&'v Value>) {
    all.push(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|inner| descend(inner, all)),
        Value::Array(items) => items.iter().for_each(|inner| descend(inner, all)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

impl Filter {
    fn takes(&self, item: &Value) -> bool {
        let Some(found) = self.path.first(item) else {
            return false;
        };
        let Some((comparison, wanted)) = &self.test else {
            return true;
        };
        let order = match (found, wanted) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            _ => None,
        };
        order.is_some_and(|order| match comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::More => order.is_gt(),
            Comparison::MoreOrEqual => order.is_ge(),
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        self.at += if found { prefix.len() } else { 0 };
        found
    }

    fn steps(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            if self.take("..") {
                steps.push(Step::Descend);
                if !self.rest().starts_with(['[', '*']) {
                    steps.push(Step::Field(self.name()?));
                }
            } else if self.take(".") {
                if self.rest().is_empty() && steps.is_empty() {
                    return Ok(steps);
                }
                if self.rest().starts_with('[') {
                    continue;
                }
                steps.push(if self.take("*") {
                    Step::All
                } else {
                    Step::Field(self.name()?)
                });
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else {
                return Ok(steps);
            }
        }
    }

    /// A field's name, in which a backslash takes the next character as it is.
    fn name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        let mut signs = self.rest().char_indices();
        let mut end = self.rest().len();
        while let Some((place, sign)) = signs.next() {
            match sign {
                '\\' => match signs.next() {
                    Some((_, escaped)) => name.push(escaped),
                    None => return Err("unexpected end after a backslash".to_owned()),
                },
                '.' | '[' | ']' | '=' | '!' | '<' | '>' | ')' | ' ' | '{' | '}' | '(' => {
                    end = place;
                    break;
                }
                sign => name.push(sign),
            }
        }
        if name.is_empty() {
            return Err(format!("a field's name is missing at {}", self.at));
        }
        self.at += end;
        Ok(name)
    }

    fn bracket(&mut self) -> Result<Step, String> {
        let step = if self.take("*]") {
            return Ok(Step::All);
        } else if self.take("?(") {
            let filter = self.filter()?;
            if !self.take(")") {
                return Err("unterminated filter".to_owned());
            }
            Step::Filter(filter)
        } else if self.rest().starts_with(['\'', '"']) {
            Step::Field(self.quoted()?)
        } else {
            self.numbers()?
        };
        if self.take("]") {
            Ok(step)
        } else {
            Err("unterminated array".to_owned())
        }
    }

    fn numbers(&mut self) -> Result<Step, String> {
        let end = self.rest().find(']').ok_or("unterminated array")?;
        let inside = &self.rest()[..end];
        let number = |text: &str| -> Result<Option<i64>, String> {
            match text.trim() {
                "" => Ok(None),
                text => text
                    .parse()
                    .map(Some)
                    .map_err(|_| format!("invalid array index {text}")),
            }
        };
        let step = match inside.split_once(':') {
            Some((from, to)) => Step::Slice(number(from)?, number(to)?),
            None => Step::Index(number(inside)?.ok_or("an array index is missing")?),
        };
        self.at += end;
        Ok(step)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.rest().chars().next().unwrap_or('\'');
        self.at += 1;
        let mut text = String::new();
        let mut signs = self.rest().char_indices();
        while let Some((place, sign)) = signs.next() {
            match sign {
                '\\' => match signs.next() {
                    Some((_, escaped)) => text.push(escaped),
                    None => break,
                },
                sign if sign == quote => {
                    self.at += place + 1;
                    return Ok(text);
                }
                sign => text.push(sign),
            }
        }
        Err("unterminated quoted string".to_owned())
    }

    fn filter(&mut self) -> Result<Filter, String> {
        self.blank();
        if !self.take("@") {
            return Err("a filter begins with @".to_owned());
        }
        // A filter inside of a filter has no use and lets a path nest without end.
        let start = self.at;
        let steps = self.steps()?;
        if self.text[start..self.at].contains("?(") {
            return Err("nested filters are not supported".to_owned());
        }
        let path = JsonPath { steps };
        self.blank();
        let Some((sign, comparison)) = COMPARISONS
            .into_iter()
            .find(|(sign, _)| self.rest().starts_with(sign))
        else {
            return Ok(Filter { path, test: None });
        };
        self.at += sign.len();
        self.blank();
        let value = self.literal()?;
        self.blank();
        Ok(Filter {
            path,
            test: Some((comparison, value)),
        })
    }

    fn literal(&mut self) -> Result<Value, String> {
        if self.rest().starts_with(['\'', '"']) {
            return self.quoted().map(Value::String);
        }
        let end = self.rest().find([')', ' ']).ok_or("unterminated filter")?;
        let text = &self.rest()[..end];
        self.at += end;
        serde_json::from_str(text).map_err(|_| format!("unrecognized value {text} in a filter"))
    }

    fn blank(&mut self) {
        while self.take(" ") {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(path: &str) -> Value {
        let value = json!({
            "spec": {"replicas": 3, "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Bad", "status": "False"}]},
            "metadata": {"labels": {"a.b/c": "x"}},
        });
        let path = JsonPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        path.find(&value).into_iter().cloned().collect()
    }

    #[test]
    fn paths_lead_to_values() {
        for (path, values) in [
            (".spec.replicas", json!([3])),
            (".spec.ports[0].name", json!(["a"])),
            (".spec.ports[-1].name", json!(["b"])),
            (".spec.ports[*].port", json!([1, 2])),
            (".spec.ports[0:1].port", json!([1])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type == 'Bad')].status", json!(["False"])),
            (".spec.ports[?(@.port>1)].name", json!(["b"])),
            (".metadata.labels.a\\.b/c", json!(["x"])),
            (".metadata.labels['a.b/c']", json!(["x"])),
            ("..port", json!([1, 2])),
            (".spec.absent.deeper", json!([])),
        ] {
            assert_eq!(found(path), values, "{path}");
        }
    }

    #[test]
    fn broken_paths_are_refused() {
        for path in [
            ".spec.[",
            ".spec[",
            ".spec[x]",
            ".a..",
            ".a[?(b)]",
            ".a[?(@.b==)]",
            "spec",
            ".a[?(@.b[?(@.c)])]",
            ".a['b",
        ] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn simple_paths_have_names() {
        assert_eq!(
            JsonPath::parse(".spec.replicas").unwrap().names(),
            Some(vec!["spec", "replicas"])
        );
        assert_eq!(JsonPath::parse(".spec[0]").unwrap().names(), None);
    }
}
