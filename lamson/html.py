"""HTML that a mail program, or a page that shows mail, can be given.

`markdown` turns Markdown into HTML. `sanitise` makes the HTML of a received message safe to show on a page.

All of it needs the packages of the extra `html` (`pip install 'lamson[html]'`). Without them this module imports, and using it raises a
`ConfigError` that says so. Handlers call it; it knows nothing of who sends or receives.
"""

from __future__ import annotations

import html as entities
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from urllib.parse import unquote

from lamson.errors import ConfigError

try:
    import markdown_it
    import nh3
    import tinycss2
except ImportError as missing:
    _MISSING = missing.name
else:
    _MISSING = None

__all__ = ["markdown", "sanitise"]


def _need_packages() -> None:
    if _MISSING:
        raise ConfigError(f"lamson.html needs the package {_MISSING}, which is not installed: pip install 'lamson[html]'.")


def _without_surrogates(text: str) -> str:
    """Lone surrogates, which are no characters and which UTF-8 does not have, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


# -- Markdown


def markdown(text: str, html: bool = False) -> str:
    """The HTML of a Markdown text: CommonMark, with tables and ~~strikethrough~~.

    HTML in the text is shown as it was typed, and no link runs a script, so that anybody may have written it. On a page, use
    `sanitise(markdown(message.reply_text))`, which also marks the links and takes out images that are fetched from elsewhere.
    `html=True` is for text of the application's own: HTML in it is HTML. Raises ConfigError without the extra `html`.
    """
    _need_packages()
    return str(_reader(html).render(_without_surrogates(text)))


@lru_cache(maxsize=2)
def _reader(html: bool) -> markdown_it.MarkdownIt:
    reader = markdown_it.MarkdownIt("commonmark", {"html": html, "xhtmlOut": False}).enable(["table", "strikethrough"])
    reader.render("")  # its rules are put together by the first use, which two threads must not do at once
    return reader


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
_FUNCTIONS = {"rgb", "rgba", "hsl", "hsla"}
_LINK = re.compile(r"(?:https?|mailto|tel):", re.IGNORECASE)
_REMOTE = re.compile(r"https?:", re.IGNORECASE)
_SMALL_IMAGE = re.compile(r"data:image/(?:png|gif|jpeg|webp);base64,", re.IGNORECASE)
_CID = re.compile(r"cid:", re.IGNORECASE)
_OPEN_OR_CLOSE = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
#: Elements that end by themselves, at once or where the next begins: however many there are, they lie side by side.
_SIDE_BY_SIDE = {"area", "br", "col", "hr", "img", "input", "link", "meta", "p", "td", "th", "tr", "wbr"}
#: How many elements, times how deep they lie in one another. Parsing takes time by that product: with this one up to a second.
_MOST_NESTING = 100_000_000


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
    if _nesting(source) > _MOST_NESTING:
        return f"<p>{entities.escape(re.sub('<[^<>]*>', ' ', source))}</p>"
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
            url_schemes={"http", "https", "mailto", "tel", "cid", "data"},
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
        part.type in ("ident", "hash", "string", "whitespace", "literal")
        or (part.type in ("number", "dimension", "percentage") and part.value >= 0)
        or (part.type == "function" and part.lower_name in _FUNCTIONS)
        for part in declaration.value
    )


def _nesting(source: str) -> int:
    """The number of elements, times how deep they may lie in one another: never less than it is."""
    opened: Counter[str] = Counter()
    elements = depth = deepest = 0
    for closing, tag in _OPEN_OR_CLOSE.findall(source):
        name = tag.lower()
        elements += not closing
        if name in _SIDE_BY_SIDE or (closing and not opened[name]):
            continue
        step = -1 if closing else 1
        opened[name] += step
        depth += step
        deepest = max(deepest, depth)
    return elements * deepest
