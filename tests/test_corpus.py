"""`benchmarks/corpus.py` on real mail: all of it is read, given back, and written so that it reads the same again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from lamson.encoding import MailBase
from lamson.mail import MailRequest

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


# -- against what others read in the same messages

#: Messages in which mime4j reads other parts than we do, and why we do so.
OTHER_PARTS = {
    "basic-plain-with-bad-header-separator": "the body begins at the first line that is no header",
    "ending-boundaries": "a boundary with text behind it on its line is none",
    "malformedHeader-nocrlfcrlf": "the same",
    "malformedHeader-noheader": "text without headers is a body",
    "malformedHeaderStartsBody-nocrlfcrlf": "no line of it is lost",
    "malformedHeaderStartsBody-noheader": "text without headers is a body, to its end",
    "missing-boundary": "a multipart without its boundary is text",
    "missing-inner-boundary": "the same",
    "missing-inner-start-boundary": "the same",
    "multipartnopart": "the same",
    "obsolete": "a name that is not ASCII is none, and the body begins",
    "very-long-boundary": "a boundary ends in no space (RFC 2046), so one more or less at the end of its line does not count",
    "very-very-long-boundary": "the same",
    "weird-boundary": "the same",
}


def leaves(part: MailBase) -> list[MailBase]:
    return [leaf for child in part.parts for leaf in leaves(child)] if part.parts else [part]


def as_lines(data: bytes) -> bytes:
    return re.sub(rb"\r*\n|\r", b"\n", data).rstrip(b"\n")


def test_parts_are_those_that_mime4j_reads(corpus: Path) -> None:
    different = set()
    for path in (corpus / "mime/mime4j").glob("*.msg"):
        structure = re.sub(rb"[^\t\n -~]", b"", path.with_name(f"{path.stem}_decoded.xml").read_bytes())
        names = re.findall(rb'<(?:text|binary)-body name="([^"]+)"', structure)
        theirs = [as_lines((path.parent / name.decode()).read_bytes()) for name in names]
        parts = leaves(MailRequest(Data=path.read_bytes()).base)
        in_utf8 = [as_lines(part.body.encode() if isinstance(part.body, str) else part.data) for part in parts]
        if not (theirs == [as_lines(part.data) for part in parts] or theirs == in_utf8):
            different.add(path.stem)
    assert different <= OTHER_PARTS.keys()


def test_text_is_that_which_stalwart_reads(corpus: Path) -> None:
    paths = list((corpus / "mime/stalwart-rfc").glob("*.eml"))
    assert len(paths) == 10
    for path in paths:
        theirs = json.loads(path.with_suffix(".json").read_text())
        bodies = [theirs["parts"][number]["body"].get("Text", "") for number in theirs["text_body"]]
        message = MailRequest(Data=path.read_bytes())
        assert message.text.split() == "\n".join(bodies).split(), path.name
        assert len(message.attachments) == len(theirs["attachments"]), path.name
