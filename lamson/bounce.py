"""Reading delivery reports: is this message a bounce, of which recipients, for good or for now, and of what message.

Reports by the book come first: RFC 3464 in a multipart/report of RFC 3462 (now 6522). Only where there is none do matchers over headers
and the text decide, and they say how sure they are. Reading is total: any message-like object gives an analysis, and `score` 0.0 says that
it is no bounce. `lamson.mail` calls `detect` when an application asks; nothing here sends or stores.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lamson import address, status

#: First digit of an enhanced status -> what it says (RFC 3463 §2).
PRIMARY_STATUS_CODES: dict[str, str] = dict(status.CLASSES)

#: Second digit -> what it says (RFC 3463 §3).
SECONDARY_STATUS_CODES: dict[str, str] = dict(status.SUBJECTS)

#: Second and third number written together ("11" for 1.1, "726" for 7.26) -> what they say.
COMBINED_STATUS_CODES: dict[str, str] = {key.replace(".", ""): text for key, text in status.DETAILS.items()}

#: Header -> what it looks like in a bounce that is no RFC 3464 report. Each that matches adds `MATCH` to the score. Applications may add.
BOUNCE_MATCHERS: dict[str, re.Pattern[str]] = {
    "Return-Path": re.compile(r"\A<\s*>\Z"),
    "From": re.compile(r"mailer[-_ ]?daemon|postmaster|mail(?:er)? (?:delivery |sub|admin)", re.IGNORECASE),
    "Subject": re.compile(
        r"undeliver(?:able|ed)|(?:returned|returning|failed) (?:mail|message|email)|return(?:ed)? to sender"
        r"|(?:delivery|message) (?:status|failure|error|problem|delayed|warning|has failed)|deliver(?:y|ing)? (?:has )?failed"
        r"|failure (?:notice|delivery)|(?:mail|message) (?:delivery|status|system|could not be|not) (?:fail|error|delivered|warning)"
        r"|could ?n.t be delivered|(?:could|can)not (?:be )?deliver|user unknown|mail delivery|non remis|unzustellbar|delivery notification",
        re.IGNORECASE,
    ),
    "X-Failed-Recipients": re.compile("@"),
}

#: What one matching header adds to the score.
MATCH = 0.25

#: Characters of a bounce's text that are searched for recipients and codes.
SEARCHED = 20_000

Status = tuple[int, str]

_UNKNOWN: Status = (0, "Unknown")
_ENHANCED = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
_REPLY = re.compile(r"(?<![\d.])([45])\d\d(?=[ -])")
_DELAYED = re.compile(
    r"\bdelay(?:ed)?\b|\bwarning\b|still (?:being|trying)|will (?:be )?retr(?:y|ied)|keep trying|not yet been", re.IGNORECASE
)
_ADDRESS = r"[^\s<>()\[\]@,;:\"']{1,64}@[^\s<>()\[\]@,;:\"']{1,255}"
_FAILED = re.compile(
    rf"^[ \t>]*<?({_ADDRESS})>?(?:[ \t]*[:;(].*|[ \t]*(?:\.\.\.|-).*)?$"  # alone on its line, or with a reason behind it
    rf"|<({_ADDRESS})>(?:\.\.\.|:)"  # sendmail and qmail
    rf"|^[ \t]*(?:To|Recipient|Final-Recipient|Original-Recipient)[ \t]*:[ \t]*(?:rfc822;)?[ \t]*<?({_ADDRESS})>?",
    re.MULTILINE | re.IGNORECASE,
)
_COPY = re.compile(
    r"^[> \t-]*(?:below this line is a copy|this is a copy of|original message|unsent message|message header|message text|"
    r"the (?:original|first .* of the) message|received: from |return-path:|message-id:)",
    re.MULTILINE | re.IGNORECASE,
)


class Part(Protocol):
    """What is asked of a message or part: `lamson.encoding.MailBase` is one."""

    @property
    def content_type(self) -> str:
        """`type/subtype` in lower case."""

    @property
    def body(self) -> str | bytes | None:
        """Text, octets, or None for what has parts."""

    @property
    def parts(self) -> Sequence[Part]:
        """The parts below."""

    def get(self, name: str, default: str | None = None) -> str | None:
        """A header."""


class Message(Protocol):
    """What is asked of a message besides: `lamson.mail.MailRequest` is one."""

    From: Any

    @property
    def base(self) -> Part:
        """The message as a tree of parts."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One recipient of a report. `status` "" when the report names none."""

    recipient: str
    action: str
    status: str
    diagnostic: str = ""
    remote_mta: str = ""


@dataclass
class BounceAnalyzer:
    """What a message says as a delivery report.

    `score`: 0.0 (no bounce) to 1.0 (a report by the book). `headers`: the report's fields, or the headers that matched. `report`: its
    blocks of fields, the message's own first. `notification`: the text for people. `original`: the message that failed or its headers,
    None when not enclosed.
    """

    score: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    reporting_mta: str | None = None
    report: list[dict[str, str]] = field(default_factory=list)
    notification: str | None = None
    original: Any = None
    content_parts: list[Any] = field(default_factory=list)

    def probable(self, threshold: float = 0.3) -> bool:
        """The score is over the threshold."""
        return self.score > threshold

    def is_hard(self) -> bool:
        """A probable bounce, and for good: class 5."""
        return self.probable() and self.primary_status[0] > 4

    def is_soft(self) -> bool:
        """A probable bounce, and not for good."""
        return self.probable() and self.primary_status[0] <= 4

    def _numbers(self) -> tuple[str, str, str] | None:
        codes = (_ENHANCED.search(failure.status) for failure in self.failures)
        first = next(filter(None, codes), None)
        return (first[1], first[2], first[3]) if first else None

    @property
    def status(self) -> str | None:
        """The first enhanced status, such as "5.1.1"; None when there is none."""
        numbers = self._numbers()
        return ".".join(numbers) if numbers else None

    @property
    def primary_status(self) -> Status:
        """(5, "Permanent failure"); (0, "Unknown") when no status is given."""
        numbers = self._numbers()
        return (int(numbers[0]), PRIMARY_STATUS_CODES[numbers[0]]) if numbers else _UNKNOWN

    @property
    def secondary_status(self) -> Status:
        """(1, "Addressing status") for 5.1.1."""
        numbers = self._numbers()
        return (int(numbers[1]), SECONDARY_STATUS_CODES.get(numbers[1], "Unknown")) if numbers else _UNKNOWN

    @property
    def combined_status(self) -> Status:
        """(11, "Bad destination mailbox address") for 5.1.1; (726, ...) for 5.7.26."""
        numbers = self._numbers()
        if not numbers:
            return _UNKNOWN
        combined = f"{int(numbers[1])}{int(numbers[2])}"
        return int(combined), COMBINED_STATUS_CODES.get(combined, "Unknown")

    @property
    def final_recipients(self) -> list[str]:
        """The recipients that failed, in order."""
        return list(dict.fromkeys(failure.recipient for failure in self.failures if failure.recipient))

    @property
    def final_recipient(self) -> str | None:
        """The first of them."""
        return next(iter(self.final_recipients), None)

    @property
    def action(self) -> str | None:
        """`failed` or `delayed`."""
        return self.failures[0].action if self.failures else None

    @property
    def remote_mta(self) -> str | None:
        """The server that refused, where it is named."""
        return next((failure.remote_mta for failure in self.failures if failure.remote_mta), None)

    @property
    def diagnostic_codes(self) -> list[str]:
        """What the refusing servers said."""
        return [failure.diagnostic for failure in self.failures if failure.diagnostic]

    def error_for_humans(self) -> str:
        """What happened, in a sentence."""
        if not self.failures:
            return "Delivery failed; the report does not say why." if self.probable() else "This is no delivery report."
        who = ", ".join(self.final_recipients) or "an unnamed recipient"
        said = f" The server said: {self.diagnostic_codes[0]}" if self.diagnostic_codes else ""
        return f"Mail to {who} failed ({status.describe(self.status or 'for an unknown reason')}).{said}"


def detect(message: Message) -> BounceAnalyzer:
    """Analyses any message."""
    base = message.base
    parts = list(_own_parts(base))
    found = BounceAnalyzer(content_parts=parts, notification=_notification(parts), original=_original(parts))
    blocks = [block for part in parts if part.content_type in _REPORTS for block in _blocks(part.body)]
    if blocks:
        _read_report(found, blocks)
    if not found.failures and not any(block.get("action") for block in blocks):
        _read_signs(found, message)
    return found


_REPORTS = {"message/delivery-status", "message/global-delivery-status"}
_ENCLOSED = {"message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"}


def _own_parts(part: Part) -> Iterator[Part]:
    """The parts of this message, not those of a message that it encloses."""
    for child in part.parts if part.content_type not in _ENCLOSED else ():
        yield child
        yield from _own_parts(child)


def _notification(parts: list[Part]) -> str | None:
    return next((part.body for part in parts if part.content_type == "text/plain" and isinstance(part.body, str)), None)


def _original(parts: list[Part]) -> Part | None:
    """The enclosed message, or the part that has its headers as text."""
    found = next((part for part in parts if part.content_type in _ENCLOSED), None)
    return found.parts[0] if found is not None and found.parts else found


# -- reports by the book


def _blocks(body: str | bytes | None) -> list[dict[str, str]]:
    """Blocks of fields, parted by blank lines (RFC 3464 §2.1); names in lower case."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body or ""
    blocks: list[dict[str, str]] = [{}]
    for line in re.sub(r"\r?\n[ \t]+(?=\S)", " ", text[:SEARCHED]).splitlines():
        name, colon, value = line.partition(":")
        if colon and " " not in name.strip():
            blocks[-1].setdefault(name.strip().lower(), value.strip())
        elif not line.strip() and blocks[-1]:
            blocks.append({})
    return [block for block in blocks if block]


def _read_report(found: BounceAnalyzer, blocks: list[dict[str, str]]) -> None:
    found.report = blocks
    found.headers = {name: value for block in reversed(blocks) for name, value in block.items()}
    found.reporting_mta = _typed(found.headers.get("reporting-mta", "")) or None
    failures = [_failure(block) for block in blocks if "final-recipient" in block or "original-recipient" in block or "status" in block]
    found.failures = sorted((one for one in failures if one.action in ("failed", "delayed")), key=lambda one: one.action != "failed")
    found.score = 1.0 if found.failures else 0.0


def _failure(block: dict[str, str]) -> Failure:
    """One recipient's fields (RFC 3464 §2.3). Without an action the status' class tells it."""
    code = _ENHANCED.search(block.get("status", "")) or _ENHANCED.search(block.get("diagnostic-code", ""))
    said = code[0] if code else ""
    words = block.get("action", "").lower().split()
    action = words[0].strip("()") if words else {"5": "failed", "4": "delayed"}.get(said[:1], "")
    if action in ("failed", "failure") and not said:
        said = "5.0.0"
    recipient = _recipient(block.get("final-recipient", "")) or _recipient(block.get("original-recipient", ""))
    return Failure(
        recipient, action.replace("failure", "failed"), said, _typed(block.get("diagnostic-code", "")), _typed(block.get("remote-mta", ""))
    )


def _typed(text: str) -> str:
    """A typed field without its type: `rfc822; joe@example.com`."""
    kind, semicolon, value = text.partition(";")
    return (value if semicolon and " " not in kind.strip() else text).strip()


def _recipient(text: str) -> str:
    return address.bare_address(_typed(text)) or ""


# -- signs


def _read_signs(found: BounceAnalyzer, message: Message) -> None:
    """Scores the headers and, when they look like a bounce, reads the text for recipients and a code."""
    base = message.base
    for name, pattern in BOUNCE_MATCHERS.items():
        value = base.get(name)
        if value is not None and pattern.search(value):
            found.headers[name] = value
    if isinstance(message.From, str) and address.bare_address(message.From) == address.NULL:
        found.headers.setdefault("Return-Path", "<>")
    found.score = min(1.0, MATCH * len(found.headers.keys() & BOUNCE_MATCHERS.keys()))
    if found.probable():
        text = found.notification or (base.body if isinstance(base.body, str) else "")
        found.notification = text
        _read_text(found, text[:SEARCHED], base)


def _read_text(found: BounceAnalyzer, text: str, base: Part) -> None:
    copy = _COPY.search(text)
    told = text[: copy.start()] if copy else text
    named = base.get("X-Failed-Recipients")
    hits = [next(filter(None, hit)).rstrip(".") for hit in _FAILED.findall(told)]
    recipients = address.bare_addresses(named) if named else address.bare_addresses(hits)
    code = _code_in(told, base.get("Subject") or "")
    action = "failed" if code.startswith("5") else "delayed"
    found.failures = [Failure(recipient, action, code) for recipient in recipients or [""]]


def _code_in(text: str, subject: str) -> str:
    """An enhanced status out of free text: one that stands there, else what a reply code or the words tell."""
    if found := _ENHANCED.search(text):
        return found[0]
    if _DELAYED.search(subject) or (not _REPLY.search(text) and _DELAYED.search(text)):
        return "4.0.0"
    reply = _REPLY.search(text)
    return f"{reply[1]}.0.0" if reply else "5.0.0"


# -- for handlers

Handler = Callable[..., Any]


def bounce_to(soft: Handler | None = None, hard: Handler | None = None, threshold: float = 0.3) -> Callable[[Handler], Handler]:
    """Decorates a handler: when the message is a bounce, the state function `soft` or `hard` runs in its place and gives the result.

    It is called with the message and those of the route's captures that it takes. Where the one that fits is None, the handler itself runs.
    """

    def decorate(function: Handler) -> Handler:
        @functools.wraps(function)
        def handle(message: Any, *args: Any, **captures: Any) -> Any:
            target = None
            if message.is_bounce(threshold):
                target = hard if message.bounce.primary_status[0] > 4 else soft
            if target is None:
                return function(message, *args, **captures)
            return target(message, **_taken(target, captures))

        return handle

    return decorate


def _taken(function: Handler, captures: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return captures
    return {name: value for name, value in captures.items() if name in parameters}
