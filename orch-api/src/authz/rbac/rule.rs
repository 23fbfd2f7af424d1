//! One rule of a role: what it allows, and whether some rules hold all that others give.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;
use orch_core::field::quote;

use crate::authz::Attributes;

const ALL: &str = "*";

fn words(words: &Option<Vec<String>>) -> &[String] {
    words.as_deref().unwrap_or_default()
}

fn has(words: &[String], wanted: &str) -> bool {
    words.iter().any(|word| word == wanted)
}

fn has_or_all(words: &[String], wanted: &str) -> bool {
    words.iter().any(|word| word == wanted || word == ALL)
}

/// Whether a rule allows what a request wants.
pub(crate) fn allows(rule: &PolicyRule, wanted: &Attributes) -> bool {
    if !has_or_all(&rule.verbs, &wanted.verb) {
        return false;
    }
    if !wanted.is_resource() {
        return words(&rule.non_resource_urls)
            .iter()
            .any(|url| url_covers(url, &wanted.path));
    }
    has_or_all(words(&rule.api_groups), &wanted.group)
        && words(&rule.resources)
            .iter()
            .any(|word| resource_matches(word, &wanted.resource, &wanted.subresource))
        && (words(&rule.resource_names).is_empty()
            || (!wanted.name.is_empty() && has(words(&rule.resource_names), &wanted.name)))
}

/// `*` is everything, `*/scale` that part of every resource, `pods` only the resource, `pods/log` only the part.
fn resource_matches(word: &str, resource: &str, subresource: &str) -> bool {
    if word == ALL {
        return true;
    }
    if subresource.is_empty() {
        return word == resource;
    }
    let of = word
        .strip_suffix(subresource)
        .and_then(|rest| rest.strip_suffix('/'));
    of.is_some_and(|of| of == ALL || of == resource)
}

/// A trailing `*` stands for any rest of the path.
fn url_covers(url: &str, path: &str) -> bool {
    url == ALL
        || url == path
        || url
            .strip_suffix('*')
            .is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

/// What of `wanted` is in none of the `held` rules, taken apart to single verbs and resources. As upstream, a single
/// right has to be held by one rule as a whole.
pub(crate) fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(single_rights)
        .filter(|right| !held.iter().any(|rule| covers(rule, right)))
        .collect()
}

/// A rule as many rules of one verb and one resource, name or path each.
fn single_rights(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |word: &String| Some(vec![word.clone()]);
    let mut rights = Vec::new();
    for verb in &rule.verbs {
        let verbs = vec![verb.clone()];
        for url in words(&rule.non_resource_urls) {
            rights.push(PolicyRule {
                verbs: verbs.clone(),
                non_resource_urls: one(url),
                ..PolicyRule::default()
            });
        }
        for group in words(&rule.api_groups) {
            for resource in words(&rule.resources) {
                let right = PolicyRule {
                    verbs: verbs.clone(),
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                match words(&rule.resource_names) {
                    [] => rights.push(right),
                    names => rights.extend(names.iter().map(|name| PolicyRule {
                        resource_names: one(name),
                        ..right.clone()
                    })),
                }
            }
        }
    }
    rights
}

fn covers(held: &PolicyRule, right: &PolicyRule) -> bool {
    let all = |held: &[String], wanted: &[String]| wanted.iter().all(|word| has_or_all(held, word));
    let held_names = words(&held.resource_names);
    let names = held_names.is_empty()
        || (!words(&right.resource_names).is_empty()
            && words(&right.resource_names)
                .iter()
                .all(|name| has(held_names, name)));
    let resources = words(&right.resources).iter().all(|wanted| {
        let (resource, part) = wanted.split_once('/').unwrap_or((wanted, ""));
        words(&held.resources)
            .iter()
            .any(|held| held == wanted || resource_matches(held, resource, part))
    });
    let urls = words(&right.non_resource_urls).iter().all(|wanted| {
        words(&held.non_resource_urls)
            .iter()
            .any(|held| url_covers(held, wanted))
    });
    all(&held.verbs, &right.verbs)
        && all(words(&held.api_groups), words(&right.api_groups))
        && resources
        && urls
        && names
}

/// Single rights in upstream's words, one a line: those of one resource together, in the order of the text.
pub(crate) fn describe(rights: &[PolicyRule]) -> String {
    type Place = (String, String, Option<String>);
    let mut lines = BTreeSet::new();
    let mut together: BTreeMap<Place, PolicyRule> = BTreeMap::new();
    for right in rights {
        let [group] = words(&right.api_groups) else {
            lines.insert(compact(right));
            continue;
        };
        let place = (
            group.clone(),
            words(&right.resources).first().cloned().unwrap_or_default(),
            words(&right.resource_names).first().cloned(),
        );
        match together.get_mut(&place) {
            Some(rule) => {
                for verb in &right.verbs {
                    if !rule.verbs.contains(verb) {
                        rule.verbs.push(verb.clone());
                    }
                }
            }
            None => {
                together.insert(place, right.clone());
            }
        }
    }
    lines.extend(together.values().map(compact));
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

fn compact(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", words(&rule.api_groups)),
        ("Resources", words(&rule.resources)),
        ("NonResourceURLs", words(&rule.non_resource_urls)),
        ("ResourceNames", words(&rule.resource_names)),
        ("Verbs", &rule.verbs),
    ];
    let shown = parts
        .iter()
        .filter(|(_, words)| !words.is_empty())
        .map(|(name, words)| format!("{name}:{}", quoted(words)));
    format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
}

/// `["a" "b"]`, as Go prints a list of quoted words.
pub(crate) fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(value: Value) -> PolicyRule {
        serde_json::from_value(value).unwrap()
    }

    /// `verb group/resource[/part] [name]` or `verb /path`; the core group is `core`.
    fn wanted(text: &str) -> Attributes {
        let words: Vec<&str> = text.split(' ').collect();
        let verb = words[0].to_owned();
        if words[1].starts_with('/') {
            let path = words[1].to_owned();
            return Attributes {
                verb,
                path,
                ..Attributes::default()
            };
        }
        let parts: Vec<&str> = words[1].split('/').collect();
        Attributes {
            verb,
            group: parts[0].trim_start_matches("core").to_owned(),
            resource: parts[1].to_owned(),
            subresource: parts.get(2).copied().unwrap_or_default().to_owned(),
            name: words.get(2).copied().unwrap_or_default().to_owned(),
            ..Attributes::default()
        }
    }

    #[test]
    fn rules_match_as_the_table_says() {
        let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]});
        let everything = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
        let logs = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]});
        let scales = json!({"verbs": ["get", "update"], "apiGroups": ["*"], "resources": ["*/scale"]});
        let named = json!({"verbs": ["get", "create"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a", "b"]});
        let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/exact"]});
        let every_url = json!({"verbs": ["*"], "nonResourceURLs": ["*"]});
        let table: [(&Value, &str, bool); 34] = [
            (&pods, "get core/pods", true),
            (&pods, "get core/pods x", true),
            (&pods, "delete core/pods x", false),
            (&pods, "get core/pods/log x", false),
            (&pods, "get core/pods/status x", false),
            (&pods, "get apps/pods", false),
            (&pods, "get core/secrets", false),
            (&pods, "get /api", false),
            (&everything, "escalate rbac.authorization.k8s.io/roles", true),
            (&everything, "get core/pods/exec x", true),
            (&everything, "get /healthz", false),
            (&logs, "get core/pods/log x", true),
            (&logs, "get core/pods x", false),
            (&logs, "get core/other/log x", false),
            (&logs, "get core/pods/xlog x", false),
            (&scales, "update apps/deployments/scale x", true),
            (&scales, "get core/replicationcontrollers/scale x", true),
            (&scales, "get apps/deployments x", false),
            (&scales, "get apps/deployments/status x", false),
            (&scales, "delete apps/deployments/scale x", false),
            (&named, "get core/configmaps a", true),
            (&named, "get core/configmaps b", true),
            (&named, "get core/configmaps c", false),
            // Whoever creates has no name yet, and whoever lists has none at all.
            (&named, "create core/configmaps", false),
            (&named, "list core/configmaps", false),
            (&urls, "get /api", true),
            (&urls, "get /api/v1", true),
            (&urls, "get /apis", false),
            (&urls, "get /exact", true),
            (&urls, "get /exact/more", false),
            (&urls, "post /api", false),
            (&urls, "get core/api", false),
            (&every_url, "post /anything", true),
            (&every_url, "get core/pods", false),
        ];
        for (rule_value, text, expected) in table {
            let rule = rule(rule_value.clone());
            assert_eq!(allows(&rule, &wanted(text)), expected, "{text} by {rule_value}");
        }
    }

    #[test]
    fn what_is_not_held_is_named() {
        let held = [
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "configmaps"]})),
            rule(json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]})),
            rule(
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
            ),
            rule(json!({"verbs": ["update"], "apiGroups": ["*"], "resources": ["*/scale"]})),
        ];
        let missing_of = |value: Value| describe(&missing(&held, &[rule(value)]));
        let table = [
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "configmaps"]}),
                "",
            ),
            (
                json!({"verbs": ["patch"], "apiGroups": ["apps"], "resources": ["deployments", "x/y"]}),
                "",
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/metrics/slis"]}),
                "",
            ),
            (
                json!({"verbs": ["update"], "apiGroups": ["x"], "resources": ["y/scale"]}),
                "",
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
                "",
            ),
            (
                json!({"verbs": ["get", "list", "watch", "delete"], "apiGroups": [""], "resources": ["pods"]}),
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete"]}"#,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]}),
                r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}"#,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}),
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
            ),
            (
                json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
                r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/metrics", "/metrics/x", "*"]}),
                "{NonResourceURLs:[\"*\"], Verbs:[\"get\"]}\n{NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}",
            ),
        ];
        for (value, expected) in table {
            assert_eq!(missing_of(value.clone()), expected, "{value}");
        }
    }
}
