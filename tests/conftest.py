"""Fixtures that every test may use, and the watch that no test leaves anything behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lamson.routing import Router, RoutingBase
from tests.leaks import Snapshot

#: Set by `.ci/run`: there a missing program is a failure and not a reason to skip.
IN_CI = "LAMSON_CI" in os.environ

# A busy machine is no failure of a property; what must be quick has a test that measures CPU time. CI asks the same examples each time,
# so that it fails for what was changed; `pytest --hypothesis-profile=long` asks twenty thousand new ones of each property.
settings.register_profile("lamson", deadline=None, derandomize=IN_CI)
settings.register_profile("long", deadline=None, max_examples=20_000, suppress_health_check=list(HealthCheck))
settings.load_profile("lamson")

#: Mail servers' programs lie here, and few people have it on their PATH.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fails a test that leaves a thread, a socket, or the default router changed."""
    before = Snapshot.take()
    yield
    left = before.left_since()
    if left:
        pytest.fail("This test left something behind: " + "; ".join(left), pytrace=False)


@pytest.fixture
def need_program() -> Callable[[str], str]:
    """`need_program("swaks")` gives the program's path; without it the test is skipped, and fails in CI."""
    return find_program


@pytest.fixture(autouse=True)
def _needs_its_programs(request: pytest.FixtureRequest) -> None:
    for marker in request.node.iter_markers("program"):
        for name in marker.args:
            find_program(name)


def find_program(name: str) -> str:
    """The program's path, looked for in the system folders too. Skips the test, or fails it in CI."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN]))
    if path is None:
        (pytest.fail if IN_CI else pytest.skip)(f"needs the program {name}, which is not installed")
    return str(path)


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory of the test's own, with `run/` and `logs/` in it."""
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def corpus() -> Path:
    """The folder of real mail beside the repository."""
    folder = Path(__file__).resolve().parent.parent.parent / "shared" / "corpus"
    if not folder.is_dir():
        pytest.skip(f"needs the collection of mail at {folder}, which is not there")
    return folder


@pytest.fixture
def router() -> RoutingBase:
    """A router of the test's own, with states in memory and no undeliverable queue."""
    return RoutingBase()


@pytest.fixture
def default_router() -> Iterator[RoutingBase]:
    """`lamson.routing.Router` as in a new process, and afterwards again what it was."""
    parts = vars(Router)
    before = {name: dict(part) if isinstance(part, dict) else part for name, part in parts.items()}
    parts.update(vars(RoutingBase()))
    yield Router
    parts.update(before)
