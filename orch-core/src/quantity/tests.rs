use super::*;
use proptest::prelude::*;

fn q(text: &str) -> Quantity {
    text.parse().unwrap()
}

#[test]
fn canonical_forms_are_upstreams() {
    let table = [
        ("0", "0"),
        ("0n", "0"),
        ("-0", "0"),
        ("0Ki", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("-1", "-1"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("5.", "5"),
        ("1.5", "1500m"),
        ("12345", "12345"),
        ("12000", "12k"),
        ("1000000", "1M"),
        ("1500M", "1500M"),
        ("1k", "1k"),
        ("1Ki", "1Ki"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.1Ki", "102400m"),
        ("1Ei", "1Ei"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1E", "1E"),
        ("1e-3", "1e-3"),
        ("1e1", "10"),
        ("1.5e6", "1500e3"),
        ("1e0", "1"),
        ("1000E", "1000E"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("0.0000000001", "1n"),
        ("1e-100", "1e-9"),
        ("0.001Ki", "1024m"),
        ("1.0001Ki", "1025"),
        ("20Ei", "9223372036854775807"),
        ("3.14159265358979", "3141592654n"),
        ("1000u", "1m"),
        ("1Ti", "1Ti"),
        ("1025Ki", "1025Ki"),
    ];
    for (text, canonical) in table {
        assert_eq!(q(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn bad_texts_say_what_is_wrong() {
    let table = [
        ("", ParseError::Format),
        ("1.1.M", ParseError::Format),
        ("1+1.0M", ParseError::Format),
        ("0.1mi", ParseError::Suffix),
        ("0.1am", ParseError::Format),
        ("aoeu", ParseError::Format),
        (".5i", ParseError::Suffix),
        ("1i", ParseError::Suffix),
        ("1K", ParseError::Suffix),
        ("1ki", ParseError::Suffix),
        ("-3.01i", ParseError::Suffix),
        ("-3.01e-", ParseError::Suffix),
        (" 1", ParseError::Format),
        ("1 ", ParseError::Format),
        (".", ParseError::Number),
        ("-", ParseError::Number),
    ];
    for (text, error) in table {
        assert_eq!(text.parse::<Quantity>(), Err(error), "{text:?}");
    }
}

#[test]
fn values_round_away_from_zero() {
    assert_eq!(q("1500m").value(), 2);
    assert_eq!(q("-1500m").value(), -2);
    assert_eq!(q("1n").milli_value(), 1);
    assert_eq!(q("0").value(), 0);
    assert_eq!(q("1000E").value(), i64::MAX);
    assert_eq!(q("100m").milli_value(), 100);
    assert_eq!(q("2").milli_value(), 2000);
}

#[test]
fn a_sum_keeps_the_first_notation_unless_it_is_zero() {
    assert_eq!((q("1Gi") + q("1")).format(), Format::BinarySi);
    assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
    assert_eq!((q("1Gi") - q("512Mi")).to_string(), "512Mi");
    assert_eq!(
        [q("1Gi"), q("1Gi")].into_iter().sum::<Quantity>().to_string(),
        "2Gi"
    );
}

#[test]
fn amounts_compare_across_notations() {
    assert_eq!(q("1024"), q("1Ki"));
    assert!(q("1k") < q("1Ki"));
    assert!(q("-1") < q("0"));
    assert_eq!(q("1e3"), q("1k"));
}

#[test]
fn json_numbers_are_taken_too() {
    assert_eq!(serde_json::from_str::<Quantity>("2").unwrap(), q("2"));
    assert_eq!(serde_json::from_str::<Quantity>("0.5").unwrap(), q("500m"));
    assert_eq!(serde_json::from_str::<Quantity>("\"1Gi\"").unwrap(), q("1Gi"));
    assert_eq!(serde_json::to_string(&q("0.5")).unwrap(), "\"500m\"");
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "[-+]?[0-9.]{0,60}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,30}") {
        if let Ok(quantity) = text.parse::<Quantity>() {
            let _shown = quantity.to_string();
            let _values = (quantity.value(), quantity.milli_value());
        }
    }

    #[test]
    fn the_canonical_form_reads_back_as_itself(
        number in -1_000_000_000_000i64..1_000_000_000_000,
        suffix in prop::sample::select(vec!["n", "u", "m", "", "k", "M", "G", "T", "Ki", "Mi", "e3", "e-3"]),
    ) {
        let quantity = q(&format!("{number}{suffix}"));
        let canonical = quantity.to_string();
        prop_assert_eq!(q(&canonical), quantity);
        prop_assert_eq!(q(&canonical).to_string(), canonical);
    }

    #[test]
    fn arithmetic_and_order_are_those_of_integers(a in any::<i64>(), b in any::<i64>()) {
        let (x, y) = (Quantity::from_millis(a), Quantity::from_millis(b));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        prop_assert_eq!(x + y - y, x);
        prop_assert_eq!((x + y).milli_value(), saturate(i128::from(a) + i128::from(b)));
        prop_assert_eq!(-(-x), x);
    }
}
