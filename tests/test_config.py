"""What is wrong with a project is one sentence with the place and the remedy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamson import config
from lamson.errors import ConfigError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project, and a Python that has imported none before and none afterwards."""
    write(tmp_path / "config" / "__init__.py", "")
    write(tmp_path / "config" / "settings.py", "here = 1\n")
    write(tmp_path / "config" / "boot.py", "from config import settings\nsettings.there = 2\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("config", "app")]:
        del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def told(project: Path, boot_module: str = "config.boot") -> str:
    with pytest.raises(ConfigError) as raised:
        config.import_settings(True, str(project), boot_module)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_settings_alone(project: Path) -> None:
    settings = config.import_settings(False, str(project))
    assert settings.here == 1
    assert not hasattr(settings, "there")


def test_boot_puts_services_into_the_settings(project: Path) -> None:
    assert config.import_settings(True, str(project)).there == 2


def test_another_boot_module(project: Path) -> None:
    write(project / "config" / "other.py", "from config import settings\nsettings.there = 3\n")
    assert config.import_settings(True, str(project), "config.other").there == 3


def test_the_working_directory_is_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert config.import_settings(False).here == 1


def test_no_project(tmp_path: Path) -> None:
    sentence = told(tmp_path)
    assert f"no project in {tmp_path}" in sentence
    assert "lamson gen -project NAME" in sentence


def test_a_setting_that_raises(project: Path) -> None:
    write(project / "config" / "settings.py", "\nhere = 1 / 0\n")
    assert told(project).startswith("config/settings.py, line 2: ZeroDivisionError: division by zero.")


def test_a_setting_that_is_no_python(project: Path) -> None:
    write(project / "config" / "settings.py", "here = 1\nthere = = 2\n")
    assert told(project).startswith("config/settings.py, line 2: SyntaxError: invalid syntax")


def test_a_handler_that_does_not_import_is_named_with_its_own_line(project: Path) -> None:
    write(project / "app" / "__init__.py", "")
    write(project / "app" / "sample.py", "import os\n\nimport no_such_module_anywhere\n")
    write(project / "config" / "boot.py", "import importlib\nimportlib.import_module('app.sample')\n")
    sentence = told(project)
    assert sentence.startswith("app/sample.py, line 3: ModuleNotFoundError: No module named 'no_such_module_anywhere'. ")
    assert f"install it for {sys.executable}" in sentence


def test_a_handler_that_is_not_there_is_blamed_on_the_boot(project: Path) -> None:
    write(project / "config" / "boot.py", "import importlib\nimportlib.import_module('app.nothing')\n")
    assert told(project).startswith("config/boot.py, line 2: ModuleNotFoundError")


def test_a_setting_that_boot_did_not_set(project: Path) -> None:
    write(project / "config" / "boot.py", "from config.settings import relay\n")
    sentence = told(project)
    assert sentence.startswith("config/boot.py, line 1: ImportError: cannot import name 'relay'")
    assert sentence.endswith(" or before Router.load in config/boot.py and, for tests, in config/testing.py")


def test_a_setting_that_is_gone(project: Path) -> None:
    write(project / "config" / "boot.py", "from config import settings\nsettings.handlers\n")
    sentence = told(project)
    assert sentence.startswith("config/boot.py, line 2: AttributeError: module 'config.settings' has no attribute 'handlers'. ")
    assert "Set it in config/settings.py" in sentence


def test_an_attribute_of_something_else_is_no_setting(project: Path) -> None:
    write(project / "config" / "boot.py", "import json\njson.handlers\n")
    assert told(project).endswith("module 'json' has no attribute 'handlers'.")


def test_an_error_inside_a_library_is_blamed_on_the_line_that_called_it(project: Path) -> None:
    write(project / "config" / "boot.py", "import json\n\n\njson.loads('{')\n")
    assert told(project).startswith("config/boot.py, line 4: JSONDecodeError")


def test_our_own_errors_are_sentences_already(project: Path) -> None:
    write(project / "config" / "boot.py", "from lamson.errors import DatabaseError\nraise DatabaseError('it is full. Make room.')\n")
    assert told(project) == "config/boot.py, line 2: it is full. Make room."


def test_a_config_error_passes_as_it_is(project: Path) -> None:
    write(project / "config" / "boot.py", "from lamson.errors import ConfigError\nraise ConfigError('as it is')\n")
    assert told(project) == "as it is"


def test_a_boot_that_exits(project: Path) -> None:
    write(project / "config" / "boot.py", "import sys\nsys.exit('I give up')\n")
    assert told(project).startswith("config/boot.py, line 2: SystemExit: I give up")


def test_a_boot_module_that_is_not_there(project: Path) -> None:
    sentence = told(project, "config.nothing")
    assert sentence == f"There is no module config.nothing in {project}. Write config/nothing.py, or name another: -boot config.boot"


def test_two_projects_in_one_process(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    config.import_settings(False, str(project))
    other = tmp_path_factory.mktemp("other")
    write(other / "config" / "settings.py", "here = 2\n")
    assert f"not from {other}" in told(other)


def test_the_traceback_hangs_on_the_error(project: Path) -> None:
    write(project / "config" / "settings.py", "here = 1 / 0\n")
    with pytest.raises(ConfigError) as raised:
        config.import_settings(False, str(project))
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_importing_it_brings_nothing_heavy() -> None:
    program = "import sys, lamson.config, lamson.process; print([m for m in ('sqlalchemy', 'jinja2', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
