#!/usr/bin/env python3
"""Writes messages.txt, the wire layout of the built-in kinds' protobuf messages.

    make_table.py K8S_PB_SOURCES K8S_OPENAPI_SOURCES > messages.txt

Tags and types come from the sources of the crate k8s-pb (folder `src`), the JSON names from those of k8s-openapi (folder
`src/v1_NN`). A line a message: `GROUP/VERSION.Message: TAG NAME TYPE; ...`. TYPE is s(tring), b(ytes), i(nteger), t (truth value),
d(ouble) or the name of a message; `*TYPE` is a list, `%TYPE` a map from strings. NAME `-` is a message whose fields stand in
JSON among those of the message that holds it.
"""

import pathlib
import re
import sys

SCALARS = {"string": "s", "bytes": "b", "int32": "i", "int64": "i", "bool": "t", "double": "d"}


def plain(name):
    return name.replace("_", "").replace("r#", "").lower()


def camel(name):
    first, *rest = name.replace("r#", "").split("_")
    return first + "".join(word.capitalize() for word in rest)


def json_names(root):
    """(group/version, message) -> {plain name: JSON name}"""
    names = {}
    for path in root.rglob("*.rs"):
        text = path.read_text()
        struct = re.search(r"pub struct (\w+)", text)
        if not struct:
            continue
        place = "/".join(path.relative_to(root).parts[:-1])
        keys = re.findall(r'"([^"]+)" => Field::Key_(\w+)', text)
        names[(short(place.split("/")), struct[1].lower())] = {plain(key): json for json, key in keys}
    return names


def short(parts):
    """api/core/v1 and apimachinery/pkg/apis/meta/v1 become core/v1 and meta/v1"""
    return "/".join(parts[-2:]) if re.fullmatch(r"v\d\w*", parts[-1]) else parts[-1]


def type_name(path, module):
    parts = [part for part in path.strip().strip(",").split("::") if part]
    where = list(module)
    while parts[0] == "super":
        where.pop()
        parts.pop(0)
    *inner, name = parts
    return f"{short(where + inner)}.{name}"


def fields(body, module, json):
    pattern = re.compile(r"#\[prost\(([^\]]*)\)\]\s*pub (\S+):\s*(.*?),?(?=\n    (?:///|#\[)|\Z)", re.S)
    for attribute, name, rust in pattern.findall(body):
        tag = re.search(r'tag = "(\d+)"', attribute)[1]
        kind = re.split(r"[ ,]", attribute)[0]
        prefix = "*" if "repeated" in attribute else ""
        if "btree_map" in attribute or "hash_map" in attribute:
            prefix = "%"
            kind = re.search(r'map = "\w+, (\w+)"', attribute)[1]
            inner = re.split(r",\s*", rust.strip().rstrip(">").strip().rstrip(","), maxsplit=1)[1].rstrip(",")
        else:
            found = re.search(r"(?:Option|Vec|Box)<\s*(?:::prost::alloc::boxed::Box<)?\s*(.*?),?\s*>+$", rust.strip(), re.S)
            inner = found[1] if found else rust
        if kind == "message":
            inner = re.sub(r"\s|>", "", inner)
            kind = type_name(inner, module)
        else:
            kind = SCALARS[kind]
        known = json.get(plain(name)) if json is not None else None
        if known is None and json is not None and "." in kind and not prefix:
            known = "-"
        yield f"{tag} {known or camel(name)} {prefix}{kind}"


def main():
    pb, openapi = map(pathlib.Path, sys.argv[1:3])
    names = json_names(openapi)
    lines = []
    for path in pb.rglob("mod.rs"):
        module = path.relative_to(pb).parts[:-1]
        if module[:1] not in (("api",), ("apimachinery",)) or "testapigroup" in module:
            continue
        if re.fullmatch(r"v\d+(alpha|beta)\d+", module[-1]):
            continue
        text = path.read_text()
        for name, body in re.findall(r"pub struct (\w+) \{\n(.*?)\n\}", text, re.S):
            place = short(module)
            listed = "; ".join(fields(body, module, names.get((place, name.lower()))))
            lines.append(f"{place}.{name}: {listed}")
    print("\n".join(sorted(lines)))


main()
