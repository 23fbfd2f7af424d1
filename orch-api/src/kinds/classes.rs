//! Priority classes and runtime classes.

use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use orch_core::field::ErrorList;

use super::check::{Check, Path};
use super::format;
use super::stored::table;
use super::table::{self as cell, AGE, NAME, number, text_column};
use super::text::{default_text, text};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// Above this, priorities are the system's own.
const HIGHEST: i32 = 1_000_000_000;

/// The rules of priority classes.
pub(super) struct PriorityClasses;

impl Kind for PriorityClasses {
    type Object = PriorityClass;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses").short(["pc"])
    }

    fn default(class: &mut PriorityClass) {
        default_text(&mut class.preemption_policy, "PreemptLowerPriority");
    }

    fn prepare_for_create(class: &mut PriorityClass) {
        class.metadata.generation = Some(1);
    }

    fn validate(class: &PriorityClass) -> ErrorList {
        Check::run(|check| {
            let name = text(&class.metadata.name);
            let value = class.value.unwrap_or(0);
            if name.starts_with("system-") {
                if let Some(why) = not_a_system_class(name, value) {
                    let why = format!(
                        "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                    );
                    check.forbidden(&Path::new("metadata").child("name"), why);
                }
            } else if value > HIGHEST {
                let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
                check.forbidden(&Path::new("value"), why);
            }
            let policies = ["Never", "PreemptLowerPriority"];
            check.one_of(
                &Path::new("preemptionPolicy"),
                text(&class.preemption_policy),
                &policies,
            );
        })
    }

    fn validate_update(new: &PriorityClass, old: &PriorityClass) -> ErrorList {
        Check::run(|check| {
            if new.value.unwrap_or(0) != old.value.unwrap_or(0) {
                check.forbidden(&Path::new("value"), "may not be changed in an update.");
            }
            check.immutable(
                &Path::new("preemptionPolicy"),
                &new.preemption_policy,
                &old.preemption_policy,
            );
        })
    }

    table!(
        [
            NAME,
            number("Value", "The priority."),
            Column::new(
                "Global-Default",
                "boolean",
                "",
                "Whether pods without a class get it."
            ),
            AGE,
            text_column("PreemptionPolicy", "Whether pods of the class push others out."),
        ],
        |class, now| {
            vec![
                cell::name(&class.metadata),
                class.value.unwrap_or(0).into(),
                class.global_default.unwrap_or(false).into(),
                cell::age(&class.metadata, now),
                text(&class.preemption_policy).into(),
            ]
        }
    );
}

/// Why a class whose name is kept for the system is none of the system's own.
fn not_a_system_class(name: &str, value: i32) -> Option<String> {
    const OWN: [(&str, i32); 2] = [
        ("system-node-critical", 2_000_001_000),
        ("system-cluster-critical", 2_000_000_000),
    ];
    match OWN.iter().find(|(own, _)| *own == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, own)) if *own != value => Some(format!("value of {name} PriorityClass must be {own}")),
        Some(_) => None,
    }
}

/// The rules of runtime classes.
pub(super) struct RuntimeClasses;

impl Kind for RuntimeClasses {
    type Object = RuntimeClass;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
    }

    fn validate(class: &RuntimeClass) -> ErrorList {
        Check::run(|check| {
            let path = Path::new("handler");
            check.faults(&path, &class.handler, format::dns1123_label(&class.handler));
        })
    }

    fn validate_update(new: &RuntimeClass, old: &RuntimeClass) -> ErrorList {
        Check::run(|check| check.immutable(&Path::new("handler"), &new.handler, &old.handler))
    }

    table!(
        [
            NAME,
            text_column("Handler", "The name of the runtime on the nodes."),
            AGE
        ],
        |class, now| {
            vec![
                cell::name(&class.metadata),
                class.handler.clone().into(),
                cell::age(&class.metadata, now),
            ]
        }
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_values_of_the_systems_classes_are_kept() {
        for (name, value, errors) in [
            ("mine", 1, "[]".to_owned()),
            (
                "mine",
                HIGHEST + 1,
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000".to_owned(),
            ),
            ("system-node-critical", 2_000_001_000, "[]".to_owned()),
            (
                "system-mine",
                1,
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use \
                 only. error: system-mine is not a known system priority class"
                    .to_owned(),
            ),
        ] {
            let mut class: PriorityClass =
                serde_json::from_value(json!({"metadata": {"name": name}, "value": value})).unwrap();
            PriorityClasses::default(&mut class);
            assert_eq!(PriorityClasses::validate(&class).to_string(), errors);
        }
    }
}
