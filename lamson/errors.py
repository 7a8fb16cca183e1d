"""Every error that Lamson raises on purpose.

    LamsonError
    ├── SMTPError                  the client hears `.reply`; the log has `.cause` besides
    ├── RelayError                 the next server's failure; `.reply` is what it said
    │   ├── TransientError         try again later
    │   └── PermanentError         do not
    ├── ConfigError                settings, boot, a handler that does not import: a sentence with place and remedy
    ├── ProcessError               a server cannot be started or stopped: a sentence that says why and what to do
    ├── RoutingError               also TypeError and AssertionError (1.x raised the one, Salmon the other)
    ├── AddressError               also ValueError
    ├── EncodingError              also ValueError
    ├── QueueError                 `.data` is what could not be queued or read
    ├── ViewError                  a template that is missing, has no header block, or names a variable nobody gave
    ├── DatabaseError              the database cannot be opened or is of another version
    ├── ScorerError                a spam scorer gives no answer; a setting of the filter says what that means for the message
    ├── Fault                      database, disk or network beneath us failed: rolled back, 451, nothing moved
    └── Conflict                   another process moved this conversation first; the delivery is run anew

What a client hears and what the log says are two things: no text of an unexpected exception crosses the wire.
"""

from __future__ import annotations

from typing import Any

from lamson.status import Reply, reply


class LamsonError(Exception):
    """The root of the tree."""


class SMTPError(LamsonError):
    """Raised by a handler, it is the client's answer.

    `code`: an SMTP reply code, 4xx or 5xx as a rule; `ValueError` for one that answers no message, as 354. `message`: the text; without
    one it comes from the code. `status`: an RFC 3463 status; without one the least that the code says. `cause`: for the log only.
    """

    def __init__(self, code: int, message: str | None = None, status: str | None = None, cause: str | None = None) -> None:
        if int(code) // 100 not in (2, 4, 5):
            raise ValueError(f"SMTPError({code}): a message is answered with a code of 4xx or 5xx.")
        self.reply: Reply = reply(int(code), message, status)
        self.code = self.reply.code
        self.message = self.reply.text
        self.cause = cause
        super().__init__(self.code, self.message)

    def __str__(self) -> str:
        return f"{self.reply}" + (f" ({self.cause})" if self.cause else "")


class RelayError(LamsonError):
    """Mail that the next server did not take.

    `reply` is its answer, or ours where it gave none; `recipients` are those it concerns (empty: all).
    """

    def __init__(self, failed: Reply, recipients: tuple[str, ...] = ()) -> None:
        self.reply = failed
        self.recipients = recipients
        super().__init__(str(failed))


class TransientError(RelayError):
    """The next server, or the way to it, fails for now."""


class PermanentError(RelayError):
    """The next server will never take this."""


def failure(code: int, text: str, status: str) -> RelayError:
    """Our own word on mail that cannot be handed on: a `PermanentError` for a 5xx code, else a `TransientError`."""
    kind = TransientError if code < 500 else PermanentError
    return kind(reply(code, text, status))


class ConfigError(LamsonError):
    """A setting, boot module or handler is wrong. The text says what, where and what to do; the command line prints it as it is."""


class ProcessError(LamsonError):
    """A server cannot be started or stopped. The text says why and what to do; the command line prints it as it is."""


class RoutingError(LamsonError, TypeError, AssertionError):
    """A decorator was used wrongly."""


class AddressError(LamsonError, ValueError):
    """Text that is no address (RFC 5321 §4.1.2)."""


class EncodingError(LamsonError, ValueError):
    """Something that cannot be written as mail."""


class QueueError(LamsonError):
    """A queue could not do what was asked. `data` is the message concerned, or None."""

    def __init__(self, msg: str, data: Any = None) -> None:
        self.data = data
        super().__init__(msg)


class ViewError(LamsonError):
    """A template cannot be used; the text names template and variable."""


class DatabaseError(LamsonError):
    """The database cannot be used; the text names it (without its password) and the remedy."""


class ScorerError(LamsonError):
    """A spam scorer gives no answer. `lamson.spam` lets the message pass or has it sent again, as its settings say."""


class Fault(LamsonError):
    """The machine beneath us failed (database, disk, the next server) and not the handler. Rolled back; the client hears 451."""


class Conflict(LamsonError):
    """The conversation moved elsewhere while this delivery ran. Rolled back, nothing is lost; run it anew."""
