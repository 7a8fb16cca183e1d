"""Messages: `MailRequest` is what came, `MailResponse` is what one writes.

A `MailRequest` keeps the bytes that were received. Untouched it gives them back byte for byte; setting or deleting one header changes that
header's lines and nothing else. It is read as it is asked for, and no bytes make reading raise. A `MailResponse` is written in canonical
form when it is rendered, and keeps the Date and Message-ID it got then.

The receiver makes a MailRequest for each delivery, the handler reads it; view and handlers make MailResponses, the relay renders them. This
module knows neither routes nor relays.
"""

from __future__ import annotations

import email.message
import email.utils
import html
import mimetypes
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamson import address, encoding, quotation
from lamson.bounce import BounceAnalyzer, detect
from lamson.decoding import Reading
from lamson.encoding import MailBase
from lamson.errors import AddressError
from lamson.header import HeaderMapping, Headers

if TYPE_CHECKING:
    from lamson.scorer import Verdict

#: Headers of blind copies: kept by a MailResponse for `recipients()`, never rendered (RFC 5322 §3.6.3).
BLIND = ("Bcc", "Resent-Bcc")

_RECIPIENT_HEADERS = ("To", "Cc", "Bcc")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a message. `name` is the sender's text, not a safe path; `data` is decoded; `content_id` "" means none."""

    name: str | None
    type: str
    data: bytes
    inline: bool
    content_id: str

    @property
    def safe_name(self) -> str:
        """A name to keep it under: one component of a path, at most 200 octets, never hidden. Two attachments may have the same.

        Folders are left out, what some file system refuses becomes `_`, and so do marks that turn the direction of writing, which make
        `gpj.exe` look like `exe.jpg`. Without a name it is `attachment` with its type's ending.
        """
        name = _UNSAFE.sub("_", re.split(r"[/\\]", self.name or "")[-1]).strip(" ._")
        stem, ending = os.path.splitext(name or f"attachment{mimetypes.guess_extension(self.type) or ''}")
        ending = ending[:20].rstrip(" .")
        return _cut(stem, 200 - len(ending.encode("utf-8", "replace"))) + ending


_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f:*?"<>|\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+')


def _cut(text: str, octets: int) -> str:
    """Not longer than so many octets of UTF-8, no character cut in two."""
    return text.encode("utf-8")[:octets].decode("utf-8", "ignore")


def _octets(data: str | bytes) -> bytes:
    if not isinstance(data, (str, bytes)):
        raise TypeError(f"MailRequest takes Data as str or bytes, not {type(data).__name__}.")
    return encoding.as_bytes(data)


class MailRequest(HeaderMapping):
    """A message as it was received, for one delivery.

    `Peer`, `From`, `To`, `Data` stay as given: the client, the envelope's reverse-path ("" or "<>" the null sender, None unknown) and
    recipients (text, a list, or None unknown), and the message (`original`). Data that is str is taken as UTF-8, with surrogate escapes for
    octets that are none; its 8-bit text is then read as UTF-8 first, whatever charset it declares.
    """

    verdict: Verdict | None = None  # what a spam filter said of it; None where none was asked
    _recipient: str | None = None
    _sender: tuple[str | None, str | None] = (None, None)  # `From`, and what it is as an address
    _base: MailBase | None = None
    _headers: Headers | None = None  # of the base
    _bounce: BounceAnalyzer | None = None

    def __init__(
        self, Peer: Any = None, From: str | None = None, To: str | Iterable[str] | None = None, Data: str | bytes | None = None
    ) -> None:
        self.Peer = Peer
        self.From = From
        self.To = To
        self.original: str | bytes = b"" if Data is None else Data
        self.raw: bytes = Data if type(Data) is bytes else _octets(self.original)

    # -- the envelope

    @property
    def route_to(self) -> list[str]:
        """The recipients: normalised bare addresses in order, without duplicates. From the To headers where the envelope is unknown."""
        if self.To is not None:
            return address.bare_addresses(self.To)
        return address.bare_addresses(self.base.headers.raw_texts("To"))

    @property
    def route_from(self) -> str | None:
        """The sender: one normalised bare address, "" for the null sender, None when neither envelope nor From header has one."""
        if self.From is None:
            return address.bare_address(self.base.headers.raw_text("From") or [])
        of, known = self._sender  # asked for several times while a message is handled, and `From` may be set
        if of is not self.From:
            self._sender = _, known = self.From, address.bare_address(self.From)
        return known

    @property
    def recipient(self) -> str | None:
        """Whom this delivery is for; outside a delivery the first recipient, None when there is none."""
        return self._recipient if self._recipient is not None else next(iter(self.route_to), None)

    @recipient.setter
    def recipient(self, recipient: str | None) -> None:
        self._recipient = recipient

    def copy(self) -> MailRequest:
        """A fresh message over the same bytes, without what was changed in this one. The bytes are shared, and the cut header lines."""
        fresh = MailRequest.__new__(MailRequest)  # past `__init__`, which would look at the data again
        fresh.Peer, fresh.From, fresh.To, fresh.original, fresh.raw = self.Peer, self.From, self.To, self.original, self.raw
        fresh._recipient, fresh._sender = self._recipient, self._sender
        if self._base is not None:
            fresh._base = self._base.fresh()
        return fresh

    # -- the message

    @property
    def base(self) -> MailBase:
        """The message as a tree of parts. Its headers are this message's."""
        if self._base is None:
            self._base = encoding.parse(self.raw, Reading(utf8_first=isinstance(self.original, str)))
        return self._base

    @property
    def headers(self) -> Headers:
        """The headers, decoded when asked for."""
        if self._headers is None:
            self._headers = self.base.headers
        return self._headers

    @property
    def defects(self) -> list[str]:
        """What had to be repaired in what was read so far, in words."""
        return self.base.reading.defects

    def __bytes__(self) -> bytes:
        """What was received, byte for byte, but for the headers that were set or deleted since."""
        if self._base is None or not self._base.headers.touched:
            return self.raw
        return self._base.rebuilt(self.raw)

    def __str__(self) -> str:
        """The same as text: octets that are not UTF-8 are surrogate escapes, so that nothing is lost."""
        return bytes(self).decode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"<MailRequest from {self.route_from!r} to {self.route_to!r}, {len(self.raw)} octets>"

    def to_message(self) -> email.message.Message:
        """The message as the standard library's, headers and bodies as they came."""
        return encoding.standard_message(self.base)

    def all_parts(self) -> list[MailBase]:
        """The parts of a multipart message, in order; their own parts are in them. Empty for any other message."""
        return self.base.parts

    def walk(self) -> Iterator[MailBase]:
        """All parts, each before its own parts."""
        return self.base.walk()

    # -- what a person reads

    def body(self) -> str | bytes | None:
        """The readable text: the plain text, else what the HTML says, else the first part's body."""
        if plain := self._plain():
            return plain[0].body
        if self.html is not None:
            return _html_text(self.html)
        return next((leaf.body for leaf in _leaves(self.base)), None)

    @property
    def text(self) -> str:
        """All of the readable text, for some mail programs part it by pictures and lists put theirs below; "" when there is none."""
        if plain := self._plain():
            return _joined(plain)
        body = self.body()
        return body if isinstance(body, str) else ""

    def _plain(self) -> list[MailBase]:
        """The parts with the plain text; none when that is blank and there is HTML."""
        parts = _readable(self.base, "text/plain")
        return parts if _joined(parts).strip() or not _readable(self.base, "text/html") else []

    @property
    def html(self) -> str | None:
        """The HTML as it was written; None when there is none."""
        parts = _readable(self.base, "text/html")
        return _joined(parts) if parts else None

    @property
    def reply_text(self) -> str:
        """What the person newly wrote: the text without what it quotes and without the signature; "" when there is no more."""
        if self.html is not None and not self._plain():
            return quotation.new_text(_html_text(quotation.marked_html(self.html)))
        return quotation.new_text(self.text)

    @property
    def attachments(self) -> list[Attachment]:
        """Every part that is neither `text` nor `html`, in order."""
        shown = {id(part) for kind in ("text/plain", "text/html") for part in _readable(self.base, kind)}
        return [_attachment(part) for part in _leaves(self.base) if id(part) not in shown]

    @property
    def date(self) -> datetime | None:
        """When it says that it was written: with its time zone, UTC where it names none. None for what is no date (RFC 5322 §3.3)."""
        try:
            date = email.utils.parsedate_to_datetime(self.get("Date", "") or "")
        except (ValueError, TypeError, IndexError, OverflowError):  # the standard library's parser is not total
            return None
        return date if date.tzinfo else date.replace(tzinfo=UTC)

    # -- what kind of mail it is

    @property
    def bounce(self) -> BounceAnalyzer:
        """What this says as a delivery report, analysed once."""
        if self._bounce is None:
            self._bounce = detect(self)
        return self._bounce

    def is_bounce(self, threshold: float = 0.3) -> bool:
        """It is probably a bounce: its score, 0 to 1, is over the threshold."""
        return self.bounce.probable(threshold)

    def is_automatic(self) -> bool:
        """No person wrote this to us: it must not be answered automatically (RFC 3834 §2). So is mail of lists and the null sender."""
        if self.From is not None and self.route_from == address.NULL:
            return True
        there = _TELLING_HEADERS & self.headers.names()
        return bool(there) and (not _AUTOMATIC_HEADERS.isdisjoint(there) or _says_automatic(self.base))

    # -- answering it

    @property
    def reply_to(self) -> str | None:
        """Whom an answer goes to: Reply-To, else From, else the envelope's sender. One address only, whoever asks for more: else a
        stranger could have an application write to many."""
        texts = [text for name in ("Reply-To", "From") for text in self.headers.raw_texts(name)]
        return next(iter(address.bare_addresses(texts)), None) or self.route_from

    def unanswerable(self, to: str | None = None, ourselves: str | None = None) -> str | None:
        """Why there must be no automatic answer, in words; None when there may be one (RFC 3834 §2).

        `to`: whom it would go to, `reply_to` if not given. `ourselves`: the address that would answer, besides this delivery's recipient.
        """
        to = self.reply_to if to is None else to
        if not to:
            return "it names nobody to answer to"
        to = address.normalise(to)
        is_of_list = not _LIST_HEADERS.isdisjoint(self.headers.names())
        if is_of_list or self.is_automatic() or to.startswith("mailer-daemon@"):
            return "it is automatic mail, of a list, or a delivery report"
        if to in {address.bare_address(ourselves), self.recipient}:
            return "that would be ourselves"
        return None

    def reply(
        self, Body: str | None = None, From: str | None = None, Subject: str | None = None, Html: str | None = None
    ) -> MailResponse | None:
        """An answer, threaded and marked as automatic, for the relay to deliver. None for what must not be answered: see `unanswerable`.

        It goes to `reply_to`, from this delivery's recipient unless `From` says otherwise, under the same subject with one `Re:`, which
        is also what is left of several in a `Subject` that is given.
        """
        From = From or self.recipient
        if self.unanswerable(ourselves=From):
            return None
        if Subject is None or _IS_RE.match(Subject):
            Subject = _reply_subject(self.get("Subject") if Subject is None else Subject)
        answer = MailResponse(self.reply_to, From, Subject, Body, Html)
        answer.update({**_threading(self), "Auto-Submitted": "auto-replied"})
        return answer


_MESSAGE_ID = re.compile(r"<[^<>\s]{1,250}>")
_BARE_ID = re.compile(r"[^<>\s]{1,125}@[^<>\s]{1,125}")

#: "Re:" as mail programs of other languages have it, also counted: "Re[2]:", "AW:", "SV:".
_ONE_RE = r"(?:re|aw|antw|sv|vs|odp|ynt|res|rif|回复|答复|回覆)(?:\[\d{1,3}\]|\^\d{1,3})?[ \t]*[:：][ \t]*"
_IS_RE = re.compile(_ONE_RE, re.IGNORECASE)

#: Before and behind the name that a list puts in front: "Re: [list] Re: Hello".
_RE = re.compile(rf"(?:{_ONE_RE})*+(\[[^\[\]]{{1,80}}\][ \t]*)?(?:{_ONE_RE})*+", re.IGNORECASE)


def _reply_subject(subject: str | None) -> str:
    """`Re: ` once (RFC 5322 §3.6.5)."""
    bare = _RE.sub(r"\1", subject or "", count=1)
    return f"Re: {bare}".rstrip()


def _threading(original: MailRequest) -> dict[str, str]:
    """In-Reply-To and References (RFC 5322 §3.6.4), of the last twenty messages of the thread at most."""
    given = original.get("Message-ID") or ""
    ids = _MESSAGE_ID.findall(f"<{given}>" if _BARE_ID.fullmatch(given) else given)[:1]
    if not ids:
        return {}
    earlier = _last_ids(" ".join(original.get_all("References") or original.get_all("In-Reply-To")).replace(ids[0], " "), 19)
    return {"In-Reply-To": ids[0], "References": " ".join([*earlier, *ids])}


def _last_ids(text: str, most: int) -> list[str]:
    """The last so many Message-IDs. They are looked for at the end first, as there may be a million."""
    size = 10_000
    while len(ids := _MESSAGE_ID.findall(text, max(len(text) - size, 0))) < most and size < len(text):
        size *= 10
    return ids[-most:]


_AUTOMATIC_PRECEDENCES = {"bulk", "junk", "list", "auto_reply"}
_AUTOMATIC_HEADERS = {"list-id", "list-post", "x-autoreply", "x-autorespond"}
#: What may say that nobody wrote it.
_TELLING_HEADERS = {"auto-submitted", "precedence", "return-path", "x-auto-response-suppress", "content-type", *_AUTOMATIC_HEADERS}

#: What newsletters and lists without a List-Id have (RFC 2369 §3). A person may have written it, but not to us alone: it gets no answer.
_LIST_HEADERS = {"list-unsubscribe", "list-subscribe", "list-help", "mailing-list"}

#: X-Auto-Response-Suppress: what asks for no answer at all. Outlook also says there which receipts a person does not want.
_SUPPRESSED = re.compile(r"\b(?:all|oof|autoreply)\b", re.IGNORECASE)


def _says_automatic(base: MailBase) -> bool:
    if any(_first_word(value) not in ("", "no") for value in base.get_all("Auto-Submitted")):
        return True
    if any(_first_word(value) in _AUTOMATIC_PRECEDENCES for value in base.get_all("Precedence")):
        return True
    if any("".join(value.split()) == "<>" for value in base.get_all("Return-Path")):
        return True
    if _SUPPRESSED.search(base.get("X-Auto-Response-Suppress") or ""):
        return True
    return base.content_type == "multipart/report"


def _first_word(value: str) -> str:
    """The keyword of a value, without parameters and comments."""
    return next(iter(re.split(r"[\s;(]+", value.strip().lower(), maxsplit=1)))


def _leaves(part: MailBase) -> Iterator[MailBase]:
    """The parts of this message that have a body; an enclosed message is one, its parts are its own."""
    if not part.parts or part.content_type.startswith("message/"):
        yield part
        return
    for child in part.parts:
        yield from _leaves(child)


def _readable(base: MailBase, kind: str) -> list[MailBase]:
    """The parts of that type that a mail program shows: no attachment, and no file but where that is all there is to read."""
    first = next(_leaves(base), None)
    return [part for part in _shown(base, kind) if not part.filename or part is first]


def _shown(part: MailBase, kind: str) -> list[MailBase]:
    """Those that are no attachment (RFC 2183 §2.8: what is not known to be inline is one); of alternatives the first that has any."""
    if not part.parts or part.content_type.startswith("message/"):
        return [part] if part.content_type == kind and part.disposition in ("", "inline") else []
    found = (_shown(child, kind) for child in part.parts)
    if part.content_type == "multipart/alternative":
        return next(filter(None, found), [])
    return [each for some in found for each in some]


def _joined(parts: list[MailBase]) -> str:
    """Their texts, one below the other."""
    texts = [part.body for part in parts if isinstance(part.body, str)]
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts[:-1]) + "".join(texts[-1:])


def _attachment(part: MailBase) -> Attachment:
    content_id = (part.get("Content-ID") or "").strip("<> ")
    return Attachment(part.filename, part.content_type, part.data, part.disposition == "inline", content_id)


_HTML_SKIP = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style|head|title)\b[^<>]*+>.*?(?:</\1\s*+>|\Z)", re.DOTALL | re.IGNORECASE)
_HTML_BREAK = re.compile(r"<(?:br|/?p|/?div|/tr|/h[1-6]|/?ul|/?ol|/li|/?blockquote|/?table|hr)\b[^<>]*+>", re.IGNORECASE)
_HTML_TAG = re.compile(r"<[a-zA-Z/!?][^<>]*+>")


def _html_text(source: str) -> str:
    """What HTML says, roughly: tags go, blocks become lines, entities characters."""
    text = " ".join(_HTML_SKIP.sub(" ", source).split())
    lines = html.unescape(_HTML_TAG.sub("", _HTML_BREAK.sub("\n", text))).replace("\xa0", " ").split("\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(" ".join(line.split()) for line in lines)).strip()


class MailResponse(HeaderMapping):
    """A message that one writes.

    `To` may be a list or comma-separated text. `Body` is plain text, `Html` HTML; either may be None. Its mapping is its headers, which
    never take a line end: CR, LF and the like become a space. `bytes()` is what is sent.
    """

    def __init__(
        self,
        To: str | Iterable[str] | None = None,
        From: str | None = None,
        Subject: str | None = None,
        Body: str | None = None,
        Html: str | None = None,
    ) -> None:
        self.Body = Body
        self.Html = Html
        self.attachments: list[dict[str, Any]] = []
        self._headers = Headers()
        for name, value in (("To", To), ("From", From), ("Subject", Subject)):
            if value is not None:
                self._headers[name] = value

    @property
    def headers(self) -> Headers:
        """The headers that were set."""
        return self._headers

    def update(self, mapping: Mapping[str, object]) -> None:
        """Sets all of these headers."""
        for name, value in mapping.items():
            self._headers[name] = value

    def recipients(self) -> list[str]:
        """Whom it goes to: the bare addresses of To, Cc and Bcc, in order, without duplicates."""
        return address.bare_addresses([text for name in _RECIPIENT_HEADERS for text in self.get_all(name)])

    # -- attachments

    def attach(
        self,
        filename: str | os.PathLike[str] | None = None,
        content_type: str | None = None,
        data: str | bytes | None = None,
        disposition: str | None = None,
        content_id: str | None = None,
    ) -> None:
        """Adds a file: what is given as `data`, or what stands in `filename` when the message is rendered.

        Without `content_type` the file's ending tells it. `disposition` is `attachment` unless said otherwise, or `inline` for what has a
        `content_id`: an image that the Html shows by `<img src="cid:CONTENT_ID">`. `TypeError` or `ValueError` when that is not enough to
        go by.
        """
        if data is None and filename is None:
            raise TypeError("attach() needs data, or the filename of a file to read it from.")
        if not isinstance(data, (str, bytes, type(None))):
            raise TypeError(f"attach() takes data as str or bytes, not {type(data).__name__}.")
        if data is None and filename is not None and not Path(filename).is_file():
            raise ValueError(f"There is no file {os.fspath(filename)!r} to attach: give an existing file, or data.")
        if content_id is not None and not _CONTENT_ID.fullmatch(content_id):
            raise ValueError(f"{content_id!r} is no content_id: it takes printable ASCII without spaces and angle brackets.")
        kind = content_type or (mimetypes.guess_type(os.fspath(filename))[0] if filename is not None else None)
        if kind is None and data is not None and filename is None:
            raise TypeError("attach() needs a content_type, such as text/plain, for data without a filename.")
        kind = kind or "application/octet-stream"
        encoding.made(b"", kind)  # a type that is none is refused here, not when the message is sent
        given = {"filename": filename, "content_type": kind, "data": data, "disposition": disposition, "content_id": content_id}
        self.attachments.append({**given, "part": None})

    def attach_part(self, part: MailBase) -> None:
        """Adds a part of another message as it is."""
        if not isinstance(part, MailBase):
            raise TypeError("attach_part() takes a part of a message, such as one of request.all_parts().")
        self.attachments.append({**dict.fromkeys(("filename", "content_type", "data", "disposition", "content_id")), "part": part})

    def attach_all_parts(self, request: MailRequest) -> None:
        """Adds all parts of a received message; one that has none is added whole, without its headers."""
        for part in request.all_parts() or [_content_of(request.base)]:
            self.attach_part(part)

    def clear(self) -> None:
        """Removes attachments, Body and Html; the headers stay."""
        self.attachments.clear()
        self.Body = self.Html = None

    # -- rendering

    def __bytes__(self) -> bytes:
        """The canonical form with CRLF, for the wire. Bcc is left out; Date and Message-ID are added when missing, and stay.

        Raises `EncodingError` for text that cannot be written, `OSError` for a file that cannot be read.
        """
        self._complete()
        return encoding.to_bytes(self.base, leave_out=BLIND)

    def __str__(self) -> str:
        """The same as text with LF line ends."""
        return bytes(self).decode("utf-8").replace("\r\n", "\n")

    def __repr__(self) -> str:
        return f"<MailResponse to {self.get('To')!r}, subject {self.get('Subject')!r}>"

    def to_message(self) -> email.message.Message:
        """The same as the standard library's message."""
        return encoding.standard_message(encoding.parse(bytes(self)))

    def _complete(self) -> None:
        """RFC 5322 §3.6: Date is required, Message-ID should be there."""
        headers = self._headers
        if "Date" not in headers:
            headers["Date"] = _date(int(time.time()))
        if "Message-ID" not in headers:
            headers["Message-ID"] = _new_message_id(headers["From"])

    @property
    def base(self) -> MailBase:
        """The message as a tree of parts, made anew each time. Files are read now."""
        if not self.attachments:
            return self._content([], self._headers)
        shown = [each for each in self.attachments if self.Html is not None and each.get("content_id")]
        parts = [_attached(each) for each in self.attachments if each not in shown]
        content = self._content([_attached(each) for each in shown], None if parts else self.headers)
        if not parts:
            return content
        has_content = self.Body is not None or self.Html is not None
        return _multipart("multipart/mixed", [content, *parts] if has_content else parts, self.headers)

    def _content(self, shown: list[MailBase], headers: Headers | None) -> MailBase:
        """Body and Html: one of them, or both as alternatives (RFC 2046 §5.1.4)."""
        if self.Html is None:
            return _text(self.Body, "text/plain", headers)
        if self.Body is None:
            return _related(self.Html, shown, headers)
        return _multipart("multipart/alternative", [_text(self.Body, "text/plain"), _related(self.Html, shown)], headers)


_CONTENT_ID = re.compile(r"[!-;=?-~]{1,200}")


def _text(body: str | None, kind: str, headers: Headers | None = None) -> MailBase:
    part = MailBase(headers=headers)
    part.body, part.default_type = body, kind
    return part


def _multipart(kind: str, parts: list[MailBase], headers: Headers | None = None) -> MailBase:
    whole = MailBase(headers=headers)
    whole.content_encoding["Content-Type"] = (kind, {})
    for part in parts:
        whole.attach_part(part)
    return whole


def _related(source: str, shown: list[MailBase], headers: Headers | None = None) -> MailBase:
    """HTML, with the images that it shows where there are any (RFC 2387)."""
    if not shown:
        return _text(source, "text/html", headers)
    whole = _multipart("multipart/related", [_text(source, "text/html"), *shown], headers)
    whole.content_encoding["Content-Type"] = ("multipart/related", {"type": "text/html"})
    return whole


@lru_cache(maxsize=4)
def _date(seconds: int) -> str:
    """As in a Date header; the messages of one second have the same."""
    return email.utils.formatdate(seconds, localtime=True)


def _new_message_id(sender: str | None) -> str:
    """RFC 5322 §3.6.4: unique, on the right the domain that answers for it: the sender's."""
    domain = _answerable_domain(address.domain_of(address.bare_address(sender) or ""))
    return f"<{time.time_ns():x}.{random.getrandbits(64):016x}@{domain}>"


@lru_cache(maxsize=256)
def _answerable_domain(domain: str) -> str:
    try:
        return address.to_ascii_domain(f"@{domain}")[1:] or "localhost"
    except AddressError:
        return "localhost"


def _attached(attachment: Mapping[str, Any]) -> MailBase:
    part: MailBase | None = attachment["part"]
    if part is not None:
        return part
    filename, data, kind = attachment["filename"], attachment["data"], attachment["content_type"]
    if data is None:
        data = Path(filename).read_bytes()
    name = os.path.basename(os.fspath(filename)) if filename is not None else None
    content_id = attachment.get("content_id")
    made = encoding.made(data, kind, attachment["disposition"] or ("inline" if content_id else "attachment"), name)
    if content_id:
        made["Content-ID"] = f"<{content_id}>"
    return made


def _content_of(base: MailBase) -> MailBase:
    """The body of a message without parts, as a part."""
    part = MailBase()
    part.content_encoding.update(base.content_encoding)
    part.body = base.body
    return part
