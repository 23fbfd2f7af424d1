//! Shapes that many kinds have: what they share, written once.

/// The `prepare_*` steps of a kind whose `status` belongs to controllers and whose generation counts changes of its
/// `spec`.
macro_rules! status_apart {
    () => {
        fn prepare_for_create(new: &mut Self::Object) {
            new.status = None;
            new.metadata.generation = Some(1);
        }

        fn prepare_for_update(new: &mut Self::Object, old: &Self::Object) {
            new.status.clone_from(&old.status);
            let changed = !$crate::kinds::semantic::same(&new.spec, &old.spec);
            $crate::kinds::semantic::bump_generation(&mut new.metadata, &old.metadata, changed);
        }

        fn prepare_for_status_update(new: &mut Self::Object, old: &Self::Object) {
            new.spec.clone_from(&old.spec);
            new.metadata.generation = old.metadata.generation;
        }
    };
}

/// The `prepare_*` steps of a kind whose `status` belongs to controllers and which has no generation.
macro_rules! status_apart_uncounted {
    () => {
        fn prepare_for_create(new: &mut Self::Object) {
            new.status = None;
        }

        fn prepare_for_update(new: &mut Self::Object, old: &Self::Object) {
            new.status.clone_from(&old.status);
        }

        fn prepare_for_status_update(new: &mut Self::Object, old: &Self::Object) {
            new.spec.clone_from(&old.spec);
        }
    };
}

/// The generation of a kind without status: it counts changes of the `spec`.
macro_rules! counted {
    () => {
        fn prepare_for_create(new: &mut Self::Object) {
            new.metadata.generation = Some(1);
        }

        fn prepare_for_update(new: &mut Self::Object, old: &Self::Object) {
            let changed = !$crate::kinds::semantic::same(&new.spec, &old.spec);
            $crate::kinds::semantic::bump_generation(&mut new.metadata, &old.metadata, changed);
        }
    };
}

/// A kind of which every well-typed object is taken.
macro_rules! unchecked {
    () => {
        fn validate(_object: &Self::Object) -> orch_core::field::ErrorList {
            orch_core::field::ErrorList::default()
        }
    };
}

/// A table: its columns, and the cells of one object. The object's name comes first and its age where the `AGE` column
/// stands; the list gives the cells between.
macro_rules! table {
    ([$($column:expr),* $(,)?], |$object:ident, $now:ident| $cells:expr) => {
        fn columns() -> &'static [$crate::strategy::Column] {
            static COLUMNS: &[$crate::strategy::Column] = &[$($column),*];
            COLUMNS
        }

        fn cells($object: &Self::Object, $now: jiff::Timestamp) -> Vec<serde_json::Value> {
            $cells
        }
    };
}

pub(super) use {counted, status_apart, status_apart_uncounted, table, unchecked};
