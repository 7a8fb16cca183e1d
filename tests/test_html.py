"""HTML mail, Markdown, and the HTML of others made safe to show."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamson import view
from lamson.errors import ViewError
from lamson.html import HtmlMail, markdown, sanitise
from lamson.mail import MailRequest, MailResponse
from tests.cost import assert_costs_less


class Elements(HTMLParser):
    """The elements of a document as (name, attributes), and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


# -- Markdown


def test_markdown_is_commonmark_with_tables() -> None:
    source = "# Hello\n\nA *word* and ~~another~~.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    html = markdown(source)
    assert "<h1>Hello</h1>" in html
    assert "<em>word</em> and <s>another</s>" in html
    assert "<td>1</td>" in html


@pytest.mark.parametrize(
    "source",
    [
        "<script>alert(1)</script>",
        "a <img src=x onerror=alert(1)> b",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt&colon;alert(1))",
        "[x](&#x6A;avascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](vbscript:x)",
        "<javascript:alert(1)>",
        '[x](http://a "onmouseover=alert(1)")',
        '[x]: javascript:alert(1)\n\n[x] ![a"onerror="x](http://a)',
    ],
)
def test_markdown_of_strangers_runs_nothing(source: str) -> None:
    elements = Elements(markdown(source)).found
    assert {tag for tag, _ in elements} <= {"p", "a", "img"}
    for _, attributes in elements:
        assert set(attributes) <= {"href", "src", "alt", "title"}
        assert re.match(r"http://a", attributes.get("href") or attributes.get("src") or "http://a")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("See https://a.example/x_y_z?a=1&b=2.", ["https://a.example/x_y_z?a=1&amp;b=2"]),
        ("HTTP://A.example, (see https://b.example/x). And https://c.example/(x)!", ["HTTP://A.example", "https://b.example/x", "https://c.example/(x)"]),
        ("- **https://a.example/** and\n- > https://b.example/", ["https://a.example/", "https://b.example/"]),
        ("[text](https://a.example/) <https://b.example/>", ["https://a.example/", "https://b.example/"]),
        ("`https://a.example/`\n\n    https://b.example/", []),
        ("javascript:alert(1) ftp://a.example file:///etc/passwd //a.example www.a.example https:// x", []),
        ('https://a.example/"><script>alert(1)</script>', ["https://a.example/"]),
    ],
)  # fmt: skip
def test_addresses_in_the_text_are_links_where_wanted(text: str, found: list[str]) -> None:
    page = markdown(text, links=True)
    assert re.findall(r'<a href="([^"]*)"', page) == found
    assert "<script" not in page
    assert re.sub("</?a[^>]*>", "", page) == re.sub("</?a[^>]*>", "", markdown(text)), "the text is the same"


@pytest.mark.parametrize(
    "piece", ["http://", "http://[", "https://a/(", "https://a/)", "https://a.", "https://a/" + ")" * 1000 + " ", "[http://a"]
)
def test_addresses_are_found_in_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    assert_costs_less(5, lambda: markdown(text, links=True))  # linkify-it-py took 120 seconds for the second, of 160 kB


def test_html_in_markdown_of_ones_own() -> None:
    assert markdown('<div class="box">\n\n*in it*\n\n</div>', html=True).startswith('<div class="box">\n<p><em>in it</em></p>')


@given(st.text(st.one_of(st.sampled_from("[]()<>!*_`~#|-&;:\\ \n\t\ud800\0"), st.characters())))
def test_markdown_takes_any_text(source: str) -> None:
    markdown(source).encode()


# -- mail

#: The smallest PNG, one transparent pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c636060606000000005000166a1e1b80000000049454e44ae426082"
)
CONTENT = "# Hello {{ name }}\n\nWelcome to *{{ place }}*.\n"
SHELL = "<html><head><title>{{ title }}</title></head><body>{{ content }}</body></html>"


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an application's templates, with a text, a shell and a style sheet in it."""
    folder = tmp_path / "templates"
    folder.mkdir()
    write(folder, "hello.md", CONTENT)
    write(folder, "shell.html", SHELL)
    write(folder, "style.css", "p { color: {{ colour }}; margin: 1px }")
    (folder / "logo.png").write_bytes(PIXEL)
    monkeypatch.setattr(view, "LOADER", jinja2.Environment(loader=jinja2.FileSystemLoader(folder)))
    return folder


def write(folder: Path, name: str, source: str) -> str:
    (folder / name).write_text(source, "utf-8")
    return name


def of(source: str, folder: Path, html: bool = False, **variables: Any) -> Elements:
    """What a text renders to, in a shell without styles."""
    mail = HtmlMail(None, write(folder, "bare.html", "<body>{{ content }}</body>"), wiki=partial(markdown, html=html))
    return Elements(mail.render(variables, write(folder, "text.md", source)))


def parts(msg: MailResponse) -> dict[str, Any]:
    """The parts by type, as a receiver gets them."""
    return {part.content_type: part for part in MailRequest(None, None, None, bytes(msg)).walk()}


def test_a_message_is_text_and_html_of_one_source(templates: Path) -> None:
    mail = HtmlMail("style.css", "shell.html", {"colour": "red", "place": "nowhere", "title": "News"})
    variables = {"name": "Jöe", "place": "the garden"}
    for body in ({}, {"Body": "hello.md"}):
        msg = mail.respond(variables, "hello.md", To="joe@example.com", From="a@example.com", Subject="For %(name)s", **body)
        assert (msg["to"], msg["subject"]) == ("joe@example.com", "For Jöe")
        assert msg.Body == "# Hello Jöe\n\nWelcome to *the garden*."
        elements = Elements(msg.Html)
        assert elements.all("p") == [{"style": "color: red; margin: 1px"}]
        assert "News" in elements.text
        assert "Hello JöeWelcome to the garden." in re.sub(r"\n", "", elements.text)
        assert set(parts(msg)) == {"text/plain", "text/html"}
    assert mail.render(variables, "hello.md") == msg.Html


def test_another_text_part_or_none(templates: Path) -> None:
    write(templates, "hello.txt", "Hello, {{ name }}.")
    mail = HtmlMail()
    variables = {"name": "Joe", "place": "x"}
    assert mail.respond(variables, "hello.md", To="joe@example.com", Body="hello.txt").Body == "Hello, Joe."
    assert mail.respond(variables, "hello.md", To="joe@example.com", Body=None).Body is None
    with pytest.raises(TypeError, match=r"makes the Html itself"):
        mail.respond(variables, "hello.md", Html="shell.html")


def test_the_shell_that_comes_with_lamson(templates: Path) -> None:
    mail = HtmlMail(variables={"footer": "Example & Co", "preheader": "In short", "lang": "de"})
    msg = mail.respond({"name": "Joe", "place": "x"}, "hello.md", Subject="News for %(name)s")
    elements = Elements(msg.Html)
    assert elements.all("html")[0]["lang"] == "de"
    assert "News for Joe" in elements.text
    assert "Example & Co" in elements.text
    assert {"name": "color-scheme", "content": "light dark"} in elements.all("meta")
    assert "max-width: 600px" in (elements.all("table")[1]["style"] or "")
    assert "@media (prefers-color-scheme: dark)" in msg.Html
    assert len(msg.Html) < 20_000  # octets, of the 102,000 after which Gmail cuts
    plain = Elements(HtmlMail().render({"name": "Joe", "place": "x"}, "hello.md"))
    assert "preheader" not in str(plain.found)


def test_the_shell_from_right_to_left(templates: Path) -> None:
    write(templates, "text.md", "- one\n\n> two\n")
    for variables, side in (({}, "left"), ({"dir": "rtl"}, "right")):
        elements = Elements(HtmlMail().render(variables, "text.md"))
        assert f"padding: 0; padding-{side}: 26px" in (elements.all("ul")[0]["style"] or "")
        assert f"border-{side}: 4px solid" in (elements.all("blockquote")[0]["style"] or "")
        assert elements.all("html")[0]["dir"] == variables.get("dir", "ltr")


def test_styles_of_ones_own_beside_those_that_come_with_lamson(templates: Path) -> None:
    page = HtmlMail("style.css", variables={"colour": "teal"}).render({"name": "Joe", "place": "x"}, "hello.md")
    assert Elements(page).all("p") == [{"style": "color: teal; margin: 1px"}]
    assert "max-width: 600px" in page


def test_another_wiki(templates: Path) -> None:
    mail = HtmlMail(None, "shell.html", {"title": ""}, wiki=lambda text: f"<pre>{text}</pre>")
    elements = Elements(mail.render({"name": "<b>\n", "place": "*"}, "hello.md"))
    assert elements.text.strip() == "# Hello <b>\n\nWelcome to ***."
    assert elements.all("b") == []


def test_pretty_is_for_people_and_says_the_same(templates: Path) -> None:
    write(templates, "hello.md", "# {{ name }}\n\ntext\n\n    code\n\n      more\n\n- a\n- b\n")
    mail = HtmlMail()
    plain, pretty = (mail.render({"name": "Joe"}, "hello.md", pretty) for pretty in (False, True))
    assert Elements(plain).found == Elements(pretty).found
    assert re.sub(r"\s", "", plain) == re.sub(r"\s", "", pretty)
    assert "code\n\n  more\n" in pretty
    assert pretty.count("\n") > plain.count("\n") + 10


def test_an_instance_serves_many_threads(templates: Path) -> None:
    mail = HtmlMail()
    wanted = mail.render({"name": "Joe", "place": "x"}, "hello.md")
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(mail.render({"name": "Joe", "place": "x"}, "hello.md"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [wanted] * 8


# -- values


@pytest.mark.parametrize(
    "value",
    [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "*strong* _em_ `code` ~~s~~ ![i](x.png)",
        "# heading",
        "- item\n- item",
        "1. item",
        "> quoted\n\nParagraph\n\n    code",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "``` \nfence",
        "<https://example.com> &amp; &#42; \\*",
        "{{ secret }} {% if %}",
        "qvz41zvq and https://qvzu41zvq",
        "qvzffzvq",
        "--lamson-1-1: 1 <p style='--lamson-0-99: 1'>",
        "  two  spaces  ",
        "a\r\nb\rc",
        "Zoë\0\ud800",
    ],
)
def test_a_value_stays_what_it_is(templates: Path, value: str) -> None:
    shown = value.replace("\0", "").replace("\ud800", "?")  # HTML has neither
    for place in ["{}", "x *{}* y", "> {}", "- {}", "# {}", "`{}`", "    {}", "~~~\n{}\n~~~\n", "a | b\n--|--\n{} | c", "[{}](https://a)"]:
        source = place.replace("{}", "{{ value }}")
        with_value, with_word = of(source, templates, value=value), of(source, templates, value="word")
        assert [each for each in with_value.found if each[0] != "br"] == with_word.found
        assert " ".join(with_value.text.split()) == " ".join(with_word.text.replace("word", shown).split())


def test_lines_of_a_value_stay_lines(templates: Path) -> None:
    elements = of("> {{ value }}\n\nand\n\n```\n{{ value }}\n```", templates, value="one\ntwo\n\nthree\n")
    assert len(elements.all("br")) == 3
    assert elements.text.count("one\ntwo\n\nthree\n") == 2


def test_numbers_and_markup_of_ones_own(templates: Path) -> None:
    source = "{% for each in items %}\n{{ loop.index }}. {{ each }}\n{%- endfor %}\n\n{{ mine|safe }}\n\n{{ nothing }}"
    elements = of(source, templates, items=["*a*", "*b*"], mine="*em*", nothing="")
    assert len(elements.all("ol")) == 1
    assert len(elements.all("em")) == 1
    assert len(elements.all("p")) == 1


def test_macros_sets_includes_and_filters_escape_once(templates: Path) -> None:
    write(templates, "macro.md", "{% macro hello(name) %}**{{ name }}**{% endmacro %}")
    write(templates, "part.md", "_{{ value }}_")
    source = (
        "{% from 'macro.md' import hello %}{{ hello(value) }} {% include 'part.md' %} "
        "{% set line %}`{{ value }}`{% endset %}{{ line }} {{ value|upper }} {{ '~'.join([value, value]) }}"
    )
    elements = of(source, templates, value="*<x>*")
    assert elements.text.strip() == "*<x>* *<x>* *<x>* *<X>* *<x>*~*<x>*"
    assert of("{% filter upper %}of {{ value }}{% endfilter %}", templates, value="*<x>*").text.strip() == "OF *<x>*"
    assert [tag for tag, _ in elements.found if tag not in ("html", "head", "body")] == ["p", "strong", "em", "code"]


def test_addresses_as_values_are_links(templates: Path) -> None:
    url, address = "https://example.com/a_b?x=1&y=*2*(3)", "list-confirm-a_b@example.com"
    source = "<{{ url }}> <{{ address }}> [here]({{ url }}) [q](https://example.com/?q={{ word|urlencode }}) [h](https://{{ host }}/x)"
    elements = of(source, templates, url=url, address=address, word="a&b c", host="example.org")
    hrefs = [each["href"] for each in elements.all("a")]
    assert hrefs == [url, f"mailto:{address}", url, "https://example.com/?q=a%26b%20c", "https://example.org/x"]
    assert elements.text.split()[:2] == [url, address]


@pytest.mark.parametrize("value", ["javascript:alert(1)", " java\nscript:alert(1)", "DATA:text/html,x", "vbscript:x", "file:///etc/passwd"])
@pytest.mark.parametrize(
    "source",
    [
        "[x]({{ value }})",
        "[x]: {{ value }}\n\n[x]",
        "<a href='{{ value }}'>x</a>",
        "<a href={{ value }}>x</a>",
        "<a title='>' href='{{ value }}'>x</a>",
    ],
)
def test_a_value_as_an_address_runs_nothing(templates: Path, source: str, value: str) -> None:
    assert [each["href"] for each in of(source, templates, html=True, value=value).all("a")] == ["#"]


def test_a_value_in_an_attribute_stays_in_it(templates: Path) -> None:
    value = "\" onclick='x' <b> '"
    elements = of(
        '[x](https://a "{{ value }}") ![{{ value }}](https://a/)\n\n<p class="{{ value }}">x</p>', templates, html=True, value=value
    )
    assert elements.all("a") == [{"href": "https://a", "title": value}]
    assert elements.all("img") == [{"src": "https://a/", "alt": value}]
    assert {"class": value} in elements.all("p")
    assert of("<b title=\"'{{ value }}'\">x</b>", templates, html=True, value="a").all("b") == [{"title": "'a'"}]
    assert of("<b {{ value }}>x</b>", templates, html=True, value="onclick=x").all("b") == [{}]


def test_a_value_names_no_file(templates: Path) -> None:
    write(templates, "text.md", "![x]({{ value }})")
    for value in ("logo.png", "../secret.png", "/etc/passwd"):
        msg = HtmlMail().respond({"value": value}, "text.md")
        assert msg.attachments == []
        assert Elements(msg.Html).all("img")[0]["src"] == "#"


def test_values_in_the_shell_are_escaped_whatever_its_name(templates: Path) -> None:
    write(templates, "shell.tmpl", "<body title='{{ name }}'>{{ content }}{{ name }}</body>")
    page = HtmlMail(None, "shell.tmpl").render({"name": "'<script>", "place": ""}, "hello.md")
    assert Elements(page).all("script") == []
    assert Elements(page).all("body") == [{"title": "'<script>"}]


def test_a_value_in_the_style_sheet_ends_no_element(templates: Path) -> None:
    page = HtmlMail("style.css", "shell.html", {"title": ""}).render(
        {"colour": "red } </style><script>alert(1)</script> { ", "name": "", "place": ""}, "hello.md"
    )
    assert "script" not in [tag for tag, _ in Elements(page).found]


def test_a_strangers_place_in_a_header_is_left(templates: Path) -> None:
    message = MailRequest(None, "joe@example.com", "a@example.com", b"Subject: %(secret)s\r\n\r\nHi")
    variables = {"message": message, "subject": message["Subject"], "secret": "sesame", "name": "", "place": ""}
    msg = HtmlMail().respond(variables, "hello.md", Subject=f"Re: {message['Subject']}")
    assert msg["Subject"] == "Re: %(secret)s"


@given(st.text(st.one_of(st.sampled_from("[]()<>!*_`~#|-&;:{}%\\ \n\r\t\ud800\0"), st.characters()), min_size=1))
def test_any_value_is_shown_as_it_is(value: str) -> None:
    templates = {"text.md": "**{{ value }}** [x]({{ value }}) `{{ value }}`", "shell": "<body>{{ content }}</body>"}
    before, view.LOADER = view.LOADER, jinja2.Environment(loader=jinja2.DictLoader(templates))
    try:
        elements = Elements(HtmlMail(None, "shell").render({"value": value}, "text.md"))
    finally:
        view.LOADER = before
    assert [tag for tag, _ in elements.found if tag not in ("html", "head", "body", "br")] == ["p", "strong", "a", "code"]


def test_a_long_value_takes_no_longer_than_it_is_long(templates: Path) -> None:
    value = "<a 'b' \"c\" > *d*\n" * 20_000  # half a megabyte

    def render() -> None:
        elements = of("> {{ value }}\n\n[x](/x '{{ value }}') <p {{ value }}>", templates, html=True, value=value)
        assert elements.text.count("*d*") == 20_000

    assert_costs_less(5, render)  # one second, mostly for the test's own parser


# -- errors


def test_errors_name_the_template(templates: Path) -> None:
    mail = HtmlMail(None, "shell.html", {"title": ""})
    with pytest.raises(ViewError, match=r"no template nowhere\.md"):
        mail.render({}, "nowhere.md")
    with pytest.raises(ViewError, match=r"hello\.md cannot be rendered: 'name' is undefined"):
        mail.render({}, "hello.md")
    with pytest.raises(ViewError, match=r"shell\.html cannot be rendered: 'title' is undefined"):
        HtmlMail(None, "shell.html").render({"name": "", "place": ""}, "hello.md")
    with pytest.raises(ViewError, match=r"style\.css cannot be rendered: 'colour' is undefined"):
        HtmlMail("style.css").render({"name": "", "place": ""}, "hello.md")


def test_a_loader_that_cannot_escape_is_refused(templates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loader:
        def get_template(self, name: str) -> jinja2.Template:
            return jinja2.Template("x")

    monkeypatch.setattr(view, "LOADER", Loader())
    with pytest.raises(ViewError, match=r"hello\.md cannot be used for HTML, as view\.LOADER is no Jinja2 environment"):
        HtmlMail().render({}, "hello.md")


# -- images


def test_images_that_text_and_shell_name_come_with_the_message(templates: Path) -> None:
    (templates / "img").mkdir()
    (templates / "img" / "a b.png").write_bytes(PIXEL + b"x")
    write(templates, "text.md", "![Logo](logo.png) ![Again](./logo.png) ![Other](img/a%20b.png) ![Far](https://a/x.png) ![Given](cid:own)")
    write(templates, "shell.html", '<body><img src="logo.png" alt="a > b" width=10>{{ content }}</body>')
    mail = HtmlMail(None, "shell.html")
    msg = mail.respond({}, "text.md", To="joe@example.com")
    sources = [each["src"] for each in Elements(msg.Html).all("img")]
    logo, _, _, other, far, own = sources
    assert sources[:3] == [logo] * 3
    assert (far, own) == ("https://a/x.png", "cid:own")
    received = MailRequest(None, None, None, bytes(msg)).attachments
    assert [(f"cid:{each.content_id}", each.name, each.type, each.data, each.inline) for each in received] == [
        (logo, "logo.png", "image/png", PIXEL, True),
        (other, "a b.png", "image/png", PIXEL + b"x", True),
    ]
    assert list(parts(msg)) == ["text/plain", "multipart/related", "text/html", "image/png"]
    assert Elements(mail.render({}, "text.md")).all("img")[0]["src"] == "logo.png"


def test_images_of_another_folder(templates: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "sun.png").write_bytes(PIXEL)
    write(templates, "text.md", "![Sun](sun.png)")
    assert len(HtmlMail(images=tmp_path / "pictures").respond({}, "text.md").attachments) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone.png", r"There is no image 'gone\.png' in .*templates\."),
        ("../secret.png", r"There is no image '\.\./secret\.png' in "),
        ("link.png", r"There is no image 'link\.png' in "),
        ("/etc/passwd", r"There is no image '/etc/passwd' in "),
        ("hello.md", r"'hello\.md' cannot be shown as an image"),
    ],
)
def test_what_is_no_image_of_the_folder_is_refused(templates: Path, name: str, says: str) -> None:
    (templates.parent / "secret.png").write_bytes(PIXEL)
    (templates / "link.png").symlink_to(templates.parent / "secret.png")
    write(templates, "text.md", f"![x]({name})")
    with pytest.raises(ViewError, match=says):
        HtmlMail().respond({}, "text.md")


def test_images_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "LOADER", jinja2.Environment(loader=jinja2.DictLoader({"text.md": "![x](logo.png)"})))
    with pytest.raises(ViewError, match=r"There is no image 'logo\.png' anywhere: give HtmlMail the folder, images="):
        HtmlMail().respond({}, "text.md")


# -- styles


def styled(css: str, body: str, folder: Path, head: str = "") -> str:
    write(folder, "style.css", css)
    write(folder, "shell.html", f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")
    write(folder, "text.md", "")
    return HtmlMail("style.css", "shell.html").render({}, "text.md")


@pytest.mark.parametrize(
    ("css", "element", "style"),
    [
        ("p { color: red } p { color: blue }", "<p>", "color: blue"),
        ("p { color: red } p { margin: 1px }", "<p>", "color: red; margin: 1px"),
        (".a { color: red } p { color: blue; margin: 0 }", "<p class=a>", "margin: 0; color: red"),
        ("#x { color: red } .a.b { color: blue } p { color: green }", "<p id=x class='a b'>", "color: red"),
        ("p { color: red !important } .a { color: blue }", "<p class=a>", "color: red !important"),
        ("p { color: red }", "<p style='color: blue; margin: 0'>", "color: blue; margin: 0"),
        ("p { color: red !important }", "<p style='color: blue; margin: 0'>", "margin: 0; color: red !important"),
        ("p { color: red !important }", "<p style='color: blue !important'>", "color: blue !important"),
        ("p { margin-left: 1px; margin: 2px }", "<p>", "margin-left: 1px; margin: 2px"),
        ("p { margin-left: 1px } p { margin: 2px } p { margin-left: 3px }", "<p>", "margin: 2px; margin-left: 3px"),
        ("p { border: 0; margin: 0 } p { border-left: 1px } p { border: 2px }", "<p>", "margin: 0; border-left: 1px; border: 2px"),
        ("p { color: #fff; color: rgba(1, 2, 3, .5) }", "<p>", "color: #fff; color: rgba(1, 2, 3, .5)"),
        (
            'P { COLOR: Red; background: url("a;b.png"); font-family: \'A\', "B" }',
            "<p>",
            'color: Red; background: url("a;b.png"); font-family: "A", "B"',
        ),
        ("/* p */ div > p, .none { color: red } body p:not(.b) { margin: 0 }", "<p>", "margin: 0"),
        ("p { color: red; ; nonsense } } q { x", "<p>", "color: red"),
    ],
)
def test_all_rules_that_match_in_the_order_of_css(templates: Path, css: str, element: str, style: str) -> None:
    (found,) = Elements(styled(css, f"{element}x</p>", templates)).all("p")
    assert found["style"] == style


def test_what_no_attribute_can_say_stays_and_wins(templates: Path) -> None:
    css = """
        a { color: red } a:hover { color: blue; color: green !important; color: teal }
        @media (max-width: 480px) { a, .none { color: black } @supports (display: grid) { p { margin: 0 } } }
        @font-face { font-family: X; src: url(https://example.com/x) }
        p::before { content: ";}" }
    """
    page = styled(css, "<p><a href=x>x</a></p>", templates)
    assert Elements(page).all("a") == [{"href": "x", "style": "color: red"}]
    kept = " ".join(page.split("<style>")[1].split("</style>")[0].split())
    assert "a:hover { color: blue !important; color: teal !important; color: green !important; }" in kept
    assert (
        "@media (max-width: 480px) { a, .none { color: black !important; } @supports (display: grid) { p { margin: 0 !important; } } }"
        in kept
    )
    assert "@font-face { font-family: X; src: url(https://example.com/x) }" in kept
    assert 'p::before { content: ";}" !important; }' in kept
    assert "--lamson" not in page


def test_style_elements_of_the_shell(templates: Path) -> None:
    used = "<style type='text/css'>b { margin: 9px }</style><style>p { color: red; margin: 0 }</style>"
    comment = "<!--[if mso]><style>p { color: green }</style><![endif]-->"
    keep = '<style data-css-inline="ignore">p { width: 1px }</style>'
    page = styled("p { color: blue }", "<p>x</p>", templates, used + comment + keep)
    assert Elements(page).all("p") == [{"style": "margin: 0; color: blue"}]
    assert comment in page
    assert keep in page


def test_a_head_that_a_comment_ends(templates: Path) -> None:
    write(templates, "style.css", "p { color: red }")
    write(templates, "shell.html", "<!-- no </head> here --><head></head><body>{{ content }}</body>")
    page = HtmlMail("style.css", "shell.html").render({"name": "Joe", "place": "x"}, "hello.md")
    assert Elements(page).all("p") == [{"style": "color: red"}]


def test_a_shell_without_a_head(templates: Path) -> None:
    write(templates, "style.css", "p { color: red }")
    write(templates, "bare.html", "{{ content }}")
    page = HtmlMail("style.css", "bare.html").render({"name": "Joe", "place": "x"}, "hello.md")
    assert Elements(page).all("p") == [{"style": "color: red"}]


# -- showing what others wrote

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' &#1;java\nscript:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='/logout'>x</a><a href='//evil.example'>x</a>",
    "<form action=https://evil.example><input name=password><button>Go</button></form>",
    "<object data=x></object><embed src=x><applet code=x></applet>",
    "<link rel=stylesheet href=https://evil.example/x.css><style>@import 'https://evil.example'</style>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'><base href=https://evil.example>",
    "<p style='background:url(https://evil.example/x)'>x</p>",
    "<p style='background-color:red;background-image:u\\72l(https://evil.example/x)'>x</p>",
    "<p style='color:var(--x);width:calc(1px);position:fixed;margin-top:-90px;text-indent:-9em'>x</p>",
    "<p style='color:expression(alert(1))'>x</p>",
    "<p style='font-family:url(https://evil.example/x);list-style-type:url(x)'>x</p>",
    "<table background=https://evil.example/x><tr><td background=https://evil.example/x>x</td></tr></table>",
    "<img src=https://evil.example/pixel.gif><img srcset=https://evil.example/x><img lowsrc=https://evil.example/x>",
    "<img src=//evil.example/x><img src=/logout><img src='data:image/svg+xml,<svg onload=alert(1)>'>",
    "<img src=file:///etc/passwd><img dynsrc=https://evil.example/x>",
    "<video src=https://evil.example/x poster=https://evil.example/x></video><audio src=https://evil.example/x></audio>",
    "<div id=main class=admin name=x onclick=alert(1)>x</div>",
    "<details open ontoggle=alert(1)>x</details>",
    "<a target=_top rel=opener ping=https://evil.example href=https://example.com>x</a>",
    "<template><img src=x onerror=alert(1)></template>",
    "<title><img src=x onerror=alert(1)></title><textarea><img src=x onerror=alert(1)></textarea>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<<script>alert(1)//<</script>",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_nothing_hostile_is_left(source: str) -> None:
    for tag, attributes in Elements(sanitise(source)).found:
        assert tag in {"p", "a", "img", "table", "tbody", "tr", "td", "div"}
        assert set(attributes) <= {"href", "target", "rel", "title", "style"}
        assert attributes.get("href", "https://example.com") == "https://example.com"
        assert attributes.get("style") in (None, "background-color:red")
    assert "alert(1)//" not in sanitise(source).replace("&lt;", "")


def test_what_looks_good_stays() -> None:
    style = "PADDING: 4px 8px; color: rgb(1, 2, 3) !important; FONT: bold 12px 'Arial'"
    source = (
        f'<table width="100%" bgcolor="#eee"><tr><td align="center" style="{style}">'
        "<font color=red size=2>Hello</font><br><b>you</b></td></tr></table>"
    )
    elements = Elements(sanitise(source))
    assert elements.all("table") == [{"width": "100%", "bgcolor": "#eee"}]
    (cell,) = elements.all("td")
    assert cell["align"] == "center"
    assert re.sub(r"\s", "", (cell["style"] or "").lower()) == 'padding:4px8px;color:rgb(1,2,3)!important;font:bold12px"arial"'
    assert elements.all("font") == [{"color": "red", "size": "2"}]
    assert elements.text == "Helloyou"


@pytest.mark.parametrize("address", ["https://example.com/a?b=1&c=2", "HTTP://example.com", "mailto:joe@example.com", "tel:+441234"])
def test_links_are_safe_to_follow(address: str) -> None:
    (link,) = Elements(sanitise(f'<a href="{address.replace("&", "&amp;")}" rel="opener">x</a>')).all("a")
    assert link == {"href": address, "target": "_blank", "rel": "noopener noreferrer nofollow"}


def test_images_that_came_with_the_message_are_asked_for() -> None:
    source = '<img src="cid:logo%40x" alt="Logo"><img src="CID:gone" alt="Gone"><p>src="cid:logo%40x"</p>'
    asked: list[str] = []

    def image(content_id: str) -> str | None:
        asked.append(content_id)
        return {"logo@x": '/mail/1/logo?a=1&b="'}.get(content_id)

    elements = Elements(sanitise(source, image))
    assert elements.all("img") == [{"src": '/mail/1/logo?a=1&b="', "alt": "Logo"}, {"alt": "Gone"}]
    assert elements.text == 'src="cid:logo%40x"'
    assert sorted(asked) == ["gone", "logo@x"]
    assert Elements(sanitise(source)).all("img") == [{"alt": "Logo"}, {"alt": "Gone"}]


def test_what_goes_wrong_in_the_callers_function_reaches_the_caller() -> None:
    def image(content_id: str) -> str:
        raise LookupError(content_id)

    with pytest.raises(LookupError, match="logo"):
        sanitise('<img src="cid:logo">', image)


def test_remote_images_are_shown_when_asked_for() -> None:
    source = '<img src="https://example.com/a.png"><img src="data:image/png;base64,AAAA"><img src="ftp://example.com/x"><img src="/x">'
    assert [each.get("src") for each in Elements(sanitise(source)).all("img")] == [None, "data:image/png;base64,AAAA", None, None]
    shown = [each.get("src") for each in Elements(sanitise(source, remote=True)).all("img")]
    assert shown == ["https://example.com/a.png", "data:image/png;base64,AAAA", None, None]


@given(st.text(st.one_of(st.sampled_from("<>/=\"'&;:!- abips\n\t\ud800\0"), st.characters())))
@example("<p style='color:\ud800'>")
def test_any_text_is_sanitised_and_again_the_same(source: str) -> None:
    once = sanitise(source)
    once.encode()
    assert sanitise(once) == once


BOMBS = {
    "deep": "<div>" * 200_000,
    "as deep as may be": "<div>" * 9_900,
    "fonts that every paragraph repeats": "".join(f"<font color=c{n}>" for n in range(500)) + "<p>x" * 190_000,
    "lists and definitions": "<dd><li>" * 100_000,
    "closed where it does not count": "<div><table></div>" * 50_000,
    "signs": "<" * 500_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end(name: str) -> None:
    assert_costs_less(5, lambda: sanitise(BOMBS[name]))  # the first took 40 seconds without a limit


def test_what_is_nested_too_deeply_is_shown_as_text() -> None:
    assert re.sub(r"\s+", " ", sanitise("<div>" * 20_000 + "Dear & friend <script")) == "<p> Dear &amp; friend &lt;script</p>"


@pytest.mark.parametrize(
    "piece",
    [
        '<div title="</div>">',
        "<div><!--</div>-->",
        "<span><p></span></p>",
        "<span><div></span></div>",
        "<p-x>",
        "<svg><td>",
    ],
)
def test_what_seems_to_be_closed_is_nested_all_the_same(piece: str) -> None:
    assert re.findall("<[^>]*>", sanitise(piece * 20_000 + "deep")) == ["<p>", "</p>"], "shown as text"


@pytest.mark.parametrize("opened", ["(", "[", "{", "rgb("])
def test_a_colour_holds_nothing_nested(opened: str) -> None:
    """What fails while a style is read is printed with it, and takes long; pytest makes that an error."""
    closed = {"[": "]", "{": "}"}.get(opened, ")")
    style = f"width:1px;color:rgb({opened * 2_000}1{closed * 2_000})"
    assert sanitise(f'<p style="{style}">x</p>') == '<p style="width:1px">x</p>'


def test_formatting_that_is_opened_again_and_again_does_not_multiply() -> None:
    source = "<p>" + "".join(f"<b title={number}>" for number in range(3_000)) + "</p>" + "<p>x</p>" * 3_000
    cleaned = sanitise(source)
    assert cleaned.count("<p>x</p>") == 3_000
    assert len(cleaned) < 2 * len(source)


def test_a_long_well_nested_page_is_what_it_was() -> None:
    item = '<p><b>Item</b> <a href="https://lamson.example/">one <i title="&lt;b&gt;">two</i></a> <font color="red">three</font></p>'
    assert sanitise(item * 500) == sanitise(item) * 500
    assert re.findall(r"<(\w+)", sanitise(item)) == ["p", "b", "a", "i", "font"]


def test_a_long_flat_newsletter_is_not_nested() -> None:
    row = "<tr><td><p><b>Item</b><br>text<li>one"
    assert sanitise(f"<table>{row * 3_000}</table>").count("<b>") == 3_000


# -- without the packages


@pytest.mark.parametrize("package", ["css_inline", "markdown_it", "nh3", "tinycss2"])
def test_without_the_extra_a_sentence_names_it(package: str) -> None:
    program = textwrap.dedent(f"""
        import sys
        sys.modules[{package!r}] = None  # as if it were not installed
        from lamson import errors, html
        for use in (lambda: html.markdown("x"), lambda: html.sanitise("x"), lambda: html.HtmlMail("a.css", "a.html")):
            try:
                use()
            except errors.ConfigError as error:
                print(error)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"lamson.html needs the package {package}, which is not installed: pip install 'lamson[html]'.\n" * 3
