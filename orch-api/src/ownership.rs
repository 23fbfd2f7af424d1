//! Field ownership: keeping `metadata.managedFields` true on every write.

use orch_core::status::ApiError;

use crate::object::Object;
use crate::registry::write::Write;

pub(crate) fn after_write(
    _write: &Write<'_>,
    _object: &mut dyn Object,
    _old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    Ok(())
}

pub(crate) fn only_times_differ(_new: &dyn Object, _old: &dyn Object) -> bool {
    false
}
