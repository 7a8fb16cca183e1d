"""`benchmarks/corpus.py` on real mail: all of it is read, given back, and written so that it reads the same again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "benchmarks/corpus.py"

#: Messages of the corpus whose text holds octets of no charset, and why.
NO_TEXT = {
    "mime-bad-content-transfer-encoding.raw": "plain text that calls itself base64",
    "chardet-fail.raw": "a GIF that calls itself text",
    "00116.29e39a0064e2714681726ac28ff3fdef.eml": "octets of a damaged base64 that call themselves 8-bit text",
}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PROGRAM, folder, *options], capture_output=True, text=True, timeout=100)


def test_the_corpus_in_figures(corpus: Path) -> None:
    ran = run(corpus, "--no-times")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    passed = {line.split(" ..")[0]: line.split("..")[-1].split() for line in lines if " of " in line}
    messages = int(passed["read without exception"][-1])
    assert messages > 1_300
    text = passed.pop("text decoded without replacement characters")
    assert int(text[-3]) >= messages - len(NO_TEXT)
    assert [figures[-3] for figures in passed.values()] == [str(messages)] * 3, ran.stdout
    failures = [line.split(": ")[1] for line in lines if line.startswith("  ")]
    assert {Path(name).name for name in failures} <= NO_TEXT.keys()


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/1.host,S=5:2,").write_bytes(b"Subject: =?utf-8?q?=C3=A9?=\n\nbody \xe9\n")
    (tmp_path / "two.eml").write_bytes(b"Subject: x\n\n\xff\xfe\x81" * 3)
    (tmp_path / "README").write_text("no message")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    ran = run(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "read without exception ...........................      2 of 2" in ran.stdout
    assert "text decoded without replacement characters ......      1 of 2" in ran.stdout
    assert "two.eml: 8-bit text" in ran.stdout
    assert "email.policy.compat32" in ran.stdout
