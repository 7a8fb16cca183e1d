"""From a Jinja2 template and a handler's variables to text, or to a `MailResponse` that only has to be sent.

Called inside a handler, just before the relay. Two ways to write a template, and `respond` takes both: one that begins with header
lines and a blank line, or one that is only the body, with the headers given as keywords.

What a stranger wrote stays what it is. A variable's value is never looked at for template code, for `%(name)s` or for header lines: in
a header its line ends become spaces, and the blank line that ends the headers is the one in the template's source. In bodies, text is
left as it is, and templates named as HTML (`mail/confirm.html`) are escaped. This module knows nothing of routes, states or relays.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, overload

import jinja2

from lamson.errors import ViewError
from lamson.mail import MailRequest, MailResponse

__all__ = ["LOADER", "ViewError", "attach", "load", "render", "render_html", "respond"]


@lru_cache(maxsize=1000)  # Jinja2 asks at each rendering
def _is_html(name: str | None) -> bool:
    """By its name: `news.html`, `news.html.j2`."""
    return not {"html", "htm", "xhtml", "xml"}.isdisjoint((name or "").lower().split(".")[1:])


#: Where templates come from. An application sets it in its boot module, to a Jinja2 environment or to anything with `get_template(name)`.
LOADER: Any = jinja2.Environment(loader=jinja2.FileSystemLoader("app/templates"), undefined=jinja2.StrictUndefined, autoescape=_is_html)

#: All that some reader takes for the end of a line, and NUL. In a header each becomes a space.
_LINE_ENDS = re.compile("\r\n|[\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029\0]")
#: The blank line after a template's header block.
_BLANK_LINE = re.compile(r"^[ \t]*\n", re.MULTILINE)
#: A header line: RFC 5322 §2.2, printable ASCII but the colon, then a colon.
_HEADER = re.compile(r"([!-9;-~]+):[ \t]*(.*)")
#: What a header given as a keyword may hold.
_PLACE = re.compile(r"%\((\w+)\)s")


def load(name: str) -> Any:
    """The template of this name. Raises ViewError that names it and where it was looked for."""
    try:
        return _environment().get_template(name)
    except jinja2.TemplateError as error:
        raise _view_error(name, error) from error


def render(variables: Mapping[str, Any], template: str) -> str:
    """The text of the template of this name. Raises ViewError, also for a variable that it names and that is not among these."""
    try:
        return str(load(template).render(variables))
    except jinja2.TemplateError as error:
        raise _view_error(template, error) from error


def render_html(variables: Mapping[str, Any], template: str, finalize: Callable[[Any], Any] | None = None) -> str:
    """The same, but whatever the template's name is, its values are escaped as HTML; each after it went through `finalize`, if given, whose
    `Markup` is left as it is. Raises ViewError also when LOADER is no Jinja2 environment, which alone knows how to escape."""
    environment = _environment()
    if not isinstance(environment, jinja2.Environment):
        raise ViewError(f"The template {template} cannot be used for HTML, as view.LOADER is no Jinja2 environment.")
    try:
        return _for_html(environment, finalize).get_template(template).render(variables)
    except jinja2.TemplateError as error:
        raise _view_error(template, error) from error


@overload
def respond(variables: str, Body: Mapping[str, Any], Html: str | None = None, **headers: Any) -> MailResponse: ...  # template, variables


@overload
def respond(variables: Mapping[str, Any], Body: str | None = None, Html: str | None = None, **headers: Any) -> MailResponse: ...


def respond(variables: Any, Body: Any = None, Html: str | None = None, **headers: Any) -> MailResponse:
    """A message from templates.

    `respond("confirm.msg", locals())`: the template begins with header lines and a blank line; keywords win over its headers.
    `respond(locals(), "confirm.msg", From=..., To=..., Subject=..., Html="confirm.html")`: the templates are bodies. In keywords
    `%(name)s` is filled from the variables, once; one that a stranger wrote, because it also stands in `variables["message"]`, is left.
    Raises ViewError that names the template and what is wrong with it.
    """
    own_headers: dict[str, str] = {}
    body: str | None = None
    if isinstance(variables, str):
        template, variables = variables, _mapping(Body)
        own_headers, body = _render_parts(template, variables)
    elif Body is not None:
        body = render(_mapping(variables), Body)
    if body is None and Html is None:
        raise TypeError("respond() needs a template: respond('confirm.msg', locals()) or respond(locals(), 'confirm.msg', From=..., ...).")
    msg = MailResponse(Body=body, Html=None if Html is None else render(_mapping(variables), Html))
    msg.update({**own_headers, **_filled(headers, variables)})
    return msg


def attach(
    msg: MailResponse,
    variables: Mapping[str, Any],
    template: str,
    filename: str | None = None,
    content_type: str | None = None,
    disposition: str | None = None,
) -> None:
    """Attaches what the template of this name renders to. Without a content type the file's name decides, else the template's."""
    data = render(variables, template)
    guessed = mimetypes.guess_type(filename or template)[0] or "text/plain"
    msg.attach(filename=filename, content_type=content_type or guessed, data=data, disposition=disposition)


# -- templates with a header block


def _render_parts(name: str, variables: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Headers and body of a template that has both."""
    template = load(name)
    if not isinstance(template, jinja2.Template):
        raise ViewError(
            f"The template {name} cannot be split into headers and body, as view.LOADER is no Jinja2 environment; "
            f"use respond(variables, {name!r}, From=..., To=..., Subject=...)."
        )
    try:
        head, body = _split(template)
        return _headers(name, head.render(variables)), body.render(variables)
    except jinja2.TemplateError as error:
        raise _view_error(name, error) from error


@lru_cache(maxsize=1000)
def _split(template: jinja2.Template) -> tuple[jinja2.Template, jinja2.Template]:
    """The template's header block and its body, each compiled. Jinja2 gives another template when the file has changed."""
    environment, name = template.environment, template.name or ""
    assert environment.loader is not None, "a template with a name came from a loader"
    source, filename, _ = environment.loader.get_source(environment, name)
    source = source.replace("\r\n", "\n")
    blank = _BLANK_LINE.search(source)
    head, body = (source[: blank.start()], source[blank.end() :]) if blank else (source, "")
    return _compile(_for_headers(environment), head, name, filename), _compile(environment, body, name, filename)


def _compile(environment: jinja2.Environment, source: str, name: str, filename: str | None) -> jinja2.Template:
    """As `from_string` does, but with the name, which decides about escaping and stands in errors."""
    code = environment.compile(source, name, filename)
    return environment.template_class.from_code(environment, code, environment.make_globals(None))


def _headers(name: str, text: str) -> dict[str, str]:
    """The header lines of a rendered header block. Empty ones are left out, as `Cc: {{ cc }}` without a cc."""
    found: dict[str, list[str]] = {}  # in lower case -> name, value, and the folded rest
    last: list[str] = []
    for line in filter(str.strip, text.split("\n")):
        if line[0] in " \t" and last:  # RFC 5322 §2.2.3: folded
            last.append(line.strip())
            continue
        header = _HEADER.fullmatch(line)
        if header is None:
            raise ViewError(
                f"The template {name} must begin with header lines (From: ..., To: ..., Subject: ...) and a blank line, "
                f"but there stands {line[:60]!r}. If it is only a body: respond(variables, {name!r}, From=..., To=..., Subject=...)."
            )
        last = [header[1], header[2].strip()]
        if found.setdefault(header[1].lower(), last) is not last:
            raise ViewError(f"The template {name} gives the header {header[1]} twice; several addresses stand in one, after commas.")
    if not found:
        raise ViewError(f"The template {name} has no header block: it must begin with header lines (From: ..., To: ...) and a blank line.")
    return {header: value for header, *lines in found.values() if (value := " ".join(filter(None, lines)))}


# -- headers given as keywords


def _filled(headers: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords with their `%(name)s` filled; those that are None are left out."""
    foreign = _Foreign(variables.get("message"))
    return {name: _fill(name, value, variables, foreign) for name, value in headers.items() if value is not None}


def _fill(header: str, value: Any, variables: Mapping[str, Any], foreign: _Foreign) -> Any:
    """The value, line ends become spaces. What is filled in is not looked at again."""
    if isinstance(value, list | tuple | set | frozenset):
        return [_fill(header, each, variables, foreign) for each in value]

    def replacement(place: re.Match[str]) -> str:
        if place[0] in foreign:
            return place[0]
        if place[1] not in variables:
            raise ViewError(f"The header {header} names {place[0]}, but the variables have no {place[1]!r}.")
        return str(variables[place[1]])

    text = str(value)
    if "%(" in text:
        text = _PLACE.sub(replacement, text)
    return _in_one_line(text)


class _Foreign:
    """What stands in a received message, asked only when there is something to ask."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self._text: str | None = None

    def __contains__(self, place: str) -> bool:
        if self._text is None:
            self._text = _all_text(self._message).casefold() if isinstance(self._message, MailRequest) else ""
        return place.casefold() in self._text


def _all_text(message: MailRequest) -> str:
    """All of it that a handler may have copied into a header: the envelope, decoded headers, the names of files, the text and the HTML."""
    envelope = "\n".join([str(message.From), str(message.To), str(message.recipient), str(message.Peer)])
    raw = message.raw
    as_it_reads = _is_as_it_reads(raw)
    if as_it_reads and not message.headers.touched and (b"%" not in raw or b"%(" not in raw):
        return envelope  # no placeholder stands in the rest
    headers = [f"{name}: {value}" for name, value in message.items()]
    if as_it_reads:
        return "\n".join([envelope, *headers, raw.decode("ascii")])
    files = [part.filename or "" for part in (message.base, *message.walk())]
    text = "\n".join([envelope, *headers, *files, message.text, message.html or ""])
    return "\n".join([text, text.replace("\\", "")])  # a name in quotes is read without them (RFC 5322 §3.2.4)


#: A parameter in another charset or in pieces (RFC 2231).
_PARAMETER = re.compile(rb"\*\d*=")


def _is_as_it_reads(raw: bytes) -> bool:
    """Plain ASCII in which nothing can stand for something else, so that its octets are its text: no quoted pair, no encoded word, no such
    parameter, no encoding. A single octet is found many times quicker than two, so it is looked for first."""
    if not raw.isascii() or b"\\" in raw or (b"=" in raw and (b"=?" in raw or _PARAMETER.search(raw))):
        return False
    lowered = raw.lower()
    return not (b"encoding" in lowered or b"charset" in lowered or b"html" in lowered)


# -- Jinja2


class _Template(jinja2.Template):
    """A template without globals of its own, as nearly all are, takes its environment's as they are: Jinja2 would read them through a
    `ChainMap` at each rendering."""

    def new_context(
        self, vars: dict[str, Any] | None = None, shared: bool = False, locals: Mapping[str, Any] | None = None
    ) -> jinja2.runtime.Context:
        environment = self.environment
        known = environment.globals if getattr(self.globals, "maps", None) == [{}, environment.globals] else self.globals
        return jinja2.runtime.new_context(environment, self.name, self.blocks, vars, shared, known, locals)


def _environment() -> Any:
    """LOADER with our rules, or as it is when it is no Jinja2 environment."""
    if isinstance(LOADER, jinja2.Environment):
        return _with_our_rules(LOADER, LOADER.loader)
    return LOADER


@lru_cache(maxsize=20)
def _with_our_rules(environment: jinja2.Environment, loader: jinja2.BaseLoader | None) -> jinja2.Environment:
    """An application that chose nothing gets an error for an undefined variable, and HTML escaped where the name says HTML.

    `loader` is there so that an environment that is given another one is looked at anew.
    """
    undefined = jinja2.StrictUndefined if environment.undefined is jinja2.Undefined else environment.undefined
    autoescape = environment.autoescape if callable(environment.autoescape) else _is_html
    ours = environment.overlay(undefined=undefined, autoescape=autoescape)
    if environment.template_class is jinja2.Template:
        ours.template_class = _Template
    return ours


@lru_cache(maxsize=20)
def _for_headers(environment: jinja2.Environment) -> jinja2.Environment:
    """The same environment, but no value that it puts out can begin a line."""
    return environment.overlay(finalize=_in_one_line, autoescape=False)


@lru_cache(maxsize=20)
def _for_html(environment: jinja2.Environment, finalize: Callable[[Any], Any] | None) -> jinja2.Environment:
    """The same environment, where every value is escaped as HTML unless it is `Markup`."""
    return environment.overlay(finalize=finalize, autoescape=True)


def _in_one_line(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() else _LINE_ENDS.sub(" ", text)  # no line end is printable


def _mapping(variables: Any) -> Mapping[str, Any]:
    if not isinstance(variables, Mapping):
        raise TypeError(f"respond() needs the variables as a mapping, as locals() gives, not {type(variables).__name__}.")
    return variables


def _view_error(name: str, error: jinja2.TemplateError) -> ViewError:
    if isinstance(error, jinja2.TemplatesNotFound):
        return ViewError(f"The template {name} includes one of {', '.join(map(str, error.templates))}; none is {_where()}.")
    if isinstance(error, jinja2.TemplateNotFound):
        return ViewError(f"There is no template {error.name} {_where()}" + ("." if error.name == name else f"; {name} needs it."))
    if isinstance(error, jinja2.TemplateSyntaxError):
        return ViewError(f"The template {error.name or name}, line {error.lineno}: {error.message}")
    if isinstance(error, jinja2.UndefinedError):
        return ViewError(f"The template {name} cannot be rendered: {error.message}; the handler must give it.")
    return ViewError(f"The template {name} cannot be rendered: {error}")


def _where() -> str:
    return f"in {_search_path(getattr(LOADER, 'loader', None))}"


def _search_path(loader: Any) -> str:
    """Where a loader looks, in words."""
    if isinstance(loader, jinja2.FileSystemLoader):
        return ", ".join(map(os.path.abspath, loader.searchpath))
    if isinstance(loader, jinja2.PackageLoader):
        return f"{loader.package_path} of the package {loader.package_name}"
    if isinstance(loader, jinja2.ChoiceLoader):
        return ", ".join(map(_search_path, loader.loaders))
    if isinstance(loader, jinja2.DictLoader):
        return f"the dictionary of {', '.join(sorted(loader.mapping)) or 'no templates'}"
    return f"what {type(loader or LOADER).__name__} finds"
