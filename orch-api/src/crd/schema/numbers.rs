//! Numbers as Go's messages show them.

/// A floating-point number as Go's `%v` writes it: the fewest digits that tell it apart, with an exponent from a million
/// on.
pub(crate) fn go_float(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return format!("{number}");
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_an_exponent() {
        for (number, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1.5, "1.5"),
            (65535.0, "65535"),
            (-3.0, "-3"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (2_147_483_647.0, "2.147483647e+09"),
        ] {
            assert_eq!(go_float(number), text);
        }
    }
}
