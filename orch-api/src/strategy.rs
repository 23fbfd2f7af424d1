//! The rules of a kind: [`Kind`] is what one file a kind implements, [`Strategy`] is how the write pipeline sees it.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use orch_core::field::ErrorList;
use serde_json::Value;

use crate::apply::{OneVersion, Versions};
use crate::conversion;
use crate::decode::{DecodeError, Decoded, decode_typed};
use crate::object::{Object, Typed};
use crate::resource::ResourceInfo;
use crate::schema::{self, Type};

/// Which names a kind takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    DnsSubdomain,
    /// RFC 1123 label: namespaces, services of late.
    DnsLabel,
    /// RFC 1035 label: services.
    Dns1035Label,
    /// Anything that fits into one path segment: RBAC kinds.
    PathSegment,
}

/// One column of a table as kubectl prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading, in mixed case.
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `boolean`, `date` …
    pub kind: Cow<'static, str>,
    /// OpenAPI format; `name` marks the column with the object's name.
    pub format: Cow<'static, str>,
    /// One sentence about it.
    pub description: Cow<'static, str>,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A column that is always shown.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: &'static str,
        format: &'static str,
        description: &'static str,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            kind: Cow::Borrowed(kind),
            format: Cow::Borrowed(format),
            description: Cow::Borrowed(description),
            priority: 0,
        }
    }

    /// The same column, shown only with `-o wide`.
    #[must_use]
    pub const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// What the `scale` subresource shows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleView {
    /// `spec.replicas`.
    pub spec_replicas: i32,
    /// `status.replicas`.
    pub status_replicas: i32,
    /// The label selector of its pods, as text.
    pub selector: Option<String>,
}

static DEFAULT_COLUMNS: [Column; 2] = [
    Column::new(
        "Name",
        "string",
        "name",
        "Name must be unique within a namespace. Is required when creating resources, although some resources may allow \
         a client to request the generation of an appropriate name automatically.",
    ),
    Column::new(
        "Created At",
        "date",
        "",
        "The time at which the server made the object.",
    ),
];

fn default_cells(object: &dyn Object) -> Vec<Value> {
    let created = object.metadata().creation_timestamp.as_ref();
    vec![
        Value::from(object.name()),
        created.map_or(Value::Null, |time| {
            Value::from(time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        }),
    ]
}

/// The rules of one built-in kind.
///
/// The pipeline calls, for every write: [`default`](Kind::default) on what the client sent (and on what is read for a
/// patch), then one of the `prepare_*`, then one of the `validate*`. None of them does I/O; none may assume that another
/// has run on the same value before, since stored objects come back through the same steps. Generic metadata (name,
/// uid, timestamps, generation's first value, managedFields, labels and annotations' syntax) is the pipeline's business.
pub trait Kind: Send + Sync + 'static {
    /// The Rust type of its objects.
    type Object: Typed;

    /// The facts of its resource.
    fn info() -> ResourceInfo;

    /// Sets the defaults of upstream's `SetDefaults_*`.
    fn default(_object: &mut Self::Object) {}

    /// Clears what a creator may not set (status) and sets what starts with the object.
    fn prepare_for_create(_object: &mut Self::Object) {}

    /// Keeps what an update of the main resource may not change (status), and raises `metadata.generation` when the
    /// desired state changed.
    fn prepare_for_update(_new: &mut Self::Object, _old: &Self::Object) {}

    /// Keeps everything that an update of `/status` may not change, the spec above all.
    fn prepare_for_status_update(_new: &mut Self::Object, _old: &Self::Object) {}

    /// What is wrong with a new object.
    fn validate(object: &Self::Object) -> ErrorList;

    /// What is wrong with an update; immutable fields are checked here.
    fn validate_update(new: &Self::Object, _old: &Self::Object) -> ErrorList {
        Self::validate(new)
    }

    /// What is wrong with an update of `/status`.
    fn validate_status_update(_new: &Self::Object, _old: &Self::Object) -> ErrorList {
        ErrorList::default()
    }

    /// Warnings for the client, on a create (`old` is `None`) or an update.
    fn warnings(_new: &Self::Object, _old: Option<&Self::Object>) -> Vec<String> {
        Vec::new()
    }

    /// The columns of its table.
    fn columns() -> &'static [Column] {
        &DEFAULT_COLUMNS
    }

    /// One row of its table, as many cells as there are columns.
    fn cells(object: &Self::Object, _now: Timestamp) -> Vec<Value> {
        default_cells(object)
    }

    /// What field selectors see beyond `metadata.name` and `metadata.namespace`. Always the same names, whatever the
    /// object holds; an absent value is an empty string.
    fn selectable_fields(_object: &Self::Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Which names it takes.
    fn name_rule() -> NameRule {
        NameRule::DnsSubdomain
    }

    /// The scale view, for kinds with a `scale` subresource.
    fn scale(_object: &Self::Object) -> Option<ScaleView> {
        None
    }

    /// Writes the replicas of a scale view back.
    fn set_replicas(_object: &mut Self::Object, _replicas: i32) {}

    /// How long a deletion waits for somebody to confirm it: `None` when the kind knows no graceful deletion, 0 when
    /// this object can go at once. `requested` is what the client asked for.
    fn grace_period(_object: &Self::Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether a PUT to a name that is not there creates the object.
    fn create_on_update() -> bool {
        false
    }

    /// Whether a PUT without a resourceVersion overwrites whatever is there.
    fn unconditional_update() -> bool {
        true
    }

    /// What a deletion does to an object before its finalizers are looked at.
    fn prepare_for_delete(_object: &mut Self::Object) {}

    /// How to get to the API versions in which the same objects are served too.
    fn versions() -> &'static dyn Versions {
        &OneVersion
    }

    /// The API version that is stored, one of [`versions`](Kind::versions), when it is not this one. Two resources of
    /// one storage path are then two views of the same objects.
    fn storage_version() -> Option<&'static str> {
        None
    }
}

/// The rules of a kind as the pipeline sees them: one for every [`Kind`], and one for kinds without rules of their own.
/// The methods mirror [`Kind`]'s and take objects which the same strategy decoded.
pub trait Strategy: Send + Sync + Debug {
    /// The facts of its resource.
    fn info(&self) -> &ResourceInfo;
    /// Reads an object from JSON text and tells which fields are unknown or doubled.
    ///
    /// # Errors
    /// When the text is no JSON or a field has the wrong type.
    fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError>;
    /// Sets defaults.
    fn default(&self, object: &mut dyn Object);
    /// See [`Kind::prepare_for_create`].
    fn prepare_for_create(&self, object: &mut dyn Object);
    /// See [`Kind::prepare_for_update`].
    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object);
    /// See [`Kind::prepare_for_status_update`].
    fn prepare_for_status_update(&self, new: &mut dyn Object, old: &dyn Object);
    /// See [`Kind::validate`].
    fn validate(&self, object: &dyn Object) -> ErrorList;
    /// See [`Kind::validate_update`].
    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList;
    /// See [`Kind::validate_status_update`].
    fn validate_status_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList;
    /// See [`Kind::warnings`].
    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;
    /// See [`Kind::columns`].
    fn columns(&self) -> &[Column];
    /// See [`Kind::cells`].
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value>;
    /// The names in [`selectable_fields`](Self::selectable_fields).
    fn field_names(&self) -> &[Cow<'static, str>];
    /// See [`Kind::selectable_fields`].
    fn selectable_fields(&self, object: &dyn Object) -> Vec<(Cow<'static, str>, String)>;
    /// See [`Kind::name_rule`].
    fn name_rule(&self) -> NameRule;
    /// See [`Kind::scale`].
    fn scale(&self, object: &dyn Object) -> Option<ScaleView>;
    /// See [`Kind::set_replicas`].
    fn set_replicas(&self, object: &mut dyn Object, replicas: i32);
    /// See [`Kind::grace_period`].
    fn grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64>;
    /// See [`Kind::create_on_update`].
    fn create_on_update(&self) -> bool;
    /// See [`Kind::unconditional_update`].
    fn unconditional_update(&self) -> bool;
    /// See [`Kind::versions`].
    fn versions(&self) -> &dyn Versions {
        &OneVersion
    }
    /// See [`Kind::storage_version`].
    fn storage_version(&self) -> Option<&str> {
        None
    }
    /// See [`Kind::prepare_for_delete`].
    fn prepare_for_delete(&self, _object: &mut dyn Object) {}
    /// The shape of its objects, with the rules by which apply and strategic merge patch merge them.
    fn schema(&self) -> &Type {
        let info = self.info();
        schema::root(&info.group, &info.version, &info.kind)
    }
    /// Whether a strategic merge patch can be computed, which needs merge rules that only built-in kinds have.
    fn merges_strategically(&self) -> bool {
        true
    }
    /// Stored bytes as this resource serves them, but for the resourceVersion.
    ///
    /// # Errors
    /// When the bytes are not an object of the kind in a version that is known.
    fn read_stored(&self, stored: &Bytes) -> Result<Bytes, DecodeError> {
        conversion::from_storage(self, stored)
    }
    /// Whether stored bytes are of another version than the one that is stored now: then even an update that changes
    /// nothing stores anew.
    fn is_stale(&self, _stored: &Bytes) -> bool {
        false
    }
    /// What clients are told with every answer, such as that the version is deprecated.
    fn notice(&self) -> Option<&str> {
        None
    }
}

/// The strategy of a [`Kind`].
#[must_use]
pub fn strategy<K: Kind>() -> Arc<dyn Strategy> {
    // The names do not depend on the object, so an empty one tells them.
    let field_names = decode_typed::<K::Object>(b"{}").map_or_else(
        |_| Vec::new(),
        |(empty, _, _)| {
            K::selectable_fields(&empty)
                .into_iter()
                .map(|(name, _)| Cow::Borrowed(name))
                .collect()
        },
    );
    Arc::new(KindStrategy::<K> {
        info: K::info(),
        field_names,
        kind: PhantomData,
    })
}

struct KindStrategy<K> {
    info: ResourceInfo,
    field_names: Vec<Cow<'static, str>>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Debug for KindStrategy<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KindStrategy")
            .field(&self.info.qualified_resource())
            .finish()
    }
}

fn cast<T: 'static>(object: &dyn Object) -> &T {
    object
        .downcast_ref()
        .expect("a strategy gets only objects that it decoded itself")
}

fn cast_mut<T: 'static>(object: &mut dyn Object) -> &mut T {
    object
        .downcast_mut()
        .expect("a strategy gets only objects that it decoded itself")
}

impl<K: Kind> Strategy for KindStrategy<K> {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        let (object, unknown, duplicates) = decode_typed::<K::Object>(json)?;
        Ok(Decoded {
            object: Box::new(object),
            unknown,
            duplicates,
        })
    }

    fn default(&self, object: &mut dyn Object) {
        K::default(cast_mut(object));
    }

    fn prepare_for_create(&self, object: &mut dyn Object) {
        K::prepare_for_create(cast_mut(object));
    }

    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object) {
        K::prepare_for_update(cast_mut(new), cast(old));
    }

    fn prepare_for_status_update(&self, new: &mut dyn Object, old: &dyn Object) {
        K::prepare_for_status_update(cast_mut(new), cast(old));
    }

    fn validate(&self, object: &dyn Object) -> ErrorList {
        K::validate(cast(object))
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        K::validate_update(cast(new), cast(old))
    }

    fn validate_status_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        K::validate_status_update(cast(new), cast(old))
    }

    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        K::warnings(cast(new), old.map(cast))
    }

    fn columns(&self) -> &[Column] {
        K::columns()
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        K::cells(cast(object), now)
    }

    fn field_names(&self) -> &[Cow<'static, str>] {
        &self.field_names
    }

    fn selectable_fields(&self, object: &dyn Object) -> Vec<(Cow<'static, str>, String)> {
        let fields = K::selectable_fields(cast(object)).into_iter();
        fields.map(|(name, value)| (Cow::Borrowed(name), value)).collect()
    }

    fn name_rule(&self) -> NameRule {
        K::name_rule()
    }

    fn scale(&self, object: &dyn Object) -> Option<ScaleView> {
        K::scale(cast(object))
    }

    fn set_replicas(&self, object: &mut dyn Object, replicas: i32) {
        K::set_replicas(cast_mut(object), replicas);
    }

    fn grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        K::grace_period(cast(object), requested)
    }

    fn create_on_update(&self) -> bool {
        K::create_on_update()
    }

    fn unconditional_update(&self) -> bool {
        K::unconditional_update()
    }

    fn versions(&self) -> &dyn Versions {
        K::versions()
    }

    fn storage_version(&self) -> Option<&str> {
        K::storage_version()
    }

    fn prepare_for_delete(&self, object: &mut dyn Object) {
        K::prepare_for_delete(cast_mut(object));
    }
}

/// The strategy of a kind without rules of its own: any object with valid metadata is kept as it came. The status is
/// separate from the rest where the resource has a `status` subresource.
#[must_use]
pub fn generic(info: ResourceInfo) -> Arc<dyn Strategy> {
    Arc::new(crate::generic::GenericStrategy::new(info))
}

pub(crate) fn generic_columns() -> &'static [Column] {
    &DEFAULT_COLUMNS
}

pub(crate) fn generic_cells(object: &dyn Object) -> Vec<Value> {
    default_cells(object)
}
