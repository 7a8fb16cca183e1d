"""Figures, aims, and what is written of them: medians with their spread, a table for people, JSON for the next release.

All of a row's subjects run side by side, one after the other, in each of several rounds. A ratio is taken within each round, so that
what slows the machine for a while slows both. Pure; measures nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

#: A ratio that falls under this part of its recorded value fails the check.
KEPT = 0.75


@dataclass(frozen=True)
class Sample:
    """One run of one subject. `megabytes` is 0 where memory is not what is asked."""

    messages: int
    seconds: float
    cpu: float
    megabytes: float = 0.0

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def cpu_per_thousand(self) -> float:
        """Seconds of CPU of the measured processes for a thousand messages."""
        return self.cpu / self.messages * 1000


@dataclass(frozen=True)
class Spread:
    """A median, and the lowest and the highest of the runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])


@dataclass(frozen=True)
class Aim:
    """What a row shall reach: the rate of `subject` is at least `limit` times that of `over`; without `over`, its memory is at most
    `limit` megabytes. `stage` is "first", which decides, or "then", which is the direction."""

    stage: str
    subject: str
    over: str | None
    limit: float

    @property
    def name(self) -> str:
        return f"{self.subject} / {self.over}" if self.over else f"{self.subject}, MB"

    def values(self, rounds: Sequence[dict[str, Sample]]) -> list[float]:
        """Its figure in each round that has both."""
        if self.over is None:
            return [each[self.subject].megabytes for each in rounds if self.subject in each]
        both = [each for each in rounds if self.subject in each and self.over in each]
        return [each[self.subject].rate / each[self.over].rate for each in both]

    def met(self, value: float) -> bool:
        return value >= self.limit if self.over else value <= self.limit

    @property
    def wanted(self) -> str:
        return f"at least {self.limit:g} x" if self.over else f"at most {self.limit:g} MB"

    def shown(self, spread: Spread) -> str:
        unit, digits = ("x", 2) if self.over else ("MB", 0)
        return f"{spread.median:.{digits}f} {unit} ({spread.low:.{digits}f}–{spread.high:.{digits}f})"


@dataclass
class Row:
    """A row of the table with what was measured: a sample of each subject in each round."""

    name: str
    title: str
    aims: Sequence[Aim]
    fairness: str
    rounds: list[dict[str, Sample]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(subject for each in self.rounds for subject in each))

    def samples(self, subject: str) -> list[Sample]:
        return [each[subject] for each in self.rounds if subject in each]

    def verdicts(self) -> Iterator[tuple[Aim, Spread]]:
        """Each aim that could be measured, with its figure."""
        for aim in self.aims:
            values = aim.values(self.rounds)
            if values:
                yield aim, Spread.of(values)


# -- for people


def figures_table(rows: Sequence[Row]) -> str:
    """Every subject's figures, as Markdown."""
    lines = ["| what | who | a second, median (lowest–highest) | CPU s for 1,000 | MB |", "|---|---|---:|---:|---:|"]
    for row in rows:
        for number, subject in enumerate(row.subjects):
            lines.append(f"| {'' if number else row.title} | {subject} | {_figures(row.samples(subject))} |")
    return "\n".join(lines)


def _figures(samples: Sequence[Sample]) -> str:
    rate = Spread.of(each.rate for each in samples)
    cpu = Spread.of(each.cpu_per_thousand for each in samples)
    memory = Spread.of(each.megabytes for each in samples).median
    return f"{rate.median:,.0f} ({rate.low:,.0f}–{rate.high:,.0f}) | {_short(cpu.median)} | {f'{memory:.0f}' if memory else ''}"


def _short(number: float) -> str:
    return f"{number:.2f}" if number >= 0.095 else f"{number:.2g}"


def aims_table(rows: Sequence[Row]) -> str:
    """Every aim, whether it is met, as Markdown."""
    lines = ["| what | measured | median (lowest–highest) | aim | |", "|---|---|---:|---|---|"]
    for row in rows:
        for aim, spread in row.verdicts():
            stage = "" if aim.stage == "first" else ", then"
            lines.append(f"| {row.title} | {aim.name} | {aim.shown(spread)} | {aim.wanted}{stage} | {_verdict(aim, spread)} |")
    return "\n".join(lines)


def _verdict(aim: Aim, spread: Spread) -> str:
    if aim.met(spread.median):
        return "met"
    return "**missed**" if aim.stage == "first" else "not yet"


def notes(rows: Sequence[Row]) -> str:
    """How fair each row is, and what was left out."""
    lines = [f"- **{row.title}.** {row.fairness}" for row in rows]
    lines += [f"- Left out of *{row.title}*: {subject}: {why}" for row in rows for subject, why in row.missing.items()]
    return "\n".join(lines)


# -- for the next release


def to_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The medians by row, with every sample behind them."""
    return {row.name: {"ratios": _ratios(row), "rounds": [_plain(each) for each in row.rounds]} for row in rows}


def _plain(samples: dict[str, Sample]) -> dict[str, Any]:
    return {subject: vars(sample) for subject, sample in samples.items()}


def _ratios(row: Row) -> dict[str, float]:
    return {aim.name: round(spread.median, 4) for aim, spread in row.verdicts()}


def fallen(rows: Sequence[Row], recorded: dict[str, Any]) -> list[str]:
    """What has become worse than three quarters of what is recorded; and what is recorded but was not measured."""
    complaints = []
    for row in rows:
        before = recorded.get(row.name, {}).get("ratios", {})
        now = _ratios(row)
        for aim in {aim.name: aim for aim in row.aims}.values():
            if aim.name in before and aim.name not in now:
                complaints.append(f"{row.name}: {aim.name} could not be measured; recorded is {before[aim.name]:.2f}")
            elif aim.name in before and _is_worse(aim, now[aim.name], before[aim.name]):
                complaints.append(f"{row.name}: {aim.name} is {now[aim.name]:.2f}, recorded is {before[aim.name]:.2f}")
    return complaints


def _is_worse(aim: Aim, now: float, before: float) -> bool:
    return now < before * KEPT if aim.over else now > before / KEPT
