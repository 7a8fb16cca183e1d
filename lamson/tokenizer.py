"""What a message says of itself, as tokens: the words that the Bayesian scorer counts.

Words of the text and of the subject, hosts of links, who says to have written it and with which program, how it is built. Each kind has a
prefix of its own, so that `free` in a subject is another token than in the text. What the receiver's own servers add (Received,
Return-Path, Delivered-To, X-Spam and the like) is not looked at: it would tell by which door a message came, and nothing of what it is.

A pure function, asked by `lamson.bayes` when a message is scored or learnt. It knows nothing of counts or of databases. Whatever the
message, it does not raise, and of a long one it looks at the beginning alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from lamson.encoding import MailBase
    from lamson.mail import MailRequest

#: Characters of text that are looked at in one message, and parts. Spam says early what it wants.
CHARACTERS = 60_000
PARTS = 30
#: No message has more tokens than this.
TOKENS = 4_000
#: Characters of a token.
LONGEST_TOKEN = 200
#: A longer word is a token of its first letter and its length alone.
LONGEST_WORD = 20


def tokens(message: MailRequest) -> set[str]:
    """All tokens of the message, or the first of very many: always the same, so that what was learnt can be taken back."""
    found: dict[str, None] = {}
    for some in _all(message):
        found.update(dict.fromkeys(some))
        if len(found) >= TOKENS:
            break
    return {each if len(each) <= LONGEST_TOKEN and each.isprintable() else _tamed(each) for each in islice(found, TOKENS)}


def _tamed(token: str) -> str:
    return "".join([letter if letter.isprintable() else "?" for letter in token[:LONGEST_TOKEN]])


def _all(message: MailRequest) -> Iterator[Iterable[str]]:
    yield _header_tokens(message)
    left = CHARACTERS
    kinds = set()
    for part in islice(chain([message.base], message.walk()), PARTS):
        kind = part.content_type
        kinds.add(kind)
        yield _shape_tokens(part, kind)
        if not _is_text(part, kind) or left <= 0:
            continue
        body = part.body
        if isinstance(body, str):
            text = body[:left]
            left -= len(text)
            yield _html_tokens(text) if kind == "text/html" else _text_tokens(text)
    if "text/html" in kinds and "text/plain" not in kinds:
        yield ["html:only"]


def _is_text(part: MailBase, kind: str) -> bool:
    return not part.parts and kind.startswith("text/") and part.disposition != "attachment"


# -- headers

#: Whether these are there says something, whatever they hold. Those of mailing lists are not among them: spam comes by lists as well.
_TELLING = {
    name.lower(): name
    for name in (
        *("Cc", "Reply-To", "In-Reply-To", "References", "X-Mailer", "User-Agent", "Organization", "X-MSMail-Priority", "X-MimeOLE"),
        *("Disposition-Notification-To", "Thread-Index", "Content-Language", "Auto-Submitted"),
    )
}
#: A person's message has all of these.
_EXPECTED = {name.lower(): name for name in ("Message-ID", "Date", "To", "From", "Subject", "MIME-Version")}


def _header_tokens(message: MailRequest) -> Iterator[str]:
    there = {name.lower() for name in message.keys()}  # noqa: SIM118  # its names in order
    yield from [f"header:{name}" for low, name in _TELLING.items() if low in there]
    yield from [f"no-header:{name}" for low, name in _EXPECTED.items() if low not in there]
    yield from _subject_tokens(message.get("Subject") or "")
    for name in ("From", "Reply-To"):
        yield from _address_tokens(name.lower(), message.get(name) or "")
    for name in ("X-Mailer", "User-Agent"):
        if name.lower() in there:
            yield from (f"mailer:{word.lower()}" for word in _WORD.findall((message.get(name) or "")[:200]))
    for name in ("X-Priority", "Importance"):
        if name.lower() in there:
            yield f"{name.lower()}:{(message.get(name) or '')[:10].strip().lower()}"
    yield from _recipient_tokens(message)
    yield from _id_tokens(message)


_GAP = re.compile(r"\S\s{4,}\S")
_SHOUT = re.compile(r"[!?$*]{2,}|!")


def _subject_tokens(subject: str) -> Iterator[str]:
    subject = subject[:1000]
    yield from [f"subject:{word}" for word in _words(subject)]
    yield from (f"subject:{mark[:3]}" for mark in _SHOUT.findall(subject))
    if _GAP.search(subject):
        yield "subject:gap"
    if subject.isupper() and sum(map(str.isalpha, subject)) > 5:
        yield "subject:CAPITALS"


_ADDRESS = re.compile(r"([^\s<>\"(),:;@]{1,64})@([\w.-]{1,255})")


def _address_tokens(name: str, value: str) -> Iterator[str]:
    value = value[:1000]
    found = _ADDRESS.search(value)
    if found is None:
        yield f"{name}:no address"
        return
    local, domain = found[1].lower(), found[2].lower()
    yield f"{name}:{local}@{domain}"
    yield from (f"{name}:@{end}" for end in _domain_ends(domain))
    if any(each.isdigit() for each in local):
        yield f"{name}:digits"
    shown = value[: found.start()] if "<" in value else value[found.end() :]
    words = _words(shown.lower())
    yield from [f"{name}:{word}" for word in words]
    if not words:
        yield f"{name}:no name"


def _domain_ends(domain: str) -> Iterator[str]:
    """example.com of mail.example.com, and com; at most four labels."""
    labels = domain.strip(".").split(".")[-4:]
    for at in range(len(labels)):
        yield ".".join(labels[at:])


def _recipient_tokens(message: MailRequest) -> Iterator[str]:
    """How many they are and how they are named; who they are says where a message came in, not what it is."""
    value = " ".join(message.get_all("To"))[:10_000]
    number = len(_ADDRESS.findall(value))
    yield f"to:{number if number < 4 else 4 if number < 10 else 10}"
    if number and "<" not in value:
        yield "to:no name"
    if "undisclosed" in value.lower():
        yield "to:undisclosed"


_ID = re.compile(r"<[^<>\s@]+@([^<>\s@]+)>")
_ZONE = re.compile(r"[+-](\d\d)(\d\d)\b")


def _id_tokens(message: MailRequest) -> Iterator[str]:
    given = (message.get("Message-ID") or "")[:1000].strip()
    found = _ID.fullmatch(given)
    if found is None:
        yield from ["message-id:malformed"] if given else []
    else:
        sender = _ADDRESS.search((message.get("From") or "")[:1000])
        same = sender is not None and set(_domain_ends(found[1].lower())) & set(_domain_ends(sender[2].lower()))
        yield f"message-id:{'same domain' if same and any('.' in each for each in same) else 'other domain'}"
    zone = _ZONE.search((message.get("Date") or "")[:200])
    if zone is None:
        yield "date:no zone"
    elif int(zone[1]) > 14 or int(zone[2]) not in (0, 30, 45):
        yield "date:impossible zone"
    else:
        yield f"date:{zone[0]}"


# -- how it is built


def _shape_tokens(part: MailBase, kind: str) -> Iterator[str]:
    name = part.filename
    if name:
        yield f"file:{name.rpartition('.')[2][:10].lower()}"
    if not kind.startswith("text/"):
        yield f"type:{kind[:60]}"
        return
    yield f"charset:{(part.charset or 'none')[:40].lower()}"
    if (part.content_encoding["Content-Transfer-Encoding"][0] or "").lower() == "base64":
        yield "text:in base64"


# -- text

#: A word: letters and digits with what stands inside words, a currency's sign before and a percent's or exclamation marks behind.
_WORD = re.compile(r"[$€£¥]?[^\W_]\w*+(?:[-'’.,]\w++)*+[%!]?")
#: The same, and found faster, where the text is ASCII.
_ASCII_WORD = re.compile(_WORD.pattern, re.ASCII)
#: In text of small letters.
_URL = re.compile(r"(\b(?:https?://|ftp://|www\.)[^\s<>\"'\\)\]]+)")
_MAIL = re.compile(r"(?<![\w.+=-])[\w.+=-]++@([\w-]+(?:\.[\w-]+)++)")
#: Scripts that set no space between words.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f]+")
_CAPITALS = re.compile(r"[A-Z]{3,}+(?!\w)")
_RUN = re.compile(r"([!?$*])\1")


def _words(text: str) -> list[str]:
    """Each word once."""
    words = dict.fromkeys((_ASCII_WORD if text.isascii() else _WORD).findall(text))
    found = [word for word in words if len(word) > 2 and word.isascii()]
    if not text.isascii():
        found += [piece for word in words if not word.isascii() for piece in _pieces(word)]
    return [word if len(word) <= LONGEST_WORD else f"{word[0]} {len(word) // 10 * 10}" for word in found]


def _pieces(word: str) -> list[str]:
    """Of scripts without spaces each two neighbours, else the word."""
    runs = _UNSPACED.findall(word)
    if not runs:
        return [word] if len(word) > 1 else []
    return [run[at : at + 2] for run in runs for at in range(max(1, len(run) - 1))]


def _text_tokens(text: str) -> Iterator[str]:
    """Links and addresses stand in few lines, and looking for them is dear: so the others are put aside at first."""
    plain: list[str] = []
    linked: list[str] = []
    for line in text.lower().split("\n"):
        (linked if "@" in line or "://" in line or "www." in line else plain).append(line)
    pieces = _URL.split("\n".join(linked))
    for url in pieces[1::2]:
        yield from _url_tokens(url)
    pieces = _MAIL.split(" ".join(pieces[::2]))
    yield from _mail_tokens(pieces[1::2])
    words = _words("\n".join(plain + pieces[::2]))
    yield from words
    yield from _manner_tokens(text, len(words))


def _manner_tokens(text: str, words: int) -> Iterator[str]:
    """How loud it is, and how much of it is no ASCII: in powers of two, for a token must come again to tell something."""
    capitals = 100 * len(_CAPITALS.findall(text)) // max(words, 1)
    if capitals:
        yield f"text:capitals {capitals.bit_length()}"
    foreign = 100 * (len(text) - len(text.encode("ascii", "ignore"))) // max(len(text), 1)
    if foreign:
        yield f"text:beyond ASCII {foreign.bit_length()}"
    yield from dict.fromkeys([f"text:{run * 2}" for run in _RUN.findall(text)])


def _mail_tokens(domains: Iterable[str]) -> Iterator[str]:
    return (f"mail:{domain.lower()}" for domain in domains)


_STEP = re.compile("[a-z]{3,20}")
_PLACE = re.compile(r"(?:(\w{1,10}):)?(?://)?(?:([^/?#@]*)@)?([^/?#:@]*)(?::(\d+))?(.*)", re.DOTALL)


def _url_tokens(url: str) -> Iterator[str]:
    """The host and the ends of its name, the words of the path, and what honest links rarely have."""
    place = _PLACE.fullmatch(unquote(url[:500]).lower())
    if place is None:
        return
    scheme, user, host, port, path = place.groups()
    host = host.strip(".")
    if host.replace(".", "").isdigit():
        yield "url:by number"
        yield f"url:{host.rpartition('.')[0]}"
    elif "." in host:
        yield from (f"url:{end}" for end in _domain_ends(host.removeprefix("www.")))
    if user:
        yield "url:with user"
    if port and port not in ("80", "443"):
        yield "url:with port"
    if "%" in url.partition("?")[0]:
        yield "url:escaped"
    if scheme and scheme not in ("http", "https"):
        yield f"url:{scheme}:"
    yield from (f"url:/{word}" for word in _STEP.findall(path)[:20])


# -- HTML

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b[^<>]*+>.*?(?:</\1\s*+>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<(/?[a-zA-Z!?][^\s<>/]*+)([^<>]*+)>")
#: A tag that breaks no line leaves no gap either: fr<b></b>ee is free.
_INLINE = re.compile(r"</?(?:b|i|u|em|strong|font|span|a|big|small|tt|sub|sup|code|s)(?:[\s/][^<>]*+)?>", re.IGNORECASE)
#: In all attributes of a page, between which stands "<".
_LINK = re.compile(r"\b(?:href|src|action|background)\s*+=\s*+(?:\"([^\"<]*)\"|'([^'<]*)'|([^\s\"'<]+))", re.IGNORECASE)
_HIDDEN = re.compile(r"display\s*+:\s*+none|visibility\s*+:\s*+hidden|font-size\s*+:\s*+[01](?:px|pt)?\b", re.IGNORECASE)
#: Few, for all that a page has are seen together: each would say again that it is a page.
_TELLING_TAGS = {"form", "iframe", "object"}


def _html_tokens(source: str) -> Iterator[str]:
    """Words as they are seen, links, and what the mark-up tells."""
    bare = _COMMENT.sub(lambda found: " " if found[1] else "", source)
    tags = _TAG.findall(bare)
    names = {name.lower() for name, _ in tags}
    yield from [f"html:{name}" for name in sorted(names & _TELLING_TAGS)]
    attributes = "<".join([each for _, each in tags if each])
    if _HIDDEN.search(attributes):
        yield "html:hidden"
    for link in _links(attributes):
        yield from _url_tokens(link) if not link.startswith("mailto:") else _mail_tokens(_MAIL.findall(link))
    yield from _text_tokens(html.unescape(_TAG.sub(" ", _INLINE.sub("", bare))))


def _links(attributes: str) -> Iterator[str]:
    """Each once, in small letters."""
    for link in dict.fromkeys(_LINK.findall(attributes)):
        found = html.unescape("".join(link)).strip().lower()
        if not found.startswith(("#", "cid:")):
            yield found
