use crate::object::Taint;
use k8s_openapi::api::core::v1::Toleration;

/// Whether one of the tolerations covers the taint.
pub(super) fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// The first taint with a relevant effect that no toleration covers.
pub(super) fn first_untolerated<'t>(
    taints: &'t [Taint],
    tolerations: &[Toleration],
    relevant: impl Fn(&Taint) -> bool,
) -> Option<&'t Taint> {
    taints
        .iter()
        .find(|taint| relevant(taint) && !tolerated(tolerations, taint))
}

/// An empty key, effect or operator leaves that side open; an empty operator means `Equal`.
pub(super) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, effect, value) = (
        text(&toleration.key),
        text(&toleration.effect),
        text(&toleration.value),
    );
    if !effect.is_empty() && effect != taint.effect.as_str() || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => value == taint.value,
        "Exists" => true,
        "Lt" => compared(&taint.value, &value).is_some_and(|(taint, toleration)| taint < toleration),
        "Gt" => compared(&taint.value, &value).is_some_and(|(taint, toleration)| taint > toleration),
        _ => false,
    }
}

fn compared(taint: &str, toleration: &str) -> Option<(i64, i64)> {
    Some((taint.parse().ok()?, toleration.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::TaintEffect;
    use crate::sample::pod;

    #[test]
    fn tolerations_match_by_key_operator_value_and_effect() {
        let taint = Taint {
            key: "team".into(),
            value: "7".into(),
            effect: TaintEffect::NoSchedule,
        };
        let cases = [
            (("team", "Equal", "7", "NoSchedule"), true),
            (("team", "", "7", ""), true),
            (("team", "Equal", "8", "NoSchedule"), false),
            (("team", "Exists", "", "NoExecute"), false),
            (("other", "Exists", "", ""), false),
            (("", "Exists", "", ""), true),
            (("", "Exists", "", "PreferNoSchedule"), false),
            (("team", "Lt", "8", ""), true),
            (("team", "Gt", "8", ""), false),
            (("team", "Gt", "6", ""), true),
            (("team", "Gt", "six", ""), false),
            (("team", "Near", "7", ""), false),
        ];
        for ((key, operator, value, effect), expected) in cases {
            let pod = pod("p").toleration(key, operator, value, effect).build();
            assert_eq!(
                tolerated(&pod.tolerations, &taint),
                expected,
                "{key} {operator} {value} {effect}"
            );
        }
    }
}
