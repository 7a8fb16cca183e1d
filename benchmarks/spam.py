"""How well the Bayesian scorer tells ham from spam that it has not seen, and how fast.

    python benchmarks/spam.py FOLDER [--folds 5] [--seed 1] [--halves]

FOLDER has two folders, `ham` and `spam`, of messages, one a file. They are dealt into five folds; each fold is judged by a scorer that has
learnt the other four, in a database of its own, with the settings as they come. Prints how many of each kind were called what, with the
95 % interval (Wilson) of each share, each wrong one by name, and how many messages a second were judged, from their bytes on, in one
thread; the aim is held against CPU time, so that what else the machine does makes no difference. `--halves` learns the older half of each
kind and judges the newer one, and the other way round, by the Date headers.

The status is 1 when the aims are missed: at most 1 of 600 ham called spam; of the spam at least 95 % called spam or unsure and 90 % called
spam; 300 messages a second. With `--halves` nothing is aimed at.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lamson.bayes import BayesScorer
from lamson.database import configure_database
from lamson.mail import MailRequest
from lamson.scorer import Verdict

LABELS = ("ham", "unsure", "spam")
#: Messages learnt in one transaction.
BATCH = 200


@dataclass(frozen=True)
class Example:
    """A message and what it is."""

    path: Path
    kind: str
    data: bytes

    @property
    def message(self) -> MailRequest:
        """Parsed anew each time, as mail that arrives is."""
        return MailRequest("corpus", None, None, self.data)


def examples(folder: Path) -> list[Example]:
    """All messages of the two folders."""
    found = [
        Example(path, kind, path.read_bytes()) for kind in ("ham", "spam") for path in sorted((folder / kind).iterdir()) if path.is_file()
    ]
    if {each.kind for each in found} != {"ham", "spam"}:
        sys.exit(f"{folder} must have messages in {folder}/ham and {folder}/spam.")
    return found


# -- what is learnt, and what is judged by it


def folds(all_examples: list[Example], number: int, seed: int) -> Iterator[tuple[list[Example], list[Example]]]:
    """(to be learnt, to be judged), each message judged once."""
    shuffled = list(all_examples)
    random.Random(seed).shuffle(shuffled)
    for fold in range(number):
        judged = shuffled[fold::number]
        names = {each.path for each in judged}
        yield [each for each in shuffled if each.path not in names], judged


def halves(all_examples: list[Example]) -> Iterator[tuple[list[Example], list[Example]]]:
    """The older half of each kind and the newer one; then the other way round."""
    older: list[Example] = []
    newer: list[Example] = []
    for kind in ("ham", "spam"):
        ordered = sorted((each for each in all_examples if each.kind == kind), key=sent)
        older += ordered[: len(ordered) // 2]
        newer += ordered[len(ordered) // 2 :]
    yield older, newer
    yield newer, older


def sent(example: Example) -> float:
    """When it says to have been sent; 0 when it says nothing that can be read."""
    date = example.message.date
    return date.timestamp() if date else 0.0


@dataclass
class Result:
    """What was called what, and how long it took."""

    called: dict[str, Counter[str]] = field(default_factory=lambda: {"ham": Counter(), "spam": Counter()})
    wrong: list[tuple[Example, Verdict]] = field(default_factory=list)
    seconds: float = 0.0
    busy: float = 0.0  # CPU time of the same
    learning: float = 0.0
    learnt: int = 0

    def run(self, to_learn: list[Example], to_judge: list[Example]) -> None:
        """Learns the one and judges the other, in a new database."""
        with tempfile.TemporaryDirectory(prefix="lamson-spam-") as folder:
            scorer = BayesScorer(configure_database({"url": f"sqlite:///{folder}/spam.db"}, also_create=True))
            began = time.perf_counter()
            for kind in ("ham", "spam"):
                messages = [each.message for each in to_learn if each.kind == kind]
                for at in range(0, len(messages), BATCH):
                    scorer.learn_all(messages[at : at + BATCH], spam=kind == "spam")
            self.learning += time.perf_counter() - began
            self.learnt += len(to_learn)
            began, busy = time.perf_counter(), time.process_time()
            verdicts = [(each, scorer.score(each.message)) for each in to_judge]
            self.seconds += time.perf_counter() - began
            self.busy += time.process_time() - busy
            scorer.close()
        for each, verdict in verdicts:
            self.called[each.kind][verdict.label] += 1
            if verdict.label not in (each.kind, "unsure"):
                self.wrong.append((each, verdict))

    def share(self, kind: str, *labels: str) -> tuple[int, int]:
        """How many of that kind were called one of these, and of how many."""
        return sum(self.called[kind][label] for label in labels), self.called[kind].total()

    @property
    def judged(self) -> int:
        return sum(self.called[kind].total() for kind in self.called)


# -- what is printed


def wilson(number: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (E. B. Wilson, 1927)."""
    z, share = 1.959964, number / of
    middle = share + z * z / (2 * of)
    reach = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (middle - reach) / (1 + z * z / of)), min(1.0, (middle + reach) / (1 + z * z / of))


def line(says: str, number: int, of: int) -> str:
    low, high = wilson(number, of)
    return f"{says + ' ':.<34} {number:>6} of {of:<6} {number / of:7.2%}   95 % interval {low:6.2%} to {high:6.2%}"


def show(result: Result) -> None:
    for kind in ("ham", "spam"):
        for label in LABELS:
            print(line(f"{kind} called {label}", *result.share(kind, label)))
    print(line("spam called spam or unsure", *result.share("spam", "spam", "unsure")))
    print(
        f"\njudged {result.judged / result.busy:.0f} messages a second of CPU time ({result.judged / result.seconds:.0f} by the clock), ",
        end="",
    )
    print(f"learnt {result.learnt / result.learning:.0f} a second by the clock")
    for each, verdict in sorted(result.wrong, key=lambda pair: (pair[0].kind, -pair[1].score)):
        print(f"  {each.kind} called {verdict.label}: {each.path.name}  {verdict.score:.3f}  {', '.join(verdict.reasons[:8])}")


def missed(result: Result) -> list[str]:
    """The aims that were missed, in words."""
    false, ham = result.share("ham", "spam")
    found, spam = result.share("spam", "spam")
    noticed, _ = result.share("spam", "spam", "unsure")
    aims = {
        "at most 1 of 600 ham called spam": false * 600 <= ham,
        "at least 90 % of spam called spam": found >= 0.9 * spam,
        "at least 95 % of spam called spam or unsure": noticed >= 0.95 * spam,
        "at least 300 messages a second": result.judged >= 300 * result.busy,
    }
    return [aim for aim, is_met in aims.items() if not is_met]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="how the messages are dealt into folds")
    parser.add_argument("--halves", action="store_true", help="learn one half of the time and judge the other")
    options = parser.parse_args()
    found = examples(options.folder)
    result = Result()
    for to_learn, to_judge in halves(found) if options.halves else folds(found, options.folds, options.seed):
        result.run(to_learn, to_judge)
    show(result)
    failures = [] if options.halves else missed(result)
    for aim in failures:
        print(f"MISSED: {aim}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
