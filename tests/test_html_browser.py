"""HTML mail as a browser shows it: the styles that its elements end up with, and that received mail runs nothing and fetches nothing."""

from __future__ import annotations

import html
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jinja2
import pytest

from lamson import view
from lamson.html import HtmlMail, markdown, sanitise
from tests.browser import DARK, ask, frame
from tests.test_html import HOSTILE

pytestmark = pytest.mark.program("chromium")

# -- the order of CSS

#: Properties that overlap, with values that differ.
VALUES = {
    "margin": ["1px", "2px 3px", "4px auto"],
    "margin-left": ["7px"],
    "margin-top": ["8px"],
    "padding": ["1px", "2px 4px"],
    "padding-right": ["9px"],
    "border": ["1px solid red", "0"],
    "border-left": ["3px dashed blue"],
    "border-left-color": ["green"],
    "border-color": ["#123"],
    "border-width": ["2px 3px"],
    "border-style": ["dotted"],
    "background": ["red", "url(data:image/png;base64,AA==) no-repeat 1px 2px"],
    "background-color": ["yellow"],
    "color": ["red", "#00f", "rgb(1, 2, 3)"],
    "font": ["bold 12px serif", "italic 14px/1.5 'A B', sans-serif"],
    "font-size": ["20px"],
    "font-weight": ["300"],
    "line-height": ["2"],
    "list-style": ["square"],
    "text-decoration": ["underline"],
}
SELECTORS = [
    *("*", "p", "div", "span", ".a", ".b", "#x", "p.a", ".a.b", "div p", "div > p", "p + p", "body .b", "p:first-child", "[title]"),
    *("p:not(.a)", "p, .b", "div .a, #x", "p span", "p:nth-child(2)", "body", "body p.b"),
]


def declarations(dice: random.Random) -> str:
    names = dice.choices(list(VALUES), k=dice.randint(1, 5))
    return "; ".join(f"{name}: {dice.choice(VALUES[name])}{' !important' if dice.random() < 0.2 else ''}" for name in names)


def sheet_and_body(dice: random.Random) -> tuple[str, str]:
    def style() -> str:
        return f' style="{html.escape(declarations(dice))}"' if dice.random() < 0.3 else ""

    sheet = "\n".join(f"{dice.choice(SELECTORS)} {{ {declarations(dice)} }}" for _ in range(dice.randint(2, 8)))
    first = f'<div{style()}><p class="a"{style()}>one <span class="b"{style()}>x</span></p><p class="a b" id="x"{style()}>two</p></div>'
    return sheet, f'{first}<p class="b" title="t"{style()}>three <span>y</span></p>'


#: Compares each second frame with the one before: every computed property of every element.
COMPARE = """<script>onload = () => {
    const frames = [...document.querySelectorAll("iframe")], wrong = []
    for (let n = 0; n < frames.length; n += 2) {
        const [theirs, ours] = [frames[n], frames[n + 1]].map(f => [...f.contentDocument.querySelectorAll("body, body *")])
        if (theirs.length !== ours.length || !theirs.length) wrong.push([n / 2, "elements"])
        theirs.forEach((element, i) => {
            const a = frames[n].contentWindow.getComputedStyle(element), b = frames[n + 1].contentWindow.getComputedStyle(ours[i])
            for (const name of a)
                if (a.getPropertyValue(name) !== b.getPropertyValue(name))
                    wrong.push([n / 2, element.outerHTML, name, a.getPropertyValue(name), b.getPropertyValue(name)])
        })
    }
    answer({compared: frames.length / 2, wrong: wrong.slice(0, 5)})
}</script>"""


def test_inlined_styles_are_what_the_sheet_would_have_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(1)  # the same each time
    cases = [sheet_and_body(dice) for _ in range(60)]
    templates = {
        "shell.html": "<!doctype html><head></head><body>{{ body|safe }}{{ content }}</body>",
        "style.css": "{{ css }}",
        "text.md": "",
    }
    monkeypatch.setattr(view, "LOADER", jinja2.Environment(loader=jinja2.DictLoader(templates)))
    mail = HtmlMail("style.css", "shell.html")
    pairs = []
    for css, body in cases:
        theirs = f"<!doctype html><head><style>{css}</style></head><body>{body}</body>"
        pairs += [frame(theirs), frame(mail.render({"css": css, "body": body}, "text.md"))]
    found = ask(tmp_path, "".join(pairs) + COMPARE)
    assert found["compared"] == len(cases)
    assert [(*cases[wrong[0]], wrong) for wrong in found["wrong"]] == []


# -- the shell

TEXT = """# Hello {{ name }}

Some `code` and a [link](https://example.com), a_very_long_word_{{ "x" * 200 }}

> quoted

| Item | Price |
|------|------:|
| Tea  | 3.50  |
"""

#: How wide the page is and would like to be, and for some elements what colours they have, and how that contrasts (WCAG 2.1 §1.4.3).
LOOK = """<script>onload = () => {
    const numbers = colour => colour.match(/[0-9.]+/g).map(Number)
    const light = colour => numbers(colour).slice(0, 3).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)
    const found = {}
    for (const frame of document.querySelectorAll("iframe")) {
        const page = frame.contentDocument, style = e => frame.contentWindow.getComputedStyle(e)
        const under = e => numbers(style(e).backgroundColor)[3] === 0 ? under(e.parentElement) : style(e).backgroundColor
        const contrasts = [...page.querySelectorAll("h1, p, code, a, th, td, blockquote p, .footer")].map(e => {
            const [a, b] = [light(style(e).color), light(under(e))].sort()
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
        })
        found[frame.name] = {
            overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
            sheet: page.querySelector(".sheet").getBoundingClientRect().width, page: style(page.body).backgroundColor,
            h1: style(page.querySelector("h1")).fontSize, padding: style(page.querySelector(".content")).paddingLeft,
            price: style(page.querySelector("td + td, tr td:last-child:not(.content)")).textAlign,
            preheader: style(page.querySelector(".preheader")).display, contrast: Math.min(...contrasts), seen: contrasts.length,
        }
    }
    answer(found)
}</script>"""


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The shell that comes with Lamson, on a desk and a phone, looked at in the light (False) or in the dark (True)."""
    monkeypatch.setattr(view, "LOADER", jinja2.Environment(loader=jinja2.DictLoader({"text.md": TEXT})))
    page = HtmlMail(variables={"footer": "Example", "preheader": "In short"}).render({"name": "Joe"}, "text.md")
    both = frame(page, 900, "desk") + frame(page, 375, "phone")
    return lambda dark: ask(tmp_path, both + LOOK, *([DARK] if dark else []))


@pytest.mark.parametrize("dark", [False, True])
def test_the_shell_on_a_desk_and_on_a_phone(looks: Any, dark: bool) -> None:
    found = looks(dark)
    desk, phone = found["desk"], found["phone"]
    assert desk["page"] == ("rgb(13, 17, 23)" if dark else "rgb(243, 244, 246)")
    assert (desk["sheet"], desk["h1"], desk["padding"]) == (600, "26px", "32px")
    assert (phone["sheet"], phone["h1"], phone["padding"]) == (375, "23px", "18px")
    for each in (desk, phone):
        assert each["overflow"] == 0
        assert each["seen"] >= 10
        assert each["contrast"] >= 4.5
        assert each["preheader"] == "none"


# -- what others wrote


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A web server that remembers what it was asked for: its address, and the paths."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_received_mail_runs_nothing_and_fetches_nothing(tmp_path: Path, elsewhere: tuple[str, list[str]]) -> None:
    address, asked = elsewhere
    hostile = [each.replace("https://evil.example", address).replace("//evil.example", address[5:]) for each in HOSTILE]
    hostile.append(markdown(f"![x]({address}/x)\n\n<script>alert(1)</script>"))
    shown = "".join(f"<div>{sanitise(each)}</div>" for each in hostile)
    seen = "<script>alert = () => { ran = true }; onload = () => answer({ran: window.ran || false})</script>"
    assert ask(tmp_path, seen + shown) == {"ran": False}
    assert asked == []
    # The same without the sanitiser, to see that this would be seen.
    assert ask(tmp_path, seen + f"<img src='{address}/raw' onerror=alert(1)>") == {"ran": True}
    assert asked == ["/raw"]
