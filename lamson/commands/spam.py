"""`lamson spam`: what the Bayesian scorer has learnt, what it thinks, and teaching it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click

from lamson.bayes import BayesScorer
from lamson.commands import mailbox, project, sending
from lamson.commands.style import command, option, switch
from lamson.errors import ConfigError
from lamson.mail import MailRequest
from lamson.spam import database_of

#: Messages that are learnt in one transaction.
BATCH = 100
#: Words of a message that are shown.
SHOWN = 30


@command("spam")
@option("ham", "Learns that these messages are none.", metavar="MAILBOX")
@option("spam", "Learns that these messages are spam.", metavar="MAILBOX")
@option("untrain", "Takes back what was learnt of these messages.", metavar="MAILBOX")
@option("score", "Shows what it thinks of the message in this file, and its strongest words; - reads standard input.", metavar="FILE")
@switch("counts", "Prints how many messages were learnt; the same as no option.")
@option("export", "Writes all that was learnt into this file; - is standard output.", metavar="FILE")
@option("import", "Reads what -export wrote, where nothing was learnt yet; - is standard input.", metavar="FILE")
@switch("clear", "Forgets all that was learnt.")
@option("db", "A database URL, or the path of an SQLite file, instead of the project's database.", metavar="WHERE")
def spam(db: str | None, **wanted: Any) -> None:
    """Teaches the spam filter, and shows what it thinks of a message.

    A MAILBOX is an mbox file, a Maildir, a folder of messages, or one message. A message counts once, however often it is learnt; learnt
    as the other kind it changes sides.
    """
    chosen = [verb for verb, value in wanted.items() if value]
    if len(chosen) > 1:
        named = " or ".join(f"-{verb.rstrip('_')}" for verb in chosen)
        raise click.UsageError(f"One at a time: {named}.", click.get_current_context())
    verb = chosen[0] if chosen else "counts"
    with scorer_of(db) as scorer:
        VERBS[verb](scorer, wanted[verb])


@contextmanager
def scorer_of(db: str | None) -> Iterator[BayesScorer]:
    """The scorer of the project, or the one whose database is named."""
    if db is None:
        with project.made_database() as database:
            yield BayesScorer(database)
        return
    with closing(BayesScorer(database_of(db))) as scorer:
        yield scorer


# -- teaching


def examples(path: str) -> mailbox.Mailbox:
    """The messages of any kind of mailbox. Raises `ConfigError` where there are none."""
    if not os.path.exists(path):
        raise ConfigError(f"There is no mailbox {path}. Name an mbox file, a Maildir, a folder of messages or one message.")
    if os.path.isdir(path) and not os.path.isdir(os.path.join(path, "new")):
        files = sorted(each.path for each in os.scandir(path) if each.is_file() and not each.name.startswith("."))
        return mailbox.Mailbox(path, len(files), ((each, Path(each).read_bytes) for each in files))
    if os.path.isfile(path) and not is_mbox(path):
        return mailbox.Mailbox(path, 1, iter([(path, Path(path).read_bytes)]))
    return mailbox.opened(path)


def is_mbox(path: str) -> bool:
    """Also a file in which nothing is, as a mail program leaves a folder without mail."""
    with open(path, "rb") as file:
        begins = file.read(1000).lstrip()
    return not begins or begins.startswith(b"From ")


def change(path: str, doing: str, learn: Callable[[list[MailRequest]], int], says: str) -> None:
    """Goes through a mailbox with progress and says how many made a difference, and how many none. Status 1 if one could not be read."""
    box, tally, changed = examples(path), sending.Tally(), 0
    batch: list[MailRequest] = []
    for name, read in sending.with_progress(box.entries, box.count, doing):
        try:
            batch.append(MailRequest(Data=read()))
            tally.well += 1
        except OSError as error:
            tally.fail(name, error.strerror or error)
        if len(batch) == BATCH:
            changed += learn(batch)
            batch = []
    changed += learn(batch)
    click.echo(says.format(project.counted(changed, "message"), tally.well - changed))
    if tally.failed:
        raise ConfigError(f"{project.counted(tally.failed, 'message')} of {path} could not be read.")


def learn(scorer: BayesScorer, path: str, kind: str) -> None:
    says = f"Learnt {{}} as {kind}; {{}} known as that already."
    change(path, "Learning", lambda messages: scorer.learn_all(messages, spam=kind == "spam"), says)


def untrain(scorer: BayesScorer, path: str) -> None:
    change(path, "Untraining", scorer.unlearn_all, "Took back {}; {} had not been learnt.")


def clear(scorer: BayesScorer, _: bool) -> None:
    spam, ham = scorer.learnt()
    scorer.forget_everything()
    click.echo(f"Forgot {spam} spam and {ham} ham.")


# -- asking


def counts(scorer: BayesScorer, _: bool) -> None:
    spam, ham = scorer.learnt()
    click.echo(f"Learnt from {spam} spam and {ham} ham.")


def score(scorer: BayesScorer, path: str) -> None:
    """The verdict, then a word a line: how much it speaks for spam, and in how many learnt messages it was."""
    message = MailRequest(Data=sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes())
    verdict, weighed = scorer.score(message), scorer.weigh(message)
    click.echo(f"{verdict.label}, {weighed.score:.3f}, by {project.counted(len(weighed.clues), 'word')}")
    if len(verdict.reasons) == 1:  # learnt before, or from too few
        click.echo(verdict.reasons[0])
    for clue in weighed.clues[:SHOWN]:
        click.echo(f"  {clue.probability:.2f}  {clue.spam} spam, {clue.ham} ham  {clue.token}")


# -- moving it elsewhere


def export(scorer: BayesScorer, path: str) -> None:
    with click.open_file(path, "w", encoding="utf-8", atomic=path != "-") as file:
        for line in scorer.export():
            file.write(f"{line}\n")
    if path != "-":
        click.echo(f"Wrote {path}.")


def restore(scorer: BayesScorer, path: str) -> None:
    with click.open_file(path, "r", encoding="utf-8") as file:
        try:
            scorer.restore(file)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    counts(scorer, True)


VERBS: dict[str, Callable[[BayesScorer, Any], None]] = {
    "ham": lambda scorer, path: learn(scorer, path, "ham"),
    "spam": lambda scorer, path: learn(scorer, path, "spam"),
    "untrain": untrain,
    "score": score,
    "counts": counts,
    "export": export,
    "import_": restore,
    "clear": clear,
}
