"""Spam: a decorator that asks a scorer before a handler runs, and keeps in a queue what is spam.

    @route("post@(host)")
    @spam_filter(settings.database, settings.SPAM, "run/spam", next_state=SPAMMING)
    def START(message, host=None):
        ...

It stands at step 8 of a message's way, inside the delivery: the push into the queue and the next state are part of its commit, and the
scorer is only asked. The router and the receivers know nothing of it. Which scorer judges, the settings say; `lamson.scorer` has the
interface, `lamson.bayes` the one that learns.
"""

from __future__ import annotations

import configparser
import functools
import inspect
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from lamson.bayes import BayesScorer
from lamson.database import Database, configure_database
from lamson.errors import ConfigError, DatabaseError, ScorerError, SMTPError
from lamson.queue import Queue
from lamson.rspamd import RspamdScorer
from lamson.scorer import Scorer, Verdict
from lamson.spamd import SpamdScorer

if TYPE_CHECKING:
    from lamson.mail import MailRequest

__all__ = ["Filter", "Scorer", "Verdict", "spam_filter"]

log = logging.getLogger("lamson.spam")

F = TypeVar("F", bound=Callable[..., Any])

#: Where what was learnt is kept: the project's database, a URL, or the path of an SQLite file.
Storage = Database | str | os.PathLike[str] | None
#: Settings as a mapping, or the path of a file in INI form.
Settings = Mapping[str, Any] | str | os.PathLike[str] | None

#: The scorers that settings can name.
SCORERS: dict[str, type[Scorer]] = {"bayes": BayesScorer, "rspamd": RspamdScorer, "spamd": SpamdScorer}


class Filter:
    """Judges messages, and learns from those whose kind a person has said.

    `storage`: where what is learnt is kept; a scorer that is a server of its own needs none. `config`: the settings, see docs/spam.md.
    Raises `ConfigError` for settings that are wrong.
    """

    def __init__(self, storage: Storage = None, config: Settings = None) -> None:
        settings = _read(config)
        self.unreachable = settings.pop("unreachable", "pass")
        if self.unreachable not in ("pass", "defer"):
            raise ConfigError(f'"unreachable" is {self.unreachable!r}: "pass" lets the message pass, "defer" has it sent again.')
        self.scorer = _scorer(settings, storage)

    def filter(self, message: MailRequest) -> Verdict:
        """Judges the message. The verdict is true where it is spam.

        Where the scorer gives no answer the message is unsure, or, by the setting `unreachable`, `SMTPError` 451 has the client try again.
        """
        try:
            return self.scorer.score(message)
        except ScorerError as error:
            defers = self.unreachable == "defer"
            log.warning("no verdict of %s, so the message %s: %s", self.scorer.name, "is to come again" if defers else "passes", error)
            if defers:
                raise SMTPError(451, "The message could not be looked at now, try again later", "4.7.1", str(error)) from error
            return Verdict("unsure", 0.0, (str(error),), self.scorer.name)

    def train_spam(self, message: MailRequest) -> None:
        """Learns that this is spam, in a delivery as part of it. What was learnt as ham before changes sides."""
        self.scorer.learn(message, spam=True)

    def train_ham(self, message: MailRequest) -> None:
        """Learns that this is ham, in a delivery as part of it. What was learnt as spam before changes sides."""
        self.scorer.learn(message, spam=False)

    def untrain_spam(self, message: MailRequest) -> None:
        """Takes back `train_spam`. A message that was not learnt as spam changes nothing."""
        self.scorer.unlearn(message, spam=True)

    def untrain_ham(self, message: MailRequest) -> None:
        """Takes back `train_ham`. A message that was not learnt as ham changes nothing."""
        self.scorer.unlearn(message, spam=False)


def spam_filter(
    storage: Storage, config: Settings, spam_queue: Queue | str | os.PathLike[str], next_state: Callable[..., Any] | None = None
) -> Callable[[F], F]:
    """Decorates a handler: spam goes into the queue, with its verdict as the reason, and the handler does not see it.

    Stands below `@route`. `storage`, `config`: see `Filter`. `next_state`: where the sender of spam goes; None, and they stay. In the
    handler, `message.verdict` says what the scorer thought of what came through.
    """
    judge = Filter(storage, config)
    queue = spam_queue if isinstance(spam_queue, Queue) else Queue(spam_queue)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def filtered(message: MailRequest, *args: Any, **captures: Any) -> Any:
            message.verdict = judge.filter(message)
            if not message.verdict:
                return function(message, *args, **captures)
            key = queue.push(message, reason=str(message.verdict))
            log.info("spam from %s, kept as %s in %s: %s", message.route_from or "<>", key, queue.queue_dir, message.verdict)
            return next_state

        return filtered  # type: ignore[return-value]

    return decorate


# -- settings


def _scorer(settings: dict[str, Any], storage: Storage) -> Scorer:
    """What the setting "scorer" names, made with the other settings; or the scorer of one's own that it is."""
    wanted = settings.pop("scorer", "bayes")
    if not isinstance(wanted, str) and hasattr(wanted, "score"):
        _refuse_unknown(settings, [])
        return wanted  # type: ignore[no-any-return]
    if not isinstance(wanted, str) or wanted not in SCORERS:
        raise ConfigError(f'The spam filter has no scorer {wanted!r}: "scorer" is {_either(SCORERS)}, or an object with a method `score`.')
    kind = SCORERS[wanted]
    defaults = {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items() if name != "database"}
    _refuse_unknown(settings, list(defaults))
    given = {name: _fitting(name, value, defaults[name]) for name, value in settings.items()}
    try:
        return kind(database_of(storage), **given) if kind is BayesScorer else kind(**given)
    except ValueError as error:
        raise ConfigError(f"A setting of the spam filter is wrong: {error}") from error


def _refuse_unknown(settings: Mapping[str, Any], known: list[str]) -> None:
    unknown = [name for name in settings if name not in known]
    if unknown:
        named = _either(["scorer", "unreachable", *known])
        raise ConfigError(f"The spam filter knows no setting {unknown[0]!r} for this scorer: it is {named}.")


def _either(names: Iterable[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)


def database_of(storage: Storage) -> Database:
    """The project's own, or one of the filter's own, whose tables are made."""
    if isinstance(storage, Database):
        return storage
    if not storage:
        raise ConfigError("The spam filter needs somewhere to keep what it learns: give settings.database, a URL, or the path of a file.")
    text = os.fspath(storage)
    try:
        return configure_database({"url": text if "://" in text else f"sqlite:///{text}"}, also_create=True)
    except DatabaseError as error:
        remedy = "A file that SpamBayes wrote cannot be read; name another and train anew: lamson help -for spam"
        raise ConfigError(f"The spam filter cannot use {text!r}: {error} {remedy}") from error


def _read(config: Settings) -> dict[str, Any]:
    """The settings of a mapping, or of a file: its section [lamson], and the cut-offs where SpamBayes has them."""
    if config is None or isinstance(config, Mapping):
        return dict(config or {})
    path = os.fspath(config)
    if not os.path.exists(path):
        log.warning("the spam filter's settings file %s is not there; the defaults serve", path)
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeError) as error:
        raise ConfigError(f"The spam filter's settings file {path} cannot be read: {error}") from error
    found = {name: parser["Categorization"][name] for name in ("ham_cutoff", "spam_cutoff") if parser.has_option("Categorization", name)}
    found |= dict(parser["lamson"]) if parser.has_section("lamson") else {}
    return found


def _fitting(name: str, value: Any, default: Any) -> Any:
    """The value of a setting, a number where the default is one: in a file all is text, also a password of digits."""
    if not isinstance(default, int | float):
        if value is None or isinstance(value, str):
            return value
        raise ConfigError(f"The spam filter's setting {name!r} is wrong: {value!r} is no text.")
    with suppress(TypeError, ValueError, OverflowError):
        number = type(default)(value)
        if 0 <= number < math.inf:
            return number
    raise ConfigError(f"The spam filter's setting {name!r} is wrong: {value!r} is no number from 0 on, as {default} is.")
