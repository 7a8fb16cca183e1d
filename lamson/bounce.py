"""Reading delivery reports: is this message a bounce, of which recipients, for good or for now, and of what message.

Reports by the book come first: RFC 3464 in a multipart/report of RFC 3462 (now 6522). Only where there is none do matchers over headers
and the text decide, and they say how sure they are. Reading is total: any message-like object gives an analysis, and `score` 0.0 says that
it is no bounce. `lamson.mail` calls `detect` when an application asks; nothing here sends or stores.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import html
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lamson import address, status

#: First digit of an enhanced status -> what it says (RFC 3463 §2).
PRIMARY_STATUS_CODES: dict[str, str] = dict(status.CLASSES)

#: Second digit -> what it says (RFC 3463 §3).
SECONDARY_STATUS_CODES: dict[str, str] = dict(status.SUBJECTS)

#: Second and third number written together ("11" for 1.1, "726" for 7.26) -> what they say.
COMBINED_STATUS_CODES: dict[str, str] = {key.replace(".", ""): text for key, text in status.DETAILS.items()}

#: Header -> what it looks like in a bounce that is no RFC 3464 report. Each that matches adds `MATCH` to the score, and so do the words of
#: the text under "Body", which is looked at only when a header matched. Applications may add.
BOUNCE_MATCHERS: dict[str, re.Pattern[str]] = {
    "Return-Path": re.compile(r"\A<\s*>\Z"),
    "From": re.compile(r"mailer[-_ ]?daemon|postmaster|mail(?:er)? (?:delivery |sub|admin)|delivery (?:sub)?system", re.IGNORECASE),
    "Content-Type": re.compile(r"multipart/report", re.IGNORECASE),
    "Subject": re.compile(
        r"undeliver(?:able|ed)|(?:returned|returning|failed|rejected) (?:mail|message|email)|(?:return(?:ed|ing)?|back) to sender"
        r"|(?:delivery|message|mail) (?:status|failure|failed|error|problem|delayed|warning|has failed)|deliver(?:y|ing)? (?:has )?failed"
        r"|failure notice|(?:could ?n.t|(?:could|can)not|not yet) be(?:en)? delivered|non[- ]?delivery|user unknown|non remis|unzustellbar"
        r"|delivery notification|delayed \d+ hours|failed mail",
        re.IGNORECASE,
    ),
    "X-Failed-Recipients": re.compile("@"),
    "Body": re.compile(
        r"(?:could|can|was|were)(?:n.t| ?not) (?:be )?(?:delivered|sent|accept|reach)|(?:unable|failed) to (?:deliver|reach)"
        r"|undeliver(?:able|ed)|(?:delivery|message|mail) (?:to|of|has|was|failed|failure|error).{0,60}(?:fail|reject|delay|refus)"
        r"|(?:user|recipient|mailbox|address|account|host)[^.\n]{0,60}(?:unknown|not found|not exist|unavailable|full|disabled|invalid)"
        r"|(?:unknown|invalid|no such|bad|inactive) (?:\w+ )?(?:user|recipient|mailbox|address|account|host)|did not reach the following"
        r"|permanent (?:\w+ )?(?:error|failure)|delivery fail|not yet been delivered|non remis|returned to sender|over quota|exceeded",
        re.IGNORECASE,
    ),
}

_SYSTEM = BOUNCE_MATCHERS["From"]

#: What one that matches adds to the score.
MATCH = 0.25

#: Characters of a bounce's text that are searched for recipients and codes.
SEARCHED = 20_000

Status = tuple[int, str]

_UNKNOWN: Status = (0, "Unknown")
_ENHANCED = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
_REPLY = re.compile(r"(?<![\d.])([45])\d\d(?=[ -])")
_DELAYED = re.compile(
    r"\bdelayed\b|still (?:being|trying)|will (?:be )?(?:retr(?:y|ied)|continue|keep)|keep trying|not yet been|do not need to resend"
    r"|warning message only|yet undelivered|continuing to try",
    re.IGNORECASE,
)
_ADDRESS = r"[^\s<>()\[\]@,;:\"'=]{1,64}@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)*+"
_LISTED = re.compile(
    rf"^[ \t>*-]*['<]?({_ADDRESS})['>]?[ \t]*(?:[:;(.-].*|on .*)?$|<({_ADDRESS})>(?:\.\.\.|:)|\(expanded from: <?({_ADDRESS})", re.MULTILINE
)
_COPIED_TO = re.compile(r"^[ \t>]*(?:to|cc)[ \t]*:(.*)$", re.MULTILINE | re.IGNORECASE)
_COPIED_LIST = re.compile(r"^[ \t>]*(?:list-id|list-post|precedence)[ \t]*:", re.MULTILINE | re.IGNORECASE)
_SENDER = re.compile(rf"\b(?:mail|message) from[ \t:]+<?{_ADDRESS}", re.IGNORECASE)
_QUOTED_HEADER = re.compile(r"^[ \t]*(?:to|cc|subject|sent|from|date)[ \t]*:.*$", re.MULTILINE | re.IGNORECASE)
_ANY_ADDRESS = re.compile(_ADDRESS)
_COPY = re.compile(
    r"^[>* \t-]*(?:below this line is a copy|this is a copy of|a copy of|original message|unsent message|message (?:header|text)|"
    r"the (?:original|first .{0,40}of the) message|header of|your message (?:follows|reads)|received: from |return-path:|message-id:)",
    re.MULTILINE | re.IGNORECASE,
)
_FAILURE_LINE = re.compile(
    r"fail|unknown|undeliver|invalid|not (?:be )?(?:deliver|found|accept|exist|known|recogni)|reject|refus|disabled|full|quota|unavailable"
    r"|delay|recipient|rcpt|mailbox|deliver",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[a-zA-Z/!][^<>@]*+>")


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
    """One recipient of a report: the address that was mailed to, as far as the report tells."""

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
        """A probable bounce, and for good: the mail was given up, be the last error 4.4.7 (RFC 3464 §2.3.3: failed)."""
        return self.probable() and self.action == "failed"

    def is_soft(self) -> bool:
        """A probable bounce, and not for good."""
        return self.probable() and self.action != "failed"

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
    blocks = _report_of(parts)
    if blocks:
        _read_report(found, blocks)
    if not found.failures and not any(_failure(block).action for block in blocks) and not _is_other_report(base, parts):
        _read_signs(found, message)
    return found


def _is_other_report(base: Part, parts: list[Part]) -> bool:
    """It tells of abuse or of reading, so the mail was delivered; but some servers refuse mail by what looks like a receipt."""
    kinds = {part.content_type for part in parts}
    is_receipt = "message/disposition-notification" in kinds and not _SYSTEM.search((base.get("From") or "")[:SEARCHED])
    return is_receipt or "message/feedback-report" in kinds


_REPORTS = {"message/delivery-status", "message/global-delivery-status"}
_ENCLOSED = {"message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"}


def _own_parts(part: Part) -> Iterator[Part]:
    """The parts of this message, not those of a message that it encloses."""
    for child in part.parts if part.content_type not in _ENCLOSED else ():
        yield child
        yield from _own_parts(child)


def _notification(parts: list[Part]) -> str | None:
    for kind in ("text/plain", "text/html"):
        text = next((part.body for part in parts if part.content_type == kind), None)
        if isinstance(text, str):
            return text if kind == "text/plain" else html.unescape(_TAG.sub(" ", text))
    return None


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


def _report_of(parts: Iterable[Part]) -> list[dict[str, str]]:
    return [block for part in parts if part.content_type in _REPORTS for block in _blocks(part.body)]


def _read_report(found: BounceAnalyzer, blocks: list[dict[str, str]]) -> None:
    found.report = blocks
    found.headers = {name: value for block in reversed(blocks) for name, value in block.items()}
    found.reporting_mta = _typed(found.headers.get("reporting-mta", "")) or None
    failures = [_failure(block) for block in blocks if "final-recipient" in block or "original-recipient" in block or "status" in block]
    found.failures = sorted((one for one in failures if one.action in ("failed", "delayed")), key=lambda one: one.action != "failed")
    found.score = 1.0 if found.failures else 0.0


def _failure(block: dict[str, str]) -> Failure:
    """One recipient's fields (RFC 3464 §2.3), by the address that we had mailed to where it is named. Without a known action the
    status' class tells it."""
    code = _ENHANCED.search(block.get("status", "")) or _ENHANCED.search(block.get("diagnostic-code", ""))
    said = code[0] if code else ""
    words = block.get("action", "").lower().split()
    action = words[0].strip("()") if words else ""
    if action not in _ACTIONS:
        action = {"5": "failed", "4": "delayed"}.get(said[:1], "")
    final, original = _recipient(block.get("final-recipient", "")), _recipient(block.get("original-recipient", ""))
    recipient = original if "@" in original else final
    said = said or {"failed": "5.0.0", "delayed": "4.0.0"}.get(action, "")
    return Failure(recipient, action, said, _typed(block.get("diagnostic-code", "")), _typed(block.get("remote-mta", "")))


#: RFC 3464 §2.3.3. Of these, delivered, relayed and expanded are no bounce.
_ACTIONS = {"failed", "delayed", "delivered", "relayed", "expanded"}


def _typed(text: str) -> str:
    """A typed field without its type: `rfc822; joe@example.com`."""
    kind, semicolon, value = text.partition(";")
    return (value if semicolon and " " not in kind.strip() else text).strip()


def _recipient(text: str) -> str:
    return address.bare_address(_typed(text)) or ""


# -- signs


def _read_signs(found: BounceAnalyzer, message: Message) -> None:
    """Scores the headers and, when one looks like a bounce, reads the text for more signs, recipients and a code."""
    base = message.base
    for name, pattern in BOUNCE_MATCHERS.items():
        value = base.get(name)
        if value is not None and pattern.search(value[:SEARCHED]):
            found.headers[name] = value
    if isinstance(message.From, str) and address.bare_address(message.From) == address.NULL:
        found.headers.setdefault("Return-Path", "<>")
    signs = len(found.headers.keys() & BOUNCE_MATCHERS.keys())
    signs += (address.bare_address(base.get("From")) or "").startswith(_DAEMON)  # no person has this name
    if signs:
        found.notification = found.notification or (base.body if isinstance(base.body, str) else "")
        text = found.notification[:SEARCHED]
        words = BOUNCE_MATCHERS.get("Body") if found.headers.keys() != {"Return-Path"} else None  # who is away has that, and many words
        found.score = min(1.0, MATCH * (signs + (words is not None and words.search(text) is not None)))
        if found.probable():
            _read_text(found, text, base)


def _read_text(found: BounceAnalyzer, text: str, base: Part) -> None:
    copy = _COPY.search(text)
    told = text[: copy.start()] if copy else text
    named = base.get("X-Failed-Recipients")
    recipients = address.bare_addresses(named) if named else _recipients_in(told or text, base)
    if not recipients and (wrapped := _report_of(_own_parts(found.original)) if found.original else []):
        _read_report(found, wrapped)
        return
    recipients = recipients or _written_to(found.original, text, base)
    action = "delayed" if _DELAYED.search(f"{base.get('Subject') or ''}\n{told}") else "failed"
    code = _code_in(told, action)
    found.failures = [Failure(recipient, action, code) for recipient in recipients or [""]]


def _recipients_in(text: str, base: Part) -> list[str]:
    """Addresses that stand alone on a line, else those on a line that speaks of a failure, else any."""
    text = _QUOTED_HEADER.sub("", text)
    listed = [next(filter(None, hit)) for hit in _LISTED.findall(text)]
    text = _SENDER.sub("", text)
    lines = [line for line in text.splitlines() if _FAILURE_LINE.search(line)]
    for candidates in (listed, _ANY_ADDRESS.findall("\n".join(lines)), _ANY_ADDRESS.findall(text)):
        if others := _others(candidates, base):
            return others
    return []


def _others(candidates: str | Iterable[str], base: Part) -> list[str]:
    """The addresses that are not whom the bounce is from or to, nor a daemon's."""
    ours = {*address.bare_addresses(base.get("To")), *address.bare_addresses(base.get("From"))}
    return [one for one in address.bare_addresses(candidates) if one not in ours and not one.startswith((_DAEMON, "postmaster@"))]


def _written_to(original: Part | None, text: str, base: Part) -> list[str]:
    """Whom the failed message was written to, by its copy here: for bounces that name nobody.

    Only where that is one alone, in a domain that is not ours, and it was no post to a list, whose author may write anything into To.
    """
    if original is not None:
        as_text = original.content_type in _ENCLOSED
        text = str(original.body) if as_text else "".join(f"{name}: {original.get(name)}\n" for name in _COPIED if original.get(name))
    found = _others(_COPIED_TO.findall(text[:SEARCHED]), base)
    ours = address.domain_of(address.bare_address(base.get("To")) or "")
    return [] if _COPIED_LIST.search(text) or len(found) != 1 or address.domain_of(found[0]) == ours else found


_COPIED = ("To", "Cc", "List-Id", "List-Post", "Precedence")
_DAEMON = "mailer-daemon@"


def _code_in(text: str, action: str) -> str:
    """An enhanced status out of free text: one that stands there, else what a reply code or the words tell."""
    if enhanced := _ENHANCED.search(text):
        return enhanced[0]
    if action == "delayed":
        return "4.0.0"
    reply = _REPLY.search(text)
    return f"{reply[1]}.0.0" if reply else "5.0.0"


# -- addresses that name the recipient

_VERP = re.compile(r"(?P<box>[^+@]+)\+(?P<recipient>.+=[^+=]+)\+(?P<signature>[a-z2-7]{16})@(?P<domain>[^@]+)")
_NAMEABLE = re.compile(r"[a-z0-9!#$%&'*+/?^_`{|}~.=-]+@[a-z0-9.-]+")


def verp_address(bounces: str, recipient: str, key: bytes) -> str:
    """A reverse-path that names the recipient, so that a bounce tells by its address alone whose it is (variable envelope return path).

    `bounces+joe=example.net+SIGNATURE@example.com` for `bounces@example.com` and `joe@example.net`. `key` is the application's secret:
    nobody else can make such an address. For a recipient that does not fit into one (RFC 5321 §4.5.3.1.1) it is `bounces` as it is.
    """
    bounces, recipient = address.normalise(bounces), address.normalise(recipient)
    box, _, domain = bounces.rpartition("@")
    local = f"{box}+{recipient.replace('@', '=')}+{_verp_signature(bounces, recipient, key)}"
    fits = _NAMEABLE.fullmatch(recipient) and len(local) <= address.LOCAL_OCTETS
    return f"{local}@{domain}" if fits and _VERP.fullmatch(f"{local}@{domain}") else bounces


def verp_recipient(bounced_to: str | None, key: bytes) -> str | None:
    """The recipient that an address of `verp_address` names; None for any other, and for one that was not signed with this key."""
    found = _VERP.fullmatch(address.normalise(bounced_to or ""))
    if not found:
        return None
    local, _, domain = found["recipient"].rpartition("=")
    recipient = f"{local}@{domain}"
    signature = _verp_signature(f"{found['box']}@{found['domain']}", recipient, key)
    return recipient if hmac.compare_digest(signature.encode(), found["signature"].encode()) else None


def _verp_signature(bounces: str, recipient: str, key: bytes) -> str:
    """Eighty bits, in letters whose case does not matter: some servers change it."""
    if not key:
        raise ValueError("Addresses are signed with a key: give some secret bytes, such as 32 of os.urandom, and keep them.")
    digest = hmac.new(key, f"{recipient}\0{bounces}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return base64.b32encode(digest[:10]).decode("ascii").lower()


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
                target = hard if message.bounce.action == "failed" else soft
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
