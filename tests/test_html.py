"""HTML mail, Markdown, and the HTML of others made safe to show."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamson.html import markdown, sanitise


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


def test_html_in_markdown_of_ones_own() -> None:
    assert markdown('<div class="box">\n\n*in it*\n\n</div>', html=True).startswith('<div class="box">\n<p><em>in it</em></p>')


@given(st.text(st.one_of(st.sampled_from("[]()<>!*_`~#|-&;:\\ \n\t\ud800\0"), st.characters())))
def test_markdown_takes_any_text(source: str) -> None:
    markdown(source).encode()


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
    before = time.process_time()
    sanitise(BOMBS[name])
    assert time.process_time() - before < 5  # seconds; 40 for the first without a limit


def test_what_is_nested_too_deeply_is_shown_as_text() -> None:
    assert re.sub(r"\s+", " ", sanitise("<div>" * 20_000 + "Dear & friend <script")) == "<p> Dear &amp; friend &lt;script</p>"


def test_a_long_flat_newsletter_is_not_nested() -> None:
    row = "<tr><td><p><b>Item</b><br>text<li>one"
    assert sanitise(f"<table>{row * 3_000}</table>").count("<b>") == 3_000


# -- without the packages


@pytest.mark.parametrize("use", ["html.markdown('x')", "html.sanitise('x')"])
@pytest.mark.parametrize("package", ["markdown_it", "nh3", "tinycss2"])
def test_without_the_extra_a_sentence_names_it(package: str, use: str) -> None:
    program = textwrap.dedent(f"""
        import sys
        sys.modules[{package!r}] = None  # as if it were not installed
        from lamson import errors, html
        try:
            {use}
        except errors.ConfigError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"lamson.html needs the package {package}, which is not installed: pip install 'lamson[html]'.\n"
