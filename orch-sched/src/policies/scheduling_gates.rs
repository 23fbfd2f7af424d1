use crate::event::EventSet;
use crate::object::PodInfo;
use crate::policy::{Rejection, SchedulerPolicy};

/// Holds pods back while `spec.schedulingGates` is not empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedulingGates;

impl SchedulerPolicy for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    /// The pod's own update opens the gate; no other event does.
    fn events(&self) -> EventSet {
        EventSet::NONE
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        if pod.gates.is_empty() {
            return Ok(());
        }
        Err(Rejection::unresolvable(format!(
            "waiting for scheduling gates: [{}]",
            pod.gates.join(" ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::pod;

    #[test]
    fn gates_are_named_in_the_reason() {
        assert_eq!(SchedulingGates.pre_enqueue(&pod("p").build()), Ok(()));
        let gated = SchedulingGates.pre_enqueue(&pod("p").gate("a/b").gate("c").build());
        assert_eq!(
            gated.unwrap_err().to_string(),
            "waiting for scheduling gates: [a/b c]"
        );
    }
}
