"""The pages become a site without a warning, and every command, setting and public name has its place in them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests import browser
from tests.conftest import IN_CI
from tests.test_docs import ROOT
from tests.test_public_names import NAMES, resolve

GUIDES = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}


@dataclass(frozen=True)
class Site:
    folder: Path
    warnings: str

    def page(self, name: str) -> str:
        return (self.folder / f"{name}.html").read_text("utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """All pages, built once."""
    if importlib.util.find_spec("furo") is None:
        (pytest.fail if IN_CI else pytest.skip)("needs the extra docs: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run([sys.executable, "-m", "sphinx", "-q", ROOT / "docs", folder], capture_output=True, text=True, timeout=100)
    assert built.returncode == 0, built.stderr
    return Site(folder, built.stderr)


def test_nothing_is_warned_of(site: Site) -> None:
    assert site.warnings == ""


def test_every_page_is_in_it(site: Site) -> None:
    assert {path.stem for path in site.folder.glob("*.html")} >= set(GUIDES)


def test_pictures_are_in_it(site: Site) -> None:
    shown = {Path(name).name for text in GUIDES.values() for name in re.findall(r"\]\((pictures/[^)]+)\)", text)}
    assert {path.name for path in (site.folder / "_images").glob("*")} >= shown


#: What the browser is asked of each page: does it stick out of its frame, and which pictures could not be shown.
LOOK = """
<script>
function look(frame) {
  const page = frame.contentDocument
  const broken = [...page.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src)
  const sticks_out = page.documentElement.scrollWidth > frame.clientWidth
  return sticks_out || broken.length ? [[frame.name, frame.clientWidth, sticks_out, broken]] : []
}
window.onload = () => answer([...document.querySelectorAll("iframe")].flatMap(look))
</script>
"""


@pytest.mark.program("chromium")
def test_pages_fit_a_phone_and_a_desk(site: Site, tmp_path: Path) -> None:
    frames = [
        f'<iframe name="{name}" src="{(site.folder / name).as_uri()}.html" width={width} height=800></iframe>'
        for name in sorted(GUIDES)
        for width in (390, 1280)
    ]
    assert browser.ask(tmp_path, LOOK + "".join(frames), "--allow-file-access-from-files") == []


def test_the_page_of_the_commands_is_what_the_commands_say() -> None:
    script = load(ROOT / "scripts" / "write_commands.py")
    assert script.page() == GUIDES["commands"], "run: python scripts/write_commands.py"


@pytest.mark.parametrize("module", NAMES)
def test_every_public_name_has_its_place(module: str, site: Site) -> None:
    """In the API, where it lives or where it is imported from; or a guide speaks of it."""
    anchors = set(re.findall(r'id="(lamson\.[\w.]+)"', site.page("api")))
    said = set(re.findall(r"\w+", " ".join(code for text in GUIDES.values() for code in re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL))))
    missing = [name for name in NAMES[module].split() if not places(module, name) & anchors and name.rpartition(".")[2] not in said]
    assert missing == []


def places(module: str, name: str) -> set[str]:
    """Where this may be documented: under the name that one imports, and where it is defined."""
    if module.startswith("lamson.handlers."):  # importing one registers its route
        return {f"{module}.{name}"}
    try:
        thing = resolve(f"{module}.{name}")
    except AttributeError:  # made with each instance
        return {f"{module}.{name}"}
    return {f"{module}.{name}", f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
