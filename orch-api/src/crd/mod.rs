//! Custom resource definitions: the kind itself, and the resources that come of it.
//!
//! A definition is an object like any other. One task of the server ([`controller`]) follows the definitions, gives
//! each its status, and offers the resources of those that are established: a new set of resources is made beside the
//! old one and swapped in, so that the next request sees it. A write to a definition is answered when that has happened.
//!
//! Each served version of a definition is a [`strategy::CustomStrategy`], made of its compiled [`schema`]; from there on
//! its objects take the way of all objects.

mod columns;
mod conditions;
mod controller;
mod json_path;
mod kind;
mod publish;
mod schema;
mod strategy;
mod validation;
mod versions;

pub(crate) use self::controller::{Definitions, start};
pub(crate) use self::kind::CustomResourceDefinitions;
pub(crate) use self::publish::Custom;
