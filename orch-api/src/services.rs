//! Cluster IPs and node ports of services.

use orch_core::status::ApiError;

use crate::object::Object;
use crate::registry::Resource;

/// What a write has taken for a service. Given back when dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct Allocation;

impl Allocation {
    pub(crate) fn none() -> Self {
        Self
    }

    pub(crate) fn keep(self) {}
}

#[derive(Debug, Default)]
pub(crate) struct Services;

impl Services {
    pub(crate) fn create(
        &self,
        _r: &Resource,
        _o: &mut dyn Object,
        _dry: bool,
    ) -> Result<Allocation, ApiError> {
        Ok(Allocation)
    }

    pub(crate) fn carry_over(&self, _r: &Resource, _o: &mut dyn Object, _old: &dyn Object) {}

    pub(crate) fn update(
        &self,
        _r: &Resource,
        _o: &mut dyn Object,
        _old: &dyn Object,
        _dry: bool,
    ) -> Result<Allocation, ApiError> {
        Ok(Allocation)
    }

    pub(crate) fn release(&self, _r: &Resource, _o: &dyn Object) {}
}
