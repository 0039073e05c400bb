"""An OpenAPI 3.1 document -> one readable HTML page. Pure.

It understands the parts of OpenAPI that Kvasir's own documents use: local references, JSON bodies, shared responses.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

Schema = dict[str, Any]

_METHODS = ("get", "post", "put", "patch", "delete")


def render(document: dict[str, Any], address: str = "/openapi.json", *, console: bool = False) -> str:
    """The page; `address` is where the document itself is, `console`: whether there is one to lead to."""
    info = document["info"]
    operations = [
        (method, path, item[method])
        for path, item in document["paths"].items()
        for method in _METHODS
        if method in item
    ]
    by_tag = [
        (tag, [each for each in operations if tag["name"] in each[2].get("tags", ())]) for tag in document["tags"]
    ]
    schemas = document["components"]["schemas"]
    body = [
        f"<header><p class=version>{escape(info['version'])} · OpenAPI {document['openapi']} · "
        f'<a href="{address}">openapi.json</a></p><h1>{escape(info["title"])}</h1>{_text(info["description"])}',
        f"{_access(document)}</header>",
        *(_section(tag, entries, document) for tag, entries in by_tag),
        "<section><h2 id=schemas>Schemas</h2>",
        *(_schema_article(name, schema) for name, schema in schemas.items()),
        "</section>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>' + escape(info["title"]) + "</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="/docs/icon.svg">'
        '<link rel="stylesheet" href="/docs/style.css"></head><body>'
        f"{_contents(by_tag, list(schemas), console)}<main>{''.join(body)}</main></body></html>"
    )


def _contents(by_tag: list[tuple[Schema, list[tuple[str, str, Schema]]]], schemas: list[str], console: bool) -> str:
    parts = ['<nav aria-label="Contents"><a class=home href="#top">Kvasir</a>']
    others = ' · <a href="/console/">Console</a>' if console else ""
    parts.append(f'<p><a href="/docs">Versori</a> · <a href="/docs/v1">/v1</a>{others}</p>')
    for tag, entries in by_tag:
        links = "".join(
            f'<li><a href="#{item["operationId"]}"><b class={method}>{method.upper()}</b> {item["operationId"]}</a>'
            for method, _, item in entries
        )
        parts.append(f"<h2>{escape(tag['name'])}</h2><ul>{links}</ul>")
    links = "".join(f'<li><a href="#{name}">{name}</a>' for name in schemas)
    parts.append(f"<h2><a href=#schemas>Schemas</a></h2><ul>{links}</ul></nav>")
    return "".join(parts)


def _access(document: dict[str, Any]) -> str:
    servers = "".join(
        f"<li><code>{escape(server['url'])}</code> {escape(server['description'])}" for server in document["servers"]
    )
    schemes = "".join(
        f"<li><b>{escape(name)}</b> {_inline(scheme['description'])}"
        for name, scheme in document["components"]["securitySchemes"].items()
    )
    return f"<h2>Where</h2><ul>{servers}</ul><h2>Who</h2><p>One of:</p><ul>{schemes}</ul>"


# -- operations -------------------------------------------------------------------------------------------


def _section(tag: Schema, entries: list[tuple[str, str, Schema]], document: dict[str, Any]) -> str:
    articles = "".join(_operation(method, path, operation, document) for method, path, operation in entries)
    return f"<section><h2>{escape(tag['name'])}</h2><p>{escape(tag['description'])}</p>{articles}</section>"


def _operation(method: str, path: str, operation: Schema, document: dict[str, Any]) -> str:
    name = operation["operationId"]
    parts = [
        f'<article id="{name}"><h3><a href="#{name}">{escape(operation["summary"])}</a> <small>{name}</small></h3>',
        f"<p class=route><b class={method}>{method.upper()}</b> <code>{_route(path)}</code></p>",
        _text(operation["description"]),
    ]
    for where in ("path", "query", "header"):
        named = [item for item in operation["parameters"] if item["in"] == where]
        if named:
            parts.append(f"<h4>{where.capitalize()}</h4><dl>{''.join(map(_parameter, named))}</dl>")
    if body := operation.get("requestBody"):
        parts.append(f"<h4>Body{_required(body['required'])}</h4>{_content(body)}")
    for status, response in operation["responses"].items():
        parts.append(_response(status, _resolve(response, document)))
    return "".join(parts) + "</article>"


def _parameter(item: Schema) -> str:
    return (
        f"<dt><code>{escape(item['name'])}</code> <i>{_type(item['schema'])}</i>{_required(item['required'])}"
        f"<dd>{_inline(item['description'])}"
    )


def _response(status: str, response: Schema) -> str:
    opened = " open" if status == "200" else ""
    kind = "good" if status < "400" else "bad"
    headers = "".join(
        f"<dt><code>{escape(name)}</code><dd>{_inline(header['description'])}"
        for name, header in response.get("headers", {}).items()
    )
    return (
        f"<details class={kind}{opened}><summary><b>{status}</b> {_inline(response['description'])}</summary>"
        f"{f'<dl>{headers}</dl>' if headers else ''}{_content(response)}</details>"
    )


def _content(holder: Schema) -> str:
    if not holder.get("content"):
        return "<p>no body</p>"
    (media,) = holder["content"].values()
    if isinstance(media["example"], str):
        return f"<pre><code>{escape(media['example'])}</code></pre>"
    example = json.dumps(media["example"], indent=2, ensure_ascii=False)
    # Keys are easier to read on one line.
    example = re.sub(r'\[\s+("[^\[\]{}]*?")\s+\]', lambda found: f"[{' '.join(found[1].split())}]", example)
    return f"<p><i>{_type(media['schema'])}</i></p><pre><code>{escape(example)}</code></pre>"


def _resolve(holder: Schema, document: dict[str, Any]) -> Schema:
    found: Any = document if "$ref" in holder else holder
    for step in holder.get("$ref", "#").split("/")[1:]:
        found = found[step]
    return dict(found)


# -- schemas ----------------------------------------------------------------------------------------------


def _schema_article(name: str, schema: Schema) -> str:
    description = f"<p>{_inline(schema['description'])}</p>" if "description" in schema else ""
    rows = "".join(_field(schema, field, inner) for field, inner in schema.get("properties", {}).items())
    shape = f"<dl>{rows}</dl>" if rows else f"<p><i>{_type(schema)}</i></p>"
    return f'<article id="{name}" class=schema><h3><a href="#{name}">{name}</a></h3>{description}{shape}</article>'


def _field(holder: Schema, name: str, schema: Schema) -> str:
    inner = schema.get("properties") or schema.get("items", {}).get("properties") or {}
    rows = "".join(_field(schema.get("items", schema), field, innermost) for field, innermost in inner.items())
    return (
        f"<dt><code>{escape(name)}</code> <i>{_type(schema)}</i>{_required(name in holder.get('required', ()))}"
        f"<dd>{_inline(schema.get('description', ''))}{f'<dl>{rows}</dl>' if rows else ''}"
    )


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>{_bounds(schema)}'
    if "anyOf" in schema:
        return " or ".join(
            _type(item) if "description" not in item else f"anything ({_inline(item['description'])})"
            for item in schema["anyOf"]
        )
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}{_bounds(schema)}"
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    kind = schema.get("type", "any JSON")
    return f"{kind}{' ' + schema['format'] if 'format' in schema else ''}{_bounds(schema)}"


_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "default": "default {}",
}


def _bounds(schema: Schema) -> str:
    bounds = [text.format(json.dumps(schema[name])) for name, text in _BOUNDS.items() if name in schema]
    return f", {', '.join(bounds)}" if bounds else ""


def _required(required: bool) -> str:
    return " <em>required</em>" if required else ""


# -- text -------------------------------------------------------------------------------------------------


def _text(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n"))


def _inline(text: str) -> str:
    """Escaped text with markup for `code` and **strong**."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", marked)


def _route(path: str) -> str:
    return re.sub(r"(\{\w+\})", r"<var>\1</var>", escape(path))
