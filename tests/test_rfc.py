"""docs/rfc.md claims what the code cites, and the code cites what docs/rfc.md claims."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: The one form: `RFC 5321 §4.5.2`, or the number alone.
MENTION = re.compile(r"RFC (\d{3,4})\b( §(?:\d+(?:\.\d+)*|[A-Z]\b))?")
#: Anything that means an RFC and is written otherwise.
OTHER_FORM = re.compile(r"(?i:\brfc)[-_]?(?!822)\d{3,4}|\brfc \d|RFC \d+,? (?i:section|sec\.|chapter)|RFC \d+ §\s")


def rows() -> dict[tuple[str, ...], str]:
    """The RFCs of each row (a row may name an older one beside) -> yes, partial or no."""
    found = {}
    for line in (ROOT / "docs" / "rfc.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.match(r"\| RFC \d", line):
            found[tuple(re.findall(r"RFC (\d+)", cells[0]))] = cells[2]
    return found


def table() -> dict[str, str]:
    """RFC number -> yes, partial or no."""
    return {number: how_far for numbers, how_far in rows().items() for number in numbers}


def sources() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted((ROOT / "lamson").rglob("*.py"))}


def mentioned(text: str) -> set[str]:
    return {number for number, _ in MENTION.findall(text)}


def cited(text: str) -> set[str]:
    return {number for number, section in MENTION.findall(text) if section}


def test_every_row_says_yes_partial_or_no() -> None:
    assert set(table().values()) == {"yes", "partial", "no"}


def test_what_the_code_mentions_has_a_row() -> None:
    missing = {path: mentioned(text) - set(table()) for path, text in sources().items()}
    assert {path: numbers for path, numbers in missing.items() if numbers} == {}


def test_what_the_code_cites_is_not_said_to_be_absent() -> None:
    absent = {number for number, how_far in table().items() if how_far == "no"}
    wrong = {path: cited(text) & absent for path, text in sources().items()}
    assert {path: numbers for path, numbers in wrong.items() if numbers} == {}


def test_what_is_claimed_is_cited() -> None:
    claimed = {number for number, how_far in table().items() if how_far != "no"}
    everything = "\n".join(sources().values())
    unanswered = [row for row in rows() if claimed >= set(row) and not mentioned(everything) & set(row)]
    assert unanswered == [], "claimed in docs/rfc.md, and no line of lamson/ cites it"


def test_rfcs_are_cited_in_one_form() -> None:
    lines = [(f"{path}:{number}", line) for path, text in sources().items() for number, line in enumerate(text.splitlines(), 1)]
    assert [f"{place}: {line.strip()}" for place, line in lines if OTHER_FORM.search(line)] == []
