//! Holds a value against its schema, in the words of upstream's validator.

use orch_core::field::{ErrorList, FieldError, Path, quote};
use serde_json::{Map, Value};

use super::{Additional, JsonType, Limit, Schema, go_float};

/// Errors that a hostile object can cause are as many as it has fields: more than this tell nothing new.
const MAX_ERRORS: usize = 100;

impl Schema {
    /// What is wrong with an object. Of what an update left as it was nothing is said: a schema that became stricter
    /// does not stand in the way of other changes.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let mut faults = Faults::default();
        self.check("", object, old, &mut faults);
        faults.errors
    }
}

/// What was found, and how far a value fits: the best of several alternatives is the one that is told about.
#[derive(Default)]
struct Faults {
    errors: ErrorList,
    matches: usize,
}

impl Faults {
    fn push(&mut self, error: FieldError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }

    fn take(&mut self, other: Self) {
        for error in other.errors {
            self.push(error);
        }
        self.matches += other.matches;
    }

    fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    fn invalid(&mut self, path: &str, value: impl Into<Value>, message: String) {
        self.push(FieldError::invalid(&place(path), value, message));
    }

    /// A fault of the whole, which upstream ties to no field.
    fn whole(&mut self, message: String) {
        self.push(FieldError::invalid(&Path::root(), "", message));
    }
}

fn place(path: &str) -> Path {
    match path.trim_start_matches('.') {
        "" => Path::root(),
        path => Path::new(path.to_owned()),
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The JSON type of a value.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// JSON Schema's equality: 1 and 1.0 are one.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => one == other,
    }
}

impl Schema {
    fn check(&self, path: &str, value: &Value, old: Option<&Value>, faults: &mut Faults) {
        if old.is_some_and(|old| equal(old, value)) {
            return;
        }
        self.check_type(path, value, faults);
        if !value.is_null() {
            self.check_combinations(path, value, faults);
            match value {
                Value::String(text) => self.check_text(path, text, faults),
                Value::Number(number) => {
                    self.check_number(path, value, number.as_f64().unwrap_or(0.0), faults)
                }
                Value::Array(items) => self.check_items(path, items, old, faults),
                Value::Object(fields) => self.check_fields(path, fields, old, faults),
                Value::Null | Value::Bool(_) => (),
            }
        }
        if !self.enumeration.is_empty() && !self.enumeration.iter().any(|one| equal(one, value)) {
            let supported = self.enumeration.iter().map(|one| match one {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            faults.push(FieldError::not_supported(&place(path), value.clone(), supported));
        }
        faults.matches += 1;
    }

    fn check_type(&self, path: &str, value: &Value, faults: &mut Faults) {
        if value.is_null() && self.nullable {
            return;
        }
        let found = type_of(value);
        let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let (fits, wanted) = match self.ty {
            _ if self.int_or_string => (
                value.is_string() || (value.is_number() && whole),
                "integer,string",
            ),
            None => return,
            Some(JsonType::Integer) => (value.is_number() && whole, "integer"),
            Some(JsonType::Number) => (value.is_number(), "number"),
            Some(ty) => (found == ty.as_str(), ty.as_str()),
        };
        if !fits {
            let message = format!("{path} in body must be of type {wanted}: {}", quote(found));
            faults.push(FieldError::type_invalid(&place(path), found, message));
        }
    }

    fn check_text(&self, path: &str, text: &str, faults: &mut Faults) {
        let length = text.chars().count();
        let over = |max: i64| i64::try_from(length).unwrap_or(i64::MAX) > max;
        if let Some(max) = self.lengths.max.filter(|max| over(*max)) {
            faults.push(FieldError::too_long(
                &place(path),
                usize::try_from(max).unwrap_or(0),
            ));
        }
        if let Some(min) = self.lengths.min.filter(|min| !over(min - 1)) {
            faults.invalid(
                path,
                text,
                format!("{path} in body should be at least {min} chars long"),
            );
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            faults.invalid(
                path,
                text,
                format!("{path} in body should match '{}'", pattern.as_str()),
            );
        }
        if let Some(format) = self.format.filter(|format| !format.fits(text)) {
            let message = format!(
                "{path} in body must be of type {}: {}",
                format.as_str(),
                quote(text)
            );
            faults.push(FieldError::type_invalid(&place(path), text, message));
        }
    }

    fn check_number(&self, path: &str, value: &Value, number: f64, faults: &mut Faults) {
        if let Some((low, high)) = self.format.and_then(super::Format::range)
            && !(low..=high).contains(&number)
        {
            let ty = self.ty.map_or("integer", JsonType::as_str);
            let format = self.format.map_or("", super::Format::as_str);
            faults.whole(format!(
                "Checked value must be of type {ty} with format {format} in {path}"
            ));
        }
        if let Some(factor) = self.multiple_of {
            let ratio = number / factor;
            if (ratio - ratio.round()).abs() > f64::EPSILON * ratio.abs().max(1.0) {
                let message = format!("{path} in body should be a multiple of {}", go_float(factor));
                faults.invalid(path, value.clone(), message);
            }
        }
        if let Some(Limit {
            value: max,
            exclusive,
        }) = self.maximum
            && (number > max || (exclusive && number == max))
        {
            let than = if exclusive {
                "less than"
            } else {
                "less than or equal to"
            };
            faults.invalid(
                path,
                value.clone(),
                format!("{path} in body should be {than} {}", go_float(max)),
            );
        }
        if let Some(Limit {
            value: min,
            exclusive,
        }) = self.minimum
            && (number < min || (exclusive && number == min))
        {
            let than = if exclusive {
                "greater than"
            } else {
                "greater than or equal to"
            };
            faults.invalid(
                path,
                value.clone(),
                format!("{path} in body should be {than} {}", go_float(min)),
            );
        }
    }

    fn check_items(&self, path: &str, items: &[Value], old: Option<&Value>, faults: &mut Faults) {
        if let Some(schema) = &self.items {
            for (index, item) in items.iter().enumerate() {
                schema.check(&format!("{path}[{index}]"), item, self.earlier(item, old), faults);
            }
        }
        let count = items.len();
        if let Some(min) = self.counts.min.filter(|min| as_i64(count) < *min) {
            faults.invalid(
                path,
                count,
                format!("{path} in body should have at least {min} items"),
            );
        }
        if let Some(max) = self.counts.max.filter(|max| as_i64(count) > *max) {
            faults.push(FieldError::too_many(
                &place(path),
                count,
                usize::try_from(max).unwrap_or(0),
            ));
        }
    }

    fn check_fields(
        &self,
        path: &str,
        fields: &Map<String, Value>,
        old: Option<&Value>,
        faults: &mut Faults,
    ) {
        let count = fields.len();
        if let Some(min) = self.sizes.min.filter(|min| as_i64(count) < *min) {
            faults.invalid(
                path,
                count,
                format!("{path} in body should have at least {min} properties"),
            );
            return;
        }
        if let Some(max) = self.sizes.max.filter(|max| as_i64(count) > *max) {
            faults.push(FieldError::too_many(
                &place(path),
                count,
                usize::try_from(max).unwrap_or(0),
            ));
            return;
        }
        for (name, value) in fields {
            let old = old.and_then(|old| old.get(name));
            match (self.properties.get(name), &self.additional) {
                (Some(schema), _) => schema.check(&below(path, name), value, old, faults),
                (None, Some(Additional::Schema(schema))) => {
                    schema.check(&below(path, name), value, old, faults)
                }
                (None, Some(Additional::Any(false))) => {
                    let message = format!("{path}.{name} in body is a forbidden property");
                    faults.invalid(&below(path, name), "", message);
                }
                (None, Some(Additional::Any(true)) | None) => (),
            }
        }
        for name in &self.required {
            if !fields.contains_key(name) {
                faults.push(FieldError::required(&place(&below(path, name)), ""));
            }
        }
    }

    fn check_combinations(&self, path: &str, value: &Value, faults: &mut Faults) {
        if !self.any_of.is_empty() {
            let (fitting, best) = alternatives(&self.any_of, path, value);
            if fitting == 0 {
                faults.whole(format!(
                    "{} must validate at least one schema (anyOf)",
                    quote(path)
                ));
                faults.take(best);
            }
        }
        if !self.one_of.is_empty() {
            let (fitting, best) = alternatives(&self.one_of, path, value);
            let only = "must validate one and only one schema (oneOf)";
            if fitting == 0 {
                faults.whole(format!("{} {only}. Found none valid", quote(path)));
                faults.take(best);
            } else if fitting > 1 {
                faults.whole(format!(
                    "{} {only}. Found {fitting} valid alternatives",
                    quote(path)
                ));
            }
        }
        if !self.all_of.is_empty() {
            let mut fitting = 0;
            for schema in &self.all_of {
                let found = inside(schema, path, value);
                fitting += usize::from(found.is_empty());
                faults.take(found);
            }
            if fitting == 0 {
                faults.whole(format!(
                    "{} must validate all the schemas (allOf). None validated",
                    quote(path)
                ));
            } else if fitting < self.all_of.len() {
                faults.whole(format!("{} must validate all the schemas (allOf)", quote(path)));
            }
        }
        if let Some(not) = &self.not
            && inside(not, path, value).is_empty()
        {
            faults.whole(format!("{} must not validate the schema (not)", quote(path)));
        }
    }
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn inside(schema: &Schema, path: &str, value: &Value) -> Faults {
    let mut faults = Faults::default();
    schema.check(path, value, None, &mut faults);
    faults
}

/// How many alternatives fit, and what is wrong with the best of those that do not.
fn alternatives(schemas: &[Schema], path: &str, value: &Value) -> (usize, Faults) {
    let mut fitting = 0;
    let mut best: Option<Faults> = None;
    for schema in schemas {
        let found = inside(schema, path, value);
        if found.is_empty() {
            fitting += 1;
        } else if best.as_ref().is_none_or(|best| found.matches > best.matches) {
            best = Some(found);
        }
    }
    (fitting, best.unwrap_or_default())
}
