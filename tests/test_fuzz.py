"""The short form of `python -m tests.fuzz`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests import fuzz


@pytest.mark.parametrize("seed", ["1", "2"])
def test_damaged_mail_breaks_nothing(seed: str) -> None:
    fuzzer = fuzz.Fuzzer(fuzz.SEEDS, random.Random(seed))
    assert fuzzer.run(1.0) is None
    assert fuzzer.tried > 100


def test_what_breaks_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(data: bytes) -> None:
        raise ValueError("broken")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fuzz, "attempt", broken)
    assert fuzz.main(["5", str(tmp_path)]) == 1
    assert (tmp_path / "fuzz-failure.eml").exists()
    assert "broken" in capsys.readouterr().err
