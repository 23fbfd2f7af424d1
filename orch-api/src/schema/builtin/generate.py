#!/usr/bin/env python3
"""Writes the tables of this folder from an OpenAPI v2 document of Kubernetes.

    kubectl get --raw /openapi/v2 > swagger.json && ./generate.py swagger.json 1.37

Only facts are taken over: names of types and fields, their shapes, which fields are required, and the merge rules
(`x-kubernetes-list-type` and its kin). Published copies of the definitions alone ("$defs") are read as well.
"""
import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
DOCUMENT = json.load(open(sys.argv[1]))
RELEASE = sys.argv[2]
DEFINITIONS = DOCUMENT.get("definitions") or DOCUMENT["$defs"]

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
SCALARS = {
    META + "Time": "TIME",
    META + "MicroTime": "MICRO_TIME",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "QUANTITY",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "INT_OR_STRING",
}
# Types whose content has no schema, and which are compared whole.
OPAQUE = {
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
}
# Defaults of key fields, which published copies of the document leave out.
DEFAULTS = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.LocalObjectReference", "name"): "",
}
# Definitions which no kind refers to.
UNUSED = {META + "Patch", "io.k8s.apimachinery.pkg.version.Info"}
PREFIXES = [
    ("io.k8s.api.", ""),
    ("io.k8s.apimachinery.pkg.apis.", ""),
    ("io.k8s.apimachinery.pkg.", "machinery_"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.", ""),
    ("io.k8s.kube-aggregator.pkg.apis.", ""),
]


def snake(name):
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)


def place(definition):
    """The module and the static of a definition."""
    for prefix, replacement in PREFIXES:
        if definition.startswith(prefix):
            *package, name = (replacement + definition[len(prefix):]).split(".")
            return "_".join(package), snake(name).upper()
    raise SystemExit(f"no place for {definition}")


def kind_of(schema):
    """The type of a schema without `null`."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next(k for k in kind if k != "null")
    return kind


def quoted(text):
    return json.dumps(text)


def reference(definition, module, schema):
    if definition in SCALARS:
        return SCALARS[definition]
    target, static = place(definition)
    path = static if target == module else f"super::{target}::{static}"
    relation = schema.get("x-kubernetes-map-type")
    if relation is not None and relation != DEFINITIONS[definition].get("x-kubernetes-map-type", "granular"):
        return f"{path.rsplit('::', 1)[0] + '::' if '::' in path else ''}{static}_{relation.upper()}"
    return path


def overridden():
    """Definitions that some field uses with another map type than their own."""
    found = set()
    for schema in DEFINITIONS.values():
        for field in schema.get("properties", {}).values():
            target = field.get("$ref", "").rsplit("/", 1)[-1]
            relation = field.get("x-kubernetes-map-type")
            if target and relation and relation != DEFINITIONS[target].get("x-kubernetes-map-type", "granular"):
                found.add((target, relation))
    return found


def expression(schema, module):
    """The Rust expression of an inline schema."""
    if "$ref" in schema:
        return reference(schema["$ref"].rsplit("/", 1)[-1], module, schema)
    if schema.get("allOf"):
        return expression({**schema["allOf"][0], **{k: v for k, v in schema.items() if k != "allOf"}}, module)
    kind = kind_of(schema)
    if kind == "array":
        relation = schema.get("x-kubernetes-list-type", "atomic")
        items = expression(schema["items"], module)
        if relation == "map":
            keys = ", ".join(quoted(k) for k in schema["x-kubernetes-list-map-keys"])
            return f"list!(map [{keys}] {items})"
        return f"list!({relation} {items})"
    if kind == "object":
        if "additionalProperties" not in schema:
            return "ANY"
        relation = schema.get("x-kubernetes-map-type", "granular")
        return f"map!({relation} {expression(schema['additionalProperties'], module)})"
    return {
        ("string", None): "STRING",
        ("string", "byte"): "BYTES",
        ("string", "date-time"): "TIME",
        ("integer", "int32"): "INT32",
        ("integer", "int64"): "INT64",
        ("number", "double"): "DOUBLE",
        ("boolean", None): "BOOLEAN",
    }[kind, schema.get("format")]


def default_of(definition, name, schema):
    value = DEFAULTS.get((definition, name), schema.get("default"))
    if isinstance(value, str):
        return f", default {quoted(value)}"
    return ""


def field(definition, name, schema, required, module):
    parts = f"field!({quoted(name)}, {expression(schema, module)}"
    if required:
        parts += ", required"
    parts += default_of(definition, name, schema)
    strategy = schema.get("x-kubernetes-patch-strategy", "")
    key = schema.get("x-kubernetes-patch-merge-key")
    if strategy:
        parts += ", " + {"merge": "merge", "retainKeys": "retain_keys", "merge,retainKeys": "merge_retain_keys",
                         "replace": "replace"}[strategy]
        if key:
            parts += f" {quoted(key)}"
    return parts + "),"


def definition_lines(definition, schema, module):
    _, static = place(definition)
    if definition in OPAQUE:
        return [f"any!({static}, {quoted(definition)}, atomic);"]
    if "properties" not in schema:
        return [f"any!({static}, {quoted(definition)}, granular);"]
    relation = schema.get("x-kubernetes-map-type", "granular")
    required = set(schema.get("required", []))
    fields = [field(definition, name, schema["properties"][name], name in required, module)
              for name in sorted(schema["properties"], key=lambda n: n.encode())]
    lines = [f"structure!({static}, {quoted(definition)}, {relation}, ["] + ["    " + f for f in fields] + ["]);"]
    for target, other in sorted(overridden()):
        if target == definition:
            lines += [f"structure_as!({static}_{other.upper()}, {static}, {other});"]
    return lines


def write(module, lines):
    text = "\n".join(lines)
    names = [n for n in ["ANY", "STRING", "BYTES", "TIME", "MICRO_TIME", "INT32", "INT64", "DOUBLE", "BOOLEAN",
                         "QUANTITY", "INT_OR_STRING"] if re.search(rf"(?<!::)\b{n}\b", text)]
    head = [f"// Generated by generate.py from Kubernetes {RELEASE}. Do not edit."]
    if names:
        head.append(f"use super::{{{', '.join(names)}}};")
    (HERE / f"{module}.rs").write_text("\n".join(head + [""]) + text + "\n")


def main():
    modules, roots = {}, []
    for definition in sorted(DEFINITIONS):
        if definition in SCALARS or definition in UNUSED:
            continue
        module, static = place(definition)
        modules.setdefault(module, []).extend(definition_lines(definition, DEFINITIONS[definition], module))
        for gvk in DEFINITIONS[definition].get("x-kubernetes-group-version-kind", []):
            if gvk["kind"] not in ("DeleteOptions", "WatchEvent") or gvk["group"] == "":
                roots.append((gvk["group"], gvk["version"], gvk["kind"], module, static))
    for old in HERE.glob("*.rs"):
        if old.name != "mod.rs":
            old.unlink()
    for module, lines in modules.items():
        write(module, lines)
    index = [f"// Generated by generate.py from Kubernetes {RELEASE}. Do not edit.", "use super::super::Type;", "",
             "/// Root types by group, version and kind, sorted.",
             "pub(crate) static ROOTS: &[(&str, &str, &str, &Type)] = &["]
    for group, version, kind, module, static in sorted(set(roots)):
        index.append(f"    ({quoted(group)}, {quoted(version)}, {quoted(kind)}, &super::{module}::{static}),")
    (HERE / "index.rs").write_text("\n".join(index + ["];", ""]))
    print("\n".join(f"mod {m};" for m in sorted(modules)))


main()
