use std::cmp::Reverse;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orch_core::status::ApiError;
use serde::Deserialize;

use super::{Admission, Operation, Review};
use crate::object::Object;

/// Gives claims that name no storage class the default one.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultStorageClass;

/// Gives ingresses that name no class the default one.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultIngressClass;

#[derive(Deserialize)]
struct Class {
    metadata: ObjectMeta,
}

#[async_trait]
impl Admission for DefaultStorageClass {
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        if review.operation != Operation::Create || !review.is("", "persistentvolumeclaims") {
            return Ok(());
        }
        let claim = object.downcast_mut::<PersistentVolumeClaim>();
        // The annotation is how it was said before there was the field.
        let Some(claim) = claim.filter(|claim| {
            let names_one = claim
                .spec
                .as_ref()
                .is_some_and(|spec| spec.storage_class_name.is_some());
            !names_one && !has(&claim.metadata, "volume.beta.kubernetes.io/storage-class")
        }) else {
            return Ok(());
        };
        let marks = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        let class = default(review, "storage.k8s.io", "storageclasses", &marks).await?;
        if class.is_some() {
            claim.spec.get_or_insert_default().storage_class_name = class;
        }
        Ok(())
    }
}

#[async_trait]
impl Admission for DefaultIngressClass {
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        if review.operation != Operation::Create || !review.is("networking.k8s.io", "ingresses") {
            return Ok(());
        }
        let ingress = object.downcast_mut::<Ingress>();
        let Some(ingress) = ingress.filter(|ingress| {
            let names_one = ingress
                .spec
                .as_ref()
                .is_some_and(|spec| spec.ingress_class_name.is_some());
            !names_one && !has(&ingress.metadata, "kubernetes.io/ingress.class")
        }) else {
            return Ok(());
        };
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        let class = default(review, "networking.k8s.io", "ingressclasses", &marks).await?;
        if class.is_some() {
            ingress.spec.get_or_insert_default().ingress_class_name = class;
        }
        Ok(())
    }
}

fn has(metadata: &ObjectMeta, annotation: &str) -> bool {
    metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(annotation))
}

/// The class that is marked as the default: of several the newest, and of those the first by name.
async fn default(
    review: &Review<'_>,
    group: &str,
    plural: &str,
    marks: &[&str],
) -> Result<Option<String>, ApiError> {
    let classes: Vec<Class> = review.lookup.all(group, plural, "").await?;
    let is_default = |class: &Class| {
        let annotations = class.metadata.annotations.as_ref();
        let value = |mark: &&str| annotations.and_then(|all| all.get(*mark));
        marks.iter().filter_map(value).any(|value| value == "true")
    };
    let newest = classes.into_iter().filter(is_default).min_by_key(|class| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (Reverse(created), class.metadata.name.clone())
    });
    Ok(newest.and_then(|class| class.metadata.name))
}
