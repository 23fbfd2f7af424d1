use crate::event::EventSet;
use crate::policy::{QueueSort, SchedulerPolicy};
use crate::queue::QueuedPod;
use std::cmp::Ordering;

/// Gives pods of higher priority their turn first, and among equals the one that waits longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrioritySort;

impl SchedulerPolicy for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }

    fn events(&self) -> EventSet {
        EventSet::NONE
    }

    fn queue_sort(&self) -> Option<&dyn QueueSort> {
        Some(self)
    }
}

impl QueueSort for PrioritySort {
    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        b.pod.priority.cmp(&a.pod.priority).then_with(|| a.by_arrival(b))
    }
}
