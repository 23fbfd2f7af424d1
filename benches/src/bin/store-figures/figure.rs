use serde_json::json;

/// What a figure is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    fn number(self) -> f64 {
        match self {
            Self::AtLeast(aim) | Self::AtMost(aim) => aim,
        }
    }

    fn bound(self) -> &'static str {
        match self {
            Self::AtLeast(_) => "at least",
            Self::AtMost(_) => "at most",
        }
    }

    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(aim) => value >= aim,
            Self::AtMost(aim) => value <= aim,
        }
    }
}

/// The other side of a comparison; the aim is one for the ratio.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) ratio: f64,
}

impl Other {
    /// How many times the other's rate ours is.
    pub(crate) fn slower(name: impl Into<String>, ours: f64, value: f64) -> Self {
        Self {
            name: name.into(),
            value,
            ratio: ours / value,
        }
    }

    /// How many times the other's time ours would fit into it.
    pub(crate) fn longer(name: impl Into<String>, ours: f64, value: f64) -> Self {
        Self {
            name: name.into(),
            value,
            ratio: value / ours,
        }
    }
}

/// Prints a figure as one line.
pub(crate) fn tell(name: &str, value: f64, unit: &str, aim: Option<Aim>, other: Option<&Other>) {
    let measured = other.map_or(value, |other| other.ratio);
    let line = json!({
        "name": name,
        "value": value,
        "unit": unit,
        "aim": aim.map(Aim::number),
        "bound": aim.map(Aim::bound),
        "met": aim.map(|aim| aim.is_met(measured)),
        "other": other.map(|other| &other.name),
        "other_value": other.map(|other| other.value),
        "ratio": other.map(|other| other.ratio),
    });
    println!("{line}");
}

/// The middle one of several measurements, the upper one of an even number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A number as people read it: 1,000,000.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
