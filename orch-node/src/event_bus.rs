//! Container events to any number of listeners, each with a queue of its own, so that none is lost.

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::runtime::{ContainerEvent, ContainerEventType, ContainerId};

#[derive(Debug, Default)]
pub(crate) struct EventBus {
    listeners: Mutex<Vec<mpsc::UnboundedSender<ContainerEvent>>>,
}

impl EventBus {
    pub(crate) fn subscribe(&self) -> mpsc::UnboundedReceiver<ContainerEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.lock().push(sender);
        receiver
    }

    pub(crate) fn send(&self, container: &ContainerId, pod_uid: &str, event_type: ContainerEventType) {
        let event = ContainerEvent {
            container_id: container.clone(),
            pod_uid: pod_uid.to_owned(),
            event_type,
        };
        self.listeners
            .lock()
            .retain(|listener| listener.send(event.clone()).is_ok());
    }
}
