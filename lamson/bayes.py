"""The Bayesian scorer: in which messages was each word of this one seen before?

Of every token (`lamson.tokenizer`) the database knows in how many spam and in how many ham messages it was. From that comes how much it
speaks for spam, drawn towards one half where little is known (Gary Robinson, "A Statistical Approach to the Spam Problem", Linux Journal
107, 2003); the strongest are combined by Fisher's method, with the inverse chi-square function, once for spam and once for ham. A message
that both speak for, or neither, is unsure.

Scoring reads and never writes. Learning adds to the counts in the database itself, so that no process overwrites what another has learnt;
in a delivery on the same database it is part of that delivery's commit. A message is remembered by a hash: learnt twice it counts once,
learnt as the other kind it changes sides, and what was learnt can be taken back. A message that comes again, as one that a person
has put back, is what was said of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection

from lamson import delivery
from lamson.database import Database, SpamMessage, SpamToken
from lamson.errors import Conflict, Fault, ScorerError
from lamson.scorer import Label, Scorer, Verdict
from lamson.tokenizer import tokens

if TYPE_CHECKING:
    from lamson.mail import MailRequest

#: Robinson's s and x: an unknown word weighs as much as so many messages that speak for so much.
STRENGTH = 0.45
UNKNOWN = 0.5
#: A token nearer to one half than this says nothing, and no more than so many are combined.
LEAST_DISTANCE = 0.3
MOST_CLUES = 150
#: Nothing is called spam by fewer tokens than this: one odd header is no spam.
LEAST_CLUES = 3
#: Of each kind so many messages must have been learnt before anything is called ham or spam.
LEAST_LEARNT = 10
#: Ids in one SELECT.
CHUNK = 1000
#: Reasons in a verdict.
REASONS = 12
#: How often learning is tried when another process is at the same rows.
TRIES = 5

#: The first line of what is exported, and characters of a token.
HEADING: Mapping[str, int] = MappingProxyType({"lamson spam": 1})
LONGEST_TOKEN = 255
#: The largest count: what an INTEGER holds in every database.
MOST = 2**31 - 1

#: The token that is in every message: it counts them.
EVERY = ""


class Clue(NamedTuple):
    """A token of a message, in how many learnt messages it was, and how much it speaks for spam (0 to 1)."""

    token: str
    spam: int
    ham: int
    probability: float

    def __str__(self) -> str:
        return f"{self.token} {self.probability:.2f}"


@dataclass(frozen=True, slots=True)
class Score:
    """A message's score between 0 (ham) and 1 (spam), and the clues that made it, the strongest first. `spam`, `ham`: messages learnt."""

    score: float
    clues: Sequence[Clue]
    spam: int
    ham: int


class BayesScorer(Scorer):
    """Learns from examples, kept in the tables `lamson_spam_token` and `lamson_spam_message`.

    `ham_cutoff`, `spam_cutoff`: below the one a message is ham, from the other on spam, between them unsure. `least`: as long as fewer
    messages of either kind were learnt, all are unsure. `ValueError` for cut-offs that are none.
    """

    name = "bayes"

    def __init__(self, database: Database, ham_cutoff: float = 0.2, spam_cutoff: float = 0.85, least: int = LEAST_LEARNT) -> None:
        if not 0 <= ham_cutoff <= spam_cutoff <= 1:
            raise ValueError(f"ham_cutoff {ham_cutoff}, spam_cutoff {spam_cutoff}: the first is the smaller, and both lie between 0 and 1.")
        self.database = database
        self.ham_cutoff = ham_cutoff
        self.spam_cutoff = spam_cutoff
        self.least = least

    # -- asking

    def score(self, message: MailRequest) -> Verdict:
        """What a person has said of this very message, else what its words say."""
        with self._reading() as connection:
            told = read_mark(connection, fingerprint(message))
            found = Score(0.5, (), 0, 0) if told is not None else _weigh(connection, message)
        if told is not None:
            label: Label = "spam" if told else "ham"
            return Verdict(label, float(told), (f"learnt as {label}",), self.name)
        if min(found.spam, found.ham) < self.least:
            why = f"learnt from {found.spam} spam and {found.ham} ham, which is too few (least: {self.least})"
            return Verdict("unsure", 0.5, (why,), self.name)
        return Verdict(self._label(found), found.score, tuple(map(str, found.clues[:REASONS])), self.name)

    def _label(self, found: Score) -> Label:
        if found.score < self.ham_cutoff:
            return "ham"
        accusing = sum(clue.probability > 0.5 for clue in found.clues)
        return "spam" if found.score >= self.spam_cutoff and accusing >= LEAST_CLUES else "unsure"

    def weigh(self, message: MailRequest) -> Score:
        """What its words say, with all clues."""
        with self._reading() as connection:
            return _weigh(connection, message)

    def told(self, message: MailRequest) -> bool | None:
        """Whether this message was learnt as spam, or as ham; None if it was not learnt."""
        with self._reading() as connection:
            return read_mark(connection, fingerprint(message))

    def learnt(self) -> tuple[int, int]:
        """How many messages were learnt: spam, ham."""
        with self._reading() as connection:
            return read_counts(connection, [token_id(EVERY)]).get(token_id(EVERY), (0, 0))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """The delivery's own connection if it is on this database, so that what it learnt itself is seen; else one of our own.

        What fails on the delivery's own connection fails the delivery, which nothing but trying again can mend.
        """
        try:
            session = self.database.session
        except TypeError:
            try:
                with self.database.connected() as connection:
                    yield connection
            except (Fault, Conflict) as error:
                raise ScorerError(str(error)) from error
        else:
            yield session.connection()

    # -- learning

    def learn(self, message: MailRequest, spam: bool) -> bool:
        return self.learn_all([message], spam) == 1

    def unlearn(self, message: MailRequest, spam: bool) -> bool:
        return self.unlearn_all([message], spam) == 1

    def learn_all(self, messages: Iterable[MailRequest], spam: bool) -> int:
        """Learns them together, all or none, and returns how many were not known as that before."""
        return self._write([Lesson.of(each) for each in messages], lambda session, id: _mark(session, id, spam))

    def unlearn_all(self, messages: Iterable[MailRequest], spam: bool | None = None) -> int:
        """Takes back those that were learnt so (None: whatever they were learnt as), all or none, and returns how many that were."""
        return self._write([Lesson.of(each) for each in messages], lambda session, id: _unmark(session, id, spam))

    def _write(self, lessons: list[Lesson], mark: Mark) -> int:
        """In the delivery's transaction if that is on this database; after its commit if it is on another; else in one of our own."""
        running = delivery.current()
        if running is None:
            return self._write_alone(lessons, mark)
        if getattr(running, "database", None) is self.database:
            return _count(self.database.session, lessons, mark)
        running.after_commit(lambda: self._write_alone(lessons, mark))
        return len(lessons)

    def _write_alone(self, lessons: list[Lesson], mark: Mark) -> int:
        for attempt in range(1, TRIES + 1):
            try:
                with self.database.joined() as session:
                    return _count(session, lessons, mark)
            except Conflict:
                if attempt == TRIES:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def forget_everything(self) -> None:
        """As if nothing had ever been learnt."""
        with self.database.joined() as session:
            session.execute(sa.delete(SpamMessage))
            session.execute(sa.delete(SpamToken))

    # -- moving it elsewhere

    def export(self) -> Iterator[str]:
        """What was learnt, as lines of JSON: a heading, then `[token, spam, ham]` of each token and `[id, spam]` of each message."""
        yield json.dumps(dict(HEADING))
        with self.database.connected() as connection:
            reading = connection.execution_options(yield_per=CHUNK)
            for wanted in (sa.select(SpamToken.token, SpamToken.spam, SpamToken.ham), sa.select(SpamMessage.id, SpamMessage.spam)):
                for row in reading.execute(wanted):
                    yield json.dumps(list(row), ensure_ascii=False)

    def restore(self, lines: Iterable[str]) -> None:
        """Takes in what `export` gave, all or nothing. `ValueError` where something was learnt already, and for a line that is none."""
        if any(self.learnt()):
            raise ValueError("Something was learnt already, and would count twice. Forget it first: lamson spam -clear")
        rows = _read_rows(lines)
        with self.database.joined() as session:
            while some := list(islice(rows, CHUNK)):
                _add_counts(session.connection(), {token: counts for token, counts, _ in some if token is not None})
                marks = [mark for _, _, mark in some if mark is not None]
                if marks:
                    session.connection().execute(_add_unless_there(session), marks)

    def close(self) -> None:
        self.database.dispose()


def _weigh(connection: Connection, message: MailRequest) -> Score:
    found = [EVERY, *tokens(message)]
    named = dict(zip(token_ids(found), found, strict=True))
    counts = {named[id]: count for id, count in read_counts(connection, list(named)).items()}
    spam, ham = counts.pop(EVERY, (0, 0))
    if not spam or not ham:
        return Score(0.5, (), spam, ham)
    clues = strongest(counts, spam, ham)
    return Score(combine([clue.probability for clue in clues]), clues, spam, ham)


# -- the statistics


def probability(spam: int, ham: int, all_spam: int, all_ham: int) -> float:
    """How much a token speaks for spam: the rates of both kinds compared, drawn towards `UNKNOWN` where it was seen seldom."""
    spam_rate, ham_rate = spam / all_spam, ham / all_ham
    seen = spam + ham
    return (STRENGTH * UNKNOWN + seen * spam_rate / (spam_rate + ham_rate)) / (STRENGTH + seen)


def strongest(counts: Mapping[str, tuple[int, int]], all_spam: int, all_ham: int) -> list[Clue]:
    """The tokens that say something, the strongest first; of equals the alphabet decides, so that a message has one score."""
    telling: list[tuple[float, str, float]] = []
    for token, (spam, ham) in counts.items():
        speaks = probability(spam, ham, all_spam, all_ham)
        distance = abs(speaks - 0.5)
        if distance >= LEAST_DISTANCE:
            telling.append((-distance, token, speaks))
    return [Clue(token, *counts[token], speaks) for _, token, speaks in sorted(telling)[:MOST_CLUES]]


def combine(probabilities: Sequence[float]) -> float:
    """One number of many: near 1 if they speak for spam, near 0 if for ham, one half if for neither or for both."""
    if not probabilities:
        return 0.5
    freedom = 2 * len(probabilities)
    spam = 1.0 - chi_square(-2.0 * sum(math.log(1.0 - each) for each in probabilities), freedom)
    ham = 1.0 - chi_square(-2.0 * sum(math.log(each) for each in probabilities), freedom)
    return (1.0 + spam - ham) / 2.0


def chi_square(value: float, freedom: int) -> float:
    """How likely a chi-square variable of so many degrees of freedom, an even number, is greater than the value."""
    half = value / 2.0
    term = total = math.exp(-half)  # 0 from 745 on, and so is the sum: close enough to a likelihood that small
    for number in range(1, freedom // 2):
        term *= half / number
        total += term
    return min(total, 1.0)


# -- the rows


def token_id(token: str) -> int:
    """A token's key: 64 bits of its hash, signed as databases have them."""
    return token_ids([token])[0]


def token_ids(found: Sequence[str]) -> tuple[int, ...]:
    """The keys of many, in their order."""
    digests = [hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=8).digest() for token in found]
    return struct.unpack(f">{len(digests)}q", b"".join(digests))


_MBOX_QUOTE = re.compile(rb"^>+(?=From )", re.MULTILINE)


def fingerprint(message: MailRequest) -> str:
    """The same for a message however it was kept: line ends, an mbox's quoting and the header lines of servers make no difference."""
    text = message.raw.replace(b"\r\n", b"\n")
    body = text.partition(b"\n\n")[2].strip()
    if b">From " in body:
        body = _MBOX_QUOTE.sub(b"", body)
    named = "\0".join([message.get(name) or "" for name in ("Message-ID", "Date", "From", "Subject")])
    return hashlib.sha256(named.encode("utf-8", "replace") + b"\0" + body).hexdigest()


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learnt of a message."""

    id: str
    tokens: frozenset[str]

    @classmethod
    def of(cls, message: MailRequest) -> Lesson:
        return cls(fingerprint(message), frozenset([*tokens(message), EVERY]))


#: Marks the message of that id, and gives what follows for the counts: (spam, ham) to be added. None when nothing does.
Mark = Callable[[orm.Session, str], tuple[int, int] | None]


def read_counts(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """In how many spam and ham messages each token is, of those that are known. The ids are numbers, so they can stand in the text:
    binding hundreds of parameters takes longer than the search. SQLite takes them as one parameter, and need not read a new statement
    each time."""
    found: dict[int, tuple[int, int]] = {}
    for at in range(0, len(ids), CHUNK):
        listed = ",".join(map(str, ids[at : at + CHUNK]))
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(f"{_COUNTS} (SELECT value FROM json_each(?))", (f"[{listed}]",))
        else:
            rows = connection.exec_driver_sql(f"{_COUNTS} ({listed})")
        found.update({id: (spam, ham) for id, spam, ham in rows.all() if spam or ham})
    return found


_COUNTS = f"SELECT id, spam, ham FROM {SpamToken.__tablename__} WHERE id IN"


def read_mark(connection: Connection, id: str) -> bool | None:
    """Whether the message of that fingerprint, which is hexadecimal and can stand in the text, was learnt as spam; None if it was not."""
    row = connection.exec_driver_sql(f"SELECT spam FROM {SpamMessage.__tablename__} WHERE id = '{id}'").first()
    return None if row is None else bool(row[0])


def _count(session: orm.Session, lessons: list[Lesson], mark: Mark) -> int:
    """Marks the messages and adds up what follows. Rows are written in one order, so that two writers do not lock each other out."""
    spam: Counter[str] = Counter()
    ham: Counter[str] = Counter()
    changed = 0
    for lesson in sorted(lessons, key=lambda each: each.id):
        added = mark(session, lesson.id)
        if added is not None:
            changed += 1
            spam.update(dict.fromkeys(lesson.tokens, added[0]))
            ham.update(dict.fromkeys(lesson.tokens, added[1]))
    _add_counts(session.connection(), {token: (spam[token], ham[token]) for token in spam})
    return changed


def _mark(session: orm.Session, id: str, spam: bool) -> tuple[int, int] | None:
    same = (SpamMessage.id == id, SpamMessage.spam == sa.literal(not spam))
    if _rows(session.execute(sa.update(SpamMessage).where(*same).values(spam=spam, learnt=time.time()))):
        return (1, -1) if spam else (-1, 1)
    row = {"id": id, "spam": spam, "learnt": time.time()}
    return _as_counts(spam, 1) if _rows(session.execute(_add_unless_there(session), row)) else None


def _unmark(session: orm.Session, id: str, spam: bool | None) -> tuple[int, int] | None:
    for kind in (True, False) if spam is None else (spam,):
        if _rows(session.execute(sa.delete(SpamMessage).where(SpamMessage.id == id, SpamMessage.spam == sa.literal(kind)))):
            return _as_counts(kind, -1)
    return None


def _read_rows(lines: Iterable[str]) -> Iterator[tuple[str | None, tuple[int, int], dict[str, Any] | None]]:
    """Of each line: a token and its counts, or a row of `lamson_spam_message`."""
    for number, line in enumerate(lines, 1):
        try:
            match json.loads(line):
                case dict(heading) if number == 1 and heading == HEADING:
                    continue
                case [str(token), int(spam), int(ham)] if number > 1 and _is_token(token) and 0 <= min(spam, ham) <= max(spam, ham) <= MOST:
                    yield token, (spam, ham), None
                case [str(id), bool(spam)] if number > 1 and _FINGERPRINT.fullmatch(id):
                    yield None, (0, 0), {"id": id, "spam": spam, "learnt": time.time()}
                case _:
                    raise ValueError(line[:60])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Line {number} is none of what lamson spam -export writes: {error}") from error


_FINGERPRINT = re.compile("[0-9a-f]{64}")


def _is_token(text: str) -> bool:
    """As `lamson.tokenizer` makes them: not every database takes NUL, and none a lone surrogate."""
    return len(text) <= LONGEST_TOKEN and text.isprintable()


def _as_counts(spam: bool, number: int) -> tuple[int, int]:
    return (number, 0) if spam else (0, number)


def _rows(result: Any) -> int:
    return int(result.rowcount)


def _add_unless_there(session: orm.Session) -> Any:
    table: Any = SpamMessage.__table__
    name = session.connection().dialect.name
    insert = _ON_CONFLICT[name](table).on_conflict_do_nothing() if name in _ON_CONFLICT else mysql.insert(table).prefix_with("IGNORE")
    return insert.execution_options(preserve_rowcount=True)  # else nobody knows whether a row came of it


_ON_CONFLICT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def _add_counts(connection: Connection, counts: dict[str, tuple[int, int]]) -> None:
    """Adds in the database, never below zero; a token that is in no message any more is removed."""
    named = sorted((token_id(token), token) for token in counts if any(counts[token]))
    if not named:
        return
    rows = [{"id": id, "token": token, "spam": counts[token][0], "ham": counts[token][1]} for id, token in named]
    connection.execute(_adding(connection.dialect.name), rows)
    fewer = [id for id, token in named if min(counts[token]) < 0]
    for at in range(0, len(fewer), CHUNK):
        gone = (SpamToken.id.in_(fewer[at : at + CHUNK]), SpamToken.spam <= 0, SpamToken.ham <= 0)
        connection.execute(sa.delete(SpamToken).where(*gone))


def _adding(dialect: str) -> Any:
    """INSERT, or where the row is there UPDATE with the sums, as each database says it."""
    table: Any = SpamToken.__table__
    on_conflict = dialect in _ON_CONFLICT
    insert: Any = _ON_CONFLICT[dialect](table) if on_conflict else mysql.insert(table)
    given = insert.excluded if on_conflict else insert.inserted
    sums = {name: table.c[name] + given[name] for name in ("spam", "ham")}
    zero: sa.ColumnElement[int] = sa.literal_column("0")  # in the statement: PyMySQL takes no parameter behind the values of many rows
    values = {name: sa.case((total < zero, zero), else_=total) for name, total in sums.items()}
    return insert.on_conflict_do_update(index_elements=[table.c.id], set_=values) if on_conflict else insert.on_duplicate_key_update(values)
