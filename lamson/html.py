"""HTML mail, written in Markdown; and the HTML of others, made safe to show.

`HtmlMail` makes a `MailResponse` out of templates, as `view` does: a text in Markdown, which is also the text part, a shell around it, a
style sheet whose rules go into the style attributes of the elements, and the images that it names. `markdown` is what it reads Markdown
with. `sanitise` makes the HTML of a received message safe to show on a page.

What a stranger wrote stays what it is here too: a value is put in after the Markdown around it has been read, and escaped.

All of it needs the packages of the extra `html` (`pip install 'lamson[html]'`). Without them this module imports, and using it raises a
`ConfigError` that says so. Handlers call it; it knows nothing of who sends or receives.
"""

from __future__ import annotations

import hashlib
import html as entities
import mimetypes
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import jinja2
from markupsafe import Markup

from lamson import view
from lamson.errors import ConfigError, ViewError
from lamson.mail import MailResponse

try:
    import css_inline
    import markdown_it
    import nh3
    import tinycss2
    from markdown_it.rules_core import StateCore
    from markdown_it.token import Token
except ImportError as missing:
    _MISSING = missing.name
else:
    _MISSING = None

__all__ = ["HtmlMail", "markdown", "sanitise"]


def _need_packages() -> None:
    if _MISSING:
        raise ConfigError(f"lamson.html needs the package {_MISSING}, which is not installed: pip install 'lamson[html]'.")


def _without_surrogates(text: str) -> str:
    """Lone surrogates, which are no characters and which UTF-8 does not have, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


# -- Markdown


def markdown(text: str, html: bool = False, links: bool = False) -> str:
    """The HTML of a Markdown text: CommonMark, with tables and ~~strikethrough~~.

    HTML in the text is shown as it was typed, and no link runs a script, so that anybody may have written it. On a page, use
    `sanitise(markdown(message.reply_text))`, which also marks the links and takes out images that are fetched from elsewhere.
    `html=True` is for text of the application's own: HTML in it is HTML. With `links=True` addresses of http and https that stand in the
    text become links, as people who write mail expect. Raises ConfigError without the extra `html`.
    """
    _need_packages()
    return str(_reader(html, links).render(_without_surrogates(text)))


@lru_cache(maxsize=4)
def _reader(html: bool, links: bool) -> markdown_it.MarkdownIt:
    reader = markdown_it.MarkdownIt("commonmark", {"html": html, "xhtmlOut": False}).enable(["table", "strikethrough"])
    if links:
        reader.core.ruler.push("lamson_links", _link_addresses)
    reader.render("")  # its rules are put together by the first use, which two threads must not do at once
    return reader


_ADDRESS = re.compile(r"https?://[^\s<>\"]+", re.IGNORECASE)


def _link_addresses(state: StateCore) -> None:
    """Makes links of the addresses in the text, but not in code or in what is a link already."""
    for block in state.tokens:
        if block.type == "inline" and block.children:
            block.children = list(_with_links(block.children, state.md.normalizeLink))


def _with_links(tokens: Iterable[Token], normalise: Callable[[str], str]) -> Iterator[Token]:
    inside = 0
    for token in tokens:
        inside += token.nesting if token.type in ("link_open", "link_close") else 0
        if token.type != "text" or inside:
            yield token
            continue
        at = 0
        for found in _ADDRESS.finditer(token.content):
            address = _without_its_end(found[0])
            yield Token("text", "", 0, content=token.content[at : found.start()])
            yield Token("link_open", "a", 1, attrs={"href": normalise(address)})
            yield Token("text", "", 0, content=address)
            yield Token("link_close", "a", -1)
            at = found.start() + len(address)
        yield Token("text", "", 0, content=token.content[at:])


def _without_its_end(address: str) -> str:
    """Without what belongs to the sentence: its full stop, and the parenthesis that the address stands in."""
    address = address.rstrip(_END_OF_SENTENCE)
    closed = len(address) - len(address.rstrip(")"))
    too_many = min(closed, max(0, address.count(")") - address.count("(")))
    return address[: len(address) - too_many].rstrip(_END_OF_SENTENCE)


_END_OF_SENTENCE = ".,:;!?*_~'"


# -- mail


class HtmlMail:
    """Makes HTML mail with one look: one shell and style sheet, for any number of texts.

    `css_template`, `html_template`: names of templates, as `view` finds them. The shell puts `{{ content }}` where the text goes. Without
    a shell the one that comes with Lamson is used, with its styles, which `css_template` may add to. `variables` are there for every
    message; those of `render` and `respond` win over them. `wiki` makes HTML out of the text. `images` is the folder of the images that
    shell and text name; without it, the folders of the templates.

    May be made once and used by many threads. Raises ConfigError without the extra `html`.
    """

    def __init__(
        self,
        css_template: str | None = None,
        html_template: str | None = None,
        variables: Mapping[str, Any] | None = None,
        wiki: Callable[[str], str] = markdown,
        images: str | os.PathLike[str] | None = None,
    ) -> None:
        _need_packages()
        self.css_template = css_template
        self.html_template = html_template
        self.variables = dict(variables or {})
        self.wiki = wiki
        self.images = images

    def render(self, variables: Mapping[str, Any], content_template: str, pretty: bool = False) -> str:
        """The whole HTML page; images keep the names that they have in the templates. `pretty`: with line ends, for people who read HTML.

        Raises ViewError as `view.render` does.
        """
        known = {**self.variables, **variables}
        text = view.render_html(known, content_template, finalize=_marked)
        shell = {**known, "content": Markup(_with_values(self.wiki(text)))}
        if self.html_template is None:
            page, css = _shipped("shell.html", shell), [_shipped("shell.css", known)]
        else:
            page, css = view.render_html(shell, self.html_template), []
        if self.css_template is not None:
            css.append(view.render(known, self.css_template))
        page = _inlined(page, css)
        return _with_line_ends(page) if pretty else page

    def respond(self, variables: Mapping[str, Any], content: str, **headers: Any) -> MailResponse:
        """A message: the page, the same text as it was written beside it, and the images that the page shows within it.

        Headers are keywords as in `view.respond`. `Body` names another template for the text part; None leaves it out. Raises ViewError,
        also for an image that is not there.
        """
        if "Html" in headers:
            raise TypeError("HtmlMail.respond() makes the Html itself; for HTML of your own there is view.respond().")
        known = {**self.variables, **variables}
        body = headers.pop("Body", content)
        msg = view.respond(known, body or content, **headers)
        if body is None:
            msg.Body = None
        msg.Html = _embedded(self.render({"subject": msg.get("Subject"), **known}, content), msg, self._image_folders())
        return msg

    def _image_folders(self) -> list[str]:
        if self.images is not None:
            return [os.fspath(self.images)]
        return [os.fspath(folder) for folder in getattr(getattr(view.LOADER, "loader", None), "searchpath", [])]


def _shipped(name: str, variables: Mapping[str, Any]) -> str:
    return _shipped_templates().get_template(name).render(variables)


@lru_cache(maxsize=1)
def _shipped_templates() -> jinja2.Environment:
    """The shell and the style sheet that come with Lamson."""
    return jinja2.Environment(loader=jinja2.PackageLoader("lamson", "data/html"), undefined=jinja2.StrictUndefined, autoescape=True)


# -- values in Markdown
#
# A value must not be read as Markdown, and must be whole again wherever it stands: in a line, in code, in an address. Escaping it cannot do
# that, as each of these escapes in another way and code in none. So a word stands for it while the Markdown is read, which carries it along
# in hexadecimal. Whoever writes such a word into a value gains nothing: it is put in escaped, like any other.

_ADDRESS_VALUE = re.compile(r"[^\s@<>\"\\]+@[A-Za-z0-9.-]+")
_URL_VALUE = re.compile(r"https?://[^\s<>\"\\]+")
#: The word; with what makes it an address between < and >.
_VALUE = re.compile(r"(?:https://qvzu|qvz)((?:[0-9a-f]{2})+)zvq(?:@value\.example)?", re.IGNORECASE)
_TAG_OR_VALUE = re.compile(rf"""<(/?)([A-Za-z][A-Za-z0-9-]*)(?:[^<>"']|"[^"]*"|'[^']*')*+>|{_VALUE.pattern}""", re.IGNORECASE)
_ATTRIBUTE_WITH_VALUE = re.compile(
    rf"""(?<![\w:-])([\w:-]++)\s*=\s*("[^"]*{_VALUE.pattern}[^"]*"|'[^']*{_VALUE.pattern}[^']*'|[^\s"'<>]*{_VALUE.pattern}[^\s"'<>]*)""",
    re.IGNORECASE,
)
_SAFE_SCHEMES = {"http", "https", "mailto", "tel", "sms", "xmpp", "cid"}


def _marked(value: Any) -> Any:
    """A word for the value, that no reader of Markdown takes for anything else. Numbers, and what is Markup, go in as they are."""
    if hasattr(value, "__html__"):
        return value
    text = _without_surrogates(str(value))
    if not text or isinstance(value, int | float):
        return Markup(text)
    carried = text.encode().hex()
    if _URL_VALUE.fullmatch(text):
        return Markup(f"https://qvzu{carried}zvq")
    return Markup(f"qvz{carried}zvq@value.example" if _ADDRESS_VALUE.fullmatch(text) else f"qvz{carried}zvq")


def _value(found: re.Match[str]) -> str:
    return bytes.fromhex(found[found.lastindex or 0]).decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _with_values(html: str) -> str:
    """HTML with the values in the places of their words: escaped, their lines kept, and in addresses only what is safe to follow."""
    in_pre = False

    def put(found: re.Match[str]) -> str:
        nonlocal in_pre
        if found[0].startswith("<"):
            in_pre = not found[1] if found[2].lower() == "pre" else in_pre
            tag = _ATTRIBUTE_WITH_VALUE.sub(partial(_attribute_with_value, found[2].lower()), found[0])
            return _VALUE.sub("", tag)  # in a tag, but in no attribute: whoever wrote it does not make one
        text = entities.escape(_value(found).strip("\n"))
        return text if in_pre else text.replace("\n", "<br>\n")

    return _TAG_OR_VALUE.sub(put, html)


def _attribute_with_value(tag: str, found: re.Match[str]) -> str:
    name = found[1].lower()
    given = found[2][1:-1] if found[2][0] in "\"'" else found[2]
    value = _VALUE.sub(_value, entities.unescape(given))
    if name in ("href", "src", "background", "action"):
        value = _safe_address(value, of_page=tag != "img")
    return f'{name}="{entities.escape(value)}"'


def _safe_address(address: str, of_page: bool) -> str:
    """The address, or one that leads nowhere. Without a scheme an image would be a file of ours."""
    scheme = re.match(r"([a-z][a-z0-9+.-]*):", re.sub(r"[\0-\x20]", "", address).lower())
    if scheme[1] in _SAFE_SCHEMES if scheme else of_page:
        return quote(address, safe="!#$%&'()*+,/:;=?@[]~")
    return "#"


# -- styles
#
# css_inline finds which rules fit which elements, in the order of their specificity. What it makes of rules that name the same property is
# not always CSS (0.24: a later `margin` may stand before an earlier `margin-left`). So it is given a number for each declaration, as a
# property that no other one has, and the declarations take the places of their numbers afterwards.


@dataclass(frozen=True, slots=True)
class _Declaration:
    """`rule` is the same for what stands in one rule, and for nothing else; -1 in a style attribute."""

    rule: int
    name: str
    value: str
    important: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.value}{' !important' if self.important else ''}"


_STYLE_ELEMENT = re.compile(r"<!--.*?-->|(<style(?: type=\"text/css\")?\s*>)(.*?)(?=</style\s*>)", re.DOTALL | re.IGNORECASE)
#: Comments, and where the head ends: at the end of the page at last.
_HEAD_ENDS = re.compile(r"<!--.*?-->|</head\s*>|<body\b|\Z", re.DOTALL | re.IGNORECASE)
_STYLE_ATTRIBUTE = re.compile(r'(<[A-Za-z][^\s>]*(?:\s[^\s=>"]+="[^"]*")*?\s)style="([^"]*)"')
_NUMBER = re.compile(r"--lamson-(\d+)-(\d+):\s*1(?:;|(?=\s|\}|\Z))")


def _inlined(page: str, css: Iterable[str]) -> str:
    """The page with each rule in the style attributes of the elements that it fits, in CSS's order.

    What no attribute can say (`@media`, `:hover`) stays in a style element. There it would lose against the attributes: so it is made
    important. Style elements in comments, or with other attributes than a type, stay as they are.
    """
    sheet = "\n".join(css).replace("</", r"<\/")  # a value in it cannot end the element
    head = next(found.start() for found in _HEAD_ENDS.finditer(page) if not found[0].startswith("<!--"))
    page = f"{page[:head]}<style>{sheet}</style>{page[head:]}"
    known: dict[tuple[str, str], _Declaration] = {}
    page = _STYLE_ELEMENT.sub(partial(_number_element, known), _without_surrogates(page))
    page = css_inline.inline(page, load_remote_stylesheets=False, keep_at_rules=True, remove_inlined_selectors=True)
    page = _STYLE_ATTRIBUTE.sub(partial(_style_attribute, known), page)
    return re.sub("<style>.*?</style>", partial(_style_element, known), page, flags=re.DOTALL)


def _number_element(known: dict[tuple[str, str], _Declaration], found: re.Match[str]) -> str:
    if found[1] is None:  # a comment
        return found[0]
    numbered, declarations = _numbered(found[2])
    before = len(known)
    known.update({(str(before), str(number)): replace(each, rule=before + each.rule) for number, each in enumerate(declarations)})
    return found[1] + numbered.replace("--lamson-", f"--lamson-{before}-")


@lru_cache(maxsize=50)
def _numbered(css: str) -> tuple[str, tuple[_Declaration, ...]]:
    """The sheet with `--lamson-N: 1` for each declaration, and the declarations."""
    declarations: list[_Declaration] = []
    rules = tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True)
    return "\n".join(_numbered_rule(rule, declarations) for rule in rules), tuple(declarations)


def _numbered_rule(rule: Any, declarations: list[_Declaration]) -> str:
    if rule.type == "at-rule" and rule.content is not None and rule.lower_at_keyword in ("media", "supports", "container", "layer"):
        inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
        return (
            f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{\n" + "\n".join(_numbered_rule(r, declarations) for r in inner) + "\n}"
        )
    if rule.type != "qualified-rule":
        return str(rule.serialize())
    first = len(declarations)
    declarations += sorted(_declarations(rule.content, first), key=lambda each: each.important)
    numbers = "; ".join(f"--lamson-{number}: 1" for number in range(first, len(declarations)))
    return f"{tinycss2.serialize(rule.prelude).strip()} {{ {numbers} }}"


def _declarations(source: Any, rule: int) -> list[_Declaration]:
    found = tinycss2.parse_declaration_list(source, skip_comments=True, skip_whitespace=True)
    return [
        _Declaration(
            rule, each.name if each.name.startswith("--") else each.lower_name, tinycss2.serialize(each.value).strip(), each.important
        )
        for each in found
        if each.type == "declaration"
    ]


def _style_attribute(known: dict[tuple[str, str], _Declaration], found: re.Match[str]) -> str:
    """The attribute with its declarations in the order of the cascade (CSS Cascading 4 §6.1), without those that are overruled."""
    source = entities.unescape(found[2])
    numbers = _NUMBER.findall(source)
    if not numbers:
        return found[0]
    declarations = [known[number] for number in numbers if number in known] + _declarations(_NUMBER.sub("", source), -1)
    declarations.sort(key=lambda each: each.important)
    last = {each.name: (each.rule, each.important) for each in declarations}
    # A rule may name a property twice, for programs that know the one value and programs that know the other.
    kept = [str(each) for each in declarations if last[each.name] == (each.rule, each.important)]
    return f'{found[1]}style="{entities.escape("; ".join(kept))}"'


def _style_element(known: dict[tuple[str, str], _Declaration], found: re.Match[str]) -> str:
    def important(number: re.Match[str]) -> str:
        declaration = known.get((number[1], number[2]))
        return f"{replace(declaration, important=True)};" if declaration else number[0]

    return _NUMBER.sub(important, found[0])


# -- images

#: As css_inline writes it: all attributes in double quotes.
_IMAGE = re.compile(r'(<img(?:\s[^\s=>"]+="[^"]*")*?\ssrc=")([^"]*)"')


def _embedded(page: str, msg: MailResponse, folders: list[str]) -> str:
    """The page with its local images attached to the message, each once, and named by their content-ids (RFC 2392 §2)."""
    attached: set[str] = set()

    def embed(found: re.Match[str]) -> str:
        name = entities.unescape(found[2])
        if not name or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|//|#", name):
            return found[0]
        file = _image(unquote(name), folders)
        data = file.read_bytes()
        content_id = f"{hashlib.sha256(data).hexdigest()[:24]}@lamson"
        if content_id not in attached:
            msg.attach(filename=file.name, content_type=mimetypes.guess_type(file.name)[0], data=data, content_id=content_id)
            attached.add(content_id)
        return f'{found[1]}cid:{content_id}"'

    return _IMAGE.sub(embed, page)


def _image(name: str, folders: list[str]) -> Path:
    """The file of an image, which lies in one of the folders. Raises ViewError that says why not."""
    for folder in map(Path, folders):
        file = (folder / name).resolve()
        if file.is_relative_to(folder.resolve()) and file.is_file():
            if (mimetypes.guess_type(file.name)[0] or "").startswith("image/"):
                return file
            raise ViewError(f"{name!r} cannot be shown as an image: its name does not end as an image's does (.png, .jpg, .gif, ...).")
    where = f"in {', '.join(map(os.path.abspath, folders))}" if folders else "anywhere: give HtmlMail the folder, images=..."
    raise ViewError(f"There is no image {name!r} {where}.")


_BLOCK = re.compile(
    r"(<pre\b.*?</pre>|</?(?:html|head|body|meta|style|table|tbody|thead|tr|div|ul|ol|blockquote)\b(?:[^\"<>]|\"[^\"]*\")*>"
    r"|</(?:p|td|th|li|title|h[1-6])>|<(?:br|hr)\b[^<>]*>)\n*",
    re.DOTALL,
)


def _with_line_ends(page: str) -> str:
    return _BLOCK.sub(r"\1\n", page)


# -- showing what others wrote

_TAGS = {
    *("a", "abbr", "acronym", "address", "article", "aside", "b", "bdi", "bdo", "big", "blockquote", "br", "caption", "center", "cite"),
    *("code", "col", "colgroup", "dd", "del", "dfn", "div", "dl", "dt", "em", "figcaption", "figure", "font", "footer", "h1", "h2", "h3"),
    *("h4", "h5", "h6", "header", "hr", "i", "img", "ins", "kbd", "li", "main", "mark", "nav", "ol", "p", "pre", "q", "rp", "rt", "ruby"),
    *("s", "samp", "section", "small", "span", "strike", "strong", "sub", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "time"),
    *("tr", "tt", "u", "ul", "var", "wbr"),
}
#: Of these not even the text is kept.
_TAGS_WITH_CONTENT = {
    *("iframe", "math", "noembed", "noframes", "object", "plaintext", "script", "style", "svg", "template", "textarea", "title", "xmp"),
}
_ROWS, _COLUMNS = {"align", "bgcolor", "valign"}, {"align", "span", "valign", "width"}
_CELL = {"abbr", "align", "bgcolor", "colspan", "height", "nowrap", "rowspan", "scope", "valign", "width"}
_ATTRIBUTES = {
    "*": {"dir", "lang", "style", "title"},
    "a": {"href"},
    "img": {"align", "alt", "border", "height", "hspace", "src", "vspace", "width"},
    "font": {"color", "face", "size"},
    "table": {"align", "bgcolor", "border", "cellpadding", "cellspacing", "summary", "width"},
    **dict.fromkeys(("tr", "thead", "tbody", "tfoot"), _ROWS),
    **dict.fromkeys(("td", "th"), _CELL),
    **dict.fromkeys(("col", "colgroup"), _COLUMNS),
    **{tag: {"align"} for tag in ("div", "h1", "h2", "h3", "h4", "h5", "h6", "p")},
    "hr": {"align", "color", "noshade", "size", "width"},
    "ol": {"start", "type"},
    "ul": {"type"},
}
#: What a style may say: how the element itself looks. Nothing that fetches, nor places it over something else.
_PROPERTIES = re.compile(
    r"color|background-color|font(-family|-size|-style|-variant|-weight)?|line-height|letter-spacing|word-spacing|word-break|overflow-wrap"
    r"|text-(align|decoration|decoration-line|indent|transform)|white-space|vertical-align|direction|list-style-type|caption-side|empty-cells"
    r"|(margin|padding)(-top|-right|-bottom|-left)?|(min-|max-)?(width|height)|float|clear|table-layout"
    r"|border(-top|-right|-bottom|-left)?(-color|-style|-width)?|border-(collapse|spacing|radius)"
)
_PLAIN_PARTS = {"ident", "hash", "string", "whitespace", "literal"}
_FUNCTIONS = {"rgb", "rgba", "hsl", "hsla"}
#: A colour is made of numbers, without anything nested: of that, a thousand levels would be more than Python's stack.
_ARGUMENTS = {"number", "dimension", "percentage", "ident", "whitespace", "literal"}
_SCHEMES = {"http", "https", "mailto", "tel", "cid", "data"}
_LINK = re.compile(r"(?:https?|mailto|tel):", re.IGNORECASE)
_REMOTE = re.compile(r"https?:", re.IGNORECASE)
_SMALL_IMAGE = re.compile(r"data:image/(?:png|gif|jpeg|webp);base64,", re.IGNORECASE)
_CID = re.compile(r"cid:", re.IGNORECASE)
#: A tag, or what looks like one in a comment or an attribute; its name ends as in HTML §13.2.5.8.
_OPEN_OR_CLOSE = re.compile(r"<(/?)([a-zA-Z][^\t\n\f\r />]*)")
#: Elements that end by themselves, at once or where the next begins: however many there are, they lie side by side.
_SIDE_BY_SIDE = {"area", "br", "col", "hr", "img", "input", "li", "link", "meta", "p", "td", "th", "tr", "wbr"}
#: Where one of these is, they may not: a <td> in SVG is any element, and a <dd> does not end a <li>, nor that a <dd>.
_NESTING = ("svg", "math", "dd", "dt")
#: Elements that a parser opens again wherever something ended before they did (HTML §13.2.4.3).
_FORMATTING = {"a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"}
_FORMATTING_TAG = re.compile(rf"<(/?)({'|'.join(sorted(_FORMATTING))})(?=[\t\n\f\r />])", re.IGNORECASE)
_RENAMED_TAG = re.compile(rf"<(/?)x-({'|'.join(sorted(_FORMATTING))})(?=[\t\n\f\r />])")
#: How many tags, times how deep they lie in one another. Parsing takes time by that product: with this one up to a second.
_MOST_NESTING = 100_000_000
#: How many tags, times the elements that each may open again. With this product they are a few megabytes.
_MOST_OPENED_AGAIN = 500_000


def sanitise(source: str, image: Callable[[str], str | None] | None = None, remote: bool = False) -> str:
    """The HTML of a message that anybody may have sent, as HTML that a page can show within an element of its own.

    What is left are text, links, tables, images and how they look. There are no scripts, forms, style sheets, classes and ids. Links
    have an address of http, https, mailto or tel, open a new window and carry `rel="noopener noreferrer nofollow"`.

    An image that came with the message (`cid:`) gets the address that `image(content_id)` returns; without it, or for None, it is not
    shown, but for its alt text. Images from elsewhere tell their owner who reads, and when; they are left out unless `remote`.

        page = sanitise(message.html, image=lambda content_id: f"/mail/{number}/{content_id}")

    It takes any text and always ends: what is nested so deeply that no browser shows it in time is given back as plain text. Raises
    ConfigError without the extra `html`, and what `image` raises.
    """
    _need_packages()
    source = _without_surrogates(source)
    tags, deepest, formatting = _size(source)
    if tags * deepest > _MOST_NESTING:
        return f"<p>{entities.escape(re.sub('<[^<>]*>', ' ', source))}</p>"
    if tags * formatting > _MOST_OPENED_AGAIN:
        source = _opening_nothing_again(source)
    asked: set[str] = set()
    cleaned = _clean(source, partial(_attribute, remote=remote, asked=asked, images=None))
    if not asked:
        return cleaned
    # Two rounds, as what goes wrong in `image` must reach the caller, which it does not out of nh3.
    images = {content_id: image(content_id) for content_id in sorted(asked)} if image is not None else {}
    return _clean(cleaned, partial(_attribute, remote=remote, asked=asked, images=images))


def _clean(source: str, attribute_filter: Callable[[str, str, str], str | None]) -> str:
    return str(
        nh3.clean(
            source,
            tags=_TAGS,
            clean_content_tags=_TAGS_WITH_CONTENT,
            attributes=_ATTRIBUTES,
            attribute_filter=attribute_filter,
            url_schemes=_SCHEMES,
            link_rel="noopener noreferrer nofollow",
            set_tag_attribute_values={"a": {"target": "_blank"}},
        )
    )


def _attribute(tag: str, name: str, value: str, remote: bool, asked: set[str], images: Mapping[str, str | None] | None) -> str | None:
    """The value that an attribute keeps; None to be rid of it. `images` None: the round that only asks which there are."""
    if name == "style":
        return _style(value) or None
    if name == "href":
        return value if _LINK.match(value.strip()) else None
    if name != "src":
        return value
    value = value.strip()
    if _CID.match(value):
        content_id = unquote(value[4:])  # RFC 2392 §2
        asked.add(content_id)
        return value if images is None else images.get(content_id)
    allowed = _SMALL_IMAGE.match(value) or (remote and _REMOTE.match(value))
    return value if allowed else None


def _style(source: str) -> str:
    """The declarations of a style attribute that only say how its element looks."""
    declarations = tinycss2.parse_declaration_list(source, skip_comments=True, skip_whitespace=True)
    return ";".join(each.serialize() for each in declarations if each.type == "declaration" and _only_looks(each))


def _only_looks(declaration: tinycss2.ast.Declaration) -> bool:
    """No function but those of colours, no address; and nothing negative, which would move it out of its place."""
    return _PROPERTIES.fullmatch(declaration.lower_name) is not None and all(
        part.type in _PLAIN_PARTS
        or (part.type in ("number", "dimension", "percentage") and part.value >= 0)
        or (part.type == "function" and part.lower_name in _FUNCTIONS and all(each.type in _ARGUMENTS for each in part.arguments))
        for part in declaration.value
    )


def _size(source: str) -> tuple[int, int, int]:
    """How many tags it has, how deep they may lie in one another, and how many are of formatting: never less than a parser finds.

    So what closes an element counts for nothing: it may stand in a comment or an attribute, or where a parser passes over it.
    """
    tags = [(closing, name.lower()) for closing, name in _OPEN_OR_CLOSE.findall(source)]
    opened = Counter(name for closing, name in tags if not closing)
    flat = _SIDE_BY_SIDE if opened.keys().isdisjoint(_NESTING) else ()
    return len(tags), opened.total() - sum(opened[name] for name in flat), sum(opened[name] for name in _FORMATTING)


def _opening_nothing_again(source: str) -> str:
    """The same, well nested: for the parser the formatting has other names meanwhile, so that each element is opened once and closed once.

    Seventeen kilobytes of `<b title=1><b title=2>...</p><p>x</p><p>x</p>...` would be twelve megabytes else.
    """
    renamed = {f"x-{name}" for name in _FORMATTING & _TAGS}
    attributes = {**_ATTRIBUTES, **{name: _ATTRIBUTES.get(name[2:], set()) for name in renamed}}
    source = _FORMATTING_TAG.sub(r"<\1x-\2", source)
    nested = nh3.clean(
        source, tags=_TAGS | renamed, clean_content_tags=_TAGS_WITH_CONTENT, attributes=attributes, link_rel=None, url_schemes=_SCHEMES
    )
    return _RENAMED_TAG.sub(r"<\1\2", nested)
