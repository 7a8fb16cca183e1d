"""`lamson gen` writes what is missing and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

import lamson as package
from tests.commands.conftest import Type

PROTOTYPE = Path(package.__file__).parent / "data" / "prototype"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def prototype_files() -> dict[str, bytes]:
    return {name: data for name, data in files_of(PROTOTYPE).items() if "__pycache__" not in name and ".pytest_cache" not in name}


def test_a_project_is_the_prototype(lamson: Type, run_folder: Path) -> None:
    done = lamson("gen", "-project", "mymailserver")
    assert done.status == 0
    assert "cd mymailserver" in done.out
    assert files_of(run_folder / "mymailserver") == prototype_files()


def test_what_the_contract_names_is_there(lamson: Type, run_folder: Path) -> None:
    lamson("gen", "-project", "mymailserver")
    wanted = """app/handlers/sample.py app/model app/templates app/data config/settings.py config/boot.py config/testing.py
        config/logging.conf config/test_logging.conf tests/handlers/open_relay_tests.py tests/model tests/templates
        logs run muttrc README pyproject.toml"""
    assert [path for path in wanted.split() if not (run_folder / "mymailserver" / path).exists()] == []
    for folder in (run_folder / "mymailserver" / "tests").rglob("*"):
        assert not folder.is_dir() or (folder / "__init__.py").is_file()


def test_a_directory_that_exists_is_left_alone(lamson: Type, run_folder: Path) -> None:
    Path("here").mkdir()
    done = lamson("gen", "-project", "here")
    assert done.status == 1
    assert done.err == "lamson gen: here exists. Choose another name, or fill what is missing in it: lamson gen -project here -FORCE\n"
    assert list(Path("here").iterdir()) == []


@pytest.mark.parametrize("words", [["-FORCE"], ["-FORCE", "True"], ["--FORCE"], ["-FORCE=True"]])
def test_force_fills_what_is_missing(lamson: Type, run_folder: Path, words: list[str]) -> None:
    lamson("gen", "-project", "here")
    Path("here/config/settings.py").write_text("mine = 1\n")
    Path("here/muttrc").unlink()
    done = lamson("gen", "-project", "here", *words)
    assert done.status == 0
    assert Path("here/config/settings.py").read_text() == "mine = 1\n"
    assert "Kept here/config/settings.py, which was there." in done.out
    assert Path("here/muttrc").is_file()


def test_force_off_is_no_force(lamson: Type, run_folder: Path) -> None:
    Path("here").mkdir()
    assert lamson("gen", "-project", "here", "-FORCE", "False").status == 1


UNSAFE = ["../up", "a/b", "/tmp/x", "..", ".", "", ".hidden", "-dash", "a b", "a\nb", "a\0b", "é", "x" * 101, "a;b"]


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_name_is_refused(lamson: Type, run_folder: Path, name: str) -> None:
    done = lamson("gen", "-project", name)
    assert done.status == 1
    assert "cannot be a project's name" in done.err
    assert sorted(path.name for path in run_folder.iterdir()) == ["logs", "run"]


def test_a_link_that_leads_nowhere_is_not_written_through(lamson: Type, run_folder: Path) -> None:
    Path("here").symlink_to("elsewhere")
    assert lamson("gen", "-project", "here").status == 1
    assert not Path("elsewhere").exists()
