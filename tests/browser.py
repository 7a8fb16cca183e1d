"""A page in a real browser: Chromium without a window."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import find_program

#: No window, no updates, no calls home; and nothing shared with a browser that somebody uses on this machine.
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--disable-dev-shm-usage"),
)
DARK = "--blink-settings=preferredColorScheme=0"


def ask(folder: Path, page: str, *options: str, at: str | None = None) -> Any:
    """Loads the page and gives back what its script, once all is loaded, called `answer()` with. `at`: where the folder is served."""
    program = find_program("chromium")
    script = "<script>function answer(value) { document.title = 'answer:' + JSON.stringify(value) }</script>"
    file = folder / "page.html"
    file.write_text(f"<!doctype html><meta charset=utf-8>{script}{page}", "utf-8")
    done = subprocess.run(
        [program, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *options, "--dump-dom", f"{at}page.html" if at else file.as_uri()],
        capture_output=True,
        timeout=100,
        check=True,
    )
    found = re.search(r"<title>answer:(.*?)</title>", done.stdout.decode(), re.DOTALL)
    assert found, f"the page's script gave no answer; Chromium said {done.stderr.decode()[-2000:]}"
    return json.loads(html.unescape(found[1]))


def frame(document: str, width: int = 600, name: str = "") -> str:
    """A document in a frame, whose own scripts would run in the page's name if it had any."""
    return f'<iframe name="{name}" width={width} height=800 srcdoc="{html.escape(document)}"></iframe>'
