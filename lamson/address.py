"""Addresses: reading them out of anything, checking them strictly, naming files after them.

Two readers for two purposes. `check` is for the wire: strict, it raises. `parse` is for headers and for what applications give: total and
linear in the length of the text, it repairs what it can and leaves out what is no address. Knows nothing of messages; every floor above
compares, routes and stores addresses in the form that `normalise` gives.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from lamson.errors import AddressError

#: The null sender, `MAIL FROM:<>` (RFC 5321 §4.5.5).
NULL = ""

#: RFC 5321 §4.5.3.1: octets of a local part and of a domain; a path has 256 with its angle brackets, so an address has 254.
LOCAL_OCTETS, DOMAIN_OCTETS, ADDRESS_OCTETS = 64, 255, 254

#: `parse` reads this many characters and no more: some ten thousand addresses.
LONGEST_LIST = 256 * 1024

#: Octets of what `file_name` returns, at most: file systems take 255, and applications add an ending.
FILE_NAME_OCTETS = 200

_UTF8 = r"[^\x00-\x9f\s\ud800-\udfff]"  # RFC 6531 §3.3: UTF8-non-ascii, without what no name has
_ATEXT = rf"(?:[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]|{_UTF8})"
_DOT_ATOM = re.compile(rf"{_ATEXT}++(?:\.{_ATEXT}++)*+")
_QUOTED = re.compile(rf'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e]|{_UTF8})*+"')
_LABEL = re.compile(rf"(?:[A-Za-z0-9]|{_UTF8})(?:(?:[A-Za-z0-9-]|{_UTF8})*(?:[A-Za-z0-9]|{_UTF8}))?")
_PLAIN_LABEL = "[a-zA-Z0-9]++(?:-++[a-zA-Z0-9]++)*+"
#: What `check` takes without a closer look, up to so many octets: nearly every address, in which no part can be over its limit.
PLAIN = re.compile(rf"[\w!#$%&'*+/=?^`{{|}}~-]++(?:\.[\w!#$%&'*+/=?^`{{|}}~-]++)*+@{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*+", re.ASCII)
PLAIN_OCTETS = 64
_ASCII_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9@._+=-]*")
_UNSAFE_NAME = re.compile(r"[^a-z0-9@._+=-]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

# Most headers hold one mailbox in one of two plain shapes; these two read them at once. The third is for long lists of such.
_BARE = re.compile(r"\s*([A-Za-z0-9._+=-]+)@([A-Za-z0-9.-]+)\s*")
_NAMED = re.compile(
    r"""\s*+(?:"([\w .,@'()+-]*+)"|([\w'+-]++(?:[ .]++[\w'+-]++)*+\.?))?\s*+<([A-Za-z0-9._+=-]++)@([A-Za-z0-9.-]++)>\s*+"""
)
_ATOMS = r"""[^\s\x00-\x1f\x7f-\x9f"(),:;<>\[\]\\@?]++"""
_LISTED = re.compile(rf"(?:\s*+({_ATOMS})(?:@({_ATOMS}))?\s*+|{_NAMED.pattern}),(?:\s*+,)*+")

_TOKEN = re.compile(
    r"""
      (?P<quoted> " [^"\\]*+ (?: \\. [^"\\]*+ )*+ " )
    | (?P<space>  [\s\x00-\x1f\x7f]++ )
    | (?P<word>   =\?[^?\s]++\?[bBqQ]\?[^?\s]*+\?=
                | (?: [^\s\x00-\x1f\x7f"(),:;<>\[\]\\@] | \\. )++ (?: @ (?!=\?) [^\s\x00-\x1f\x7f"(),:;<>\[\]\\@]++ )*+
                | \[ [^\[\]\\<>,;]*+ \] )
    | (?P<comma>  ,(?: \s*+, )*+ )
    | (?P<mark>   . )
    """,
    re.VERBOSE | re.DOTALL,
)
_ENCODED_WORD = re.compile(r"=\?[^?]*+\?[^?]*+\?[^?]*+\?=")
_QUOTES_CLOSED = re.compile(r'(?:[^"]|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_PARENTHESIS = re.compile(r"\\.|[()]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox (RFC 5322 §3.4).

    `display` "" has no name; `domain` "" is a local name such as `postmaster`; all three "" is the null sender.
    """

    display: str
    local: str
    domain: str

    @property
    def bare(self) -> str:
        """`local@domain`, as written."""
        return f"{self.local}@{self.domain}" if self.domain else self.local


def parse(text: str) -> list[Address]:
    """The mailboxes of a header's value or of comma-separated text, in order. Never raises; what is no address is left out.

    Groups are dissolved, comments and source routes dropped, missing brackets and quotes forgiven. Give it the header as it was received:
    a comma that only decoding an encoded word brings forth parts no addresses (RFC 2047 §5).
    """
    if len(text) <= ADDRESS_OCTETS:
        if plain := _BARE.fullmatch(text):
            return [Address("", plain[1], plain[2])]
        if named := _NAMED.fullmatch(text):
            return [Address((named[1] or named[2] or "").strip(), named[3], named[4])]
    reader = _Reader()
    reader.read(text[:LONGEST_LIST])
    return reader.found


def _comment_end(text: str, start: int) -> int | None:
    depth = 1
    for found in _PARENTHESIS.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if not depth:
            return found.end()
    return None


class _Reader:
    """Takes tokens, finds mailboxes."""

    def __init__(self) -> None:
        self.found: list[Address] = []
        self._begin()

    def _begin(self) -> None:
        self.words: list[str] = []  # outside angle brackets; " " for a gap
        self.angle: list[str] | None = None  # inside them; None when outside
        self.comment = ""
        self.done = False  # this mailbox had its angle brackets already

    def read(self, text: str) -> None:
        """All of the text. A parenthesis that nothing closes is a mark, and so are those after it: one scan, not many."""
        at, closed = self._take_plain(text, 0), True
        while found := _TOKEN.match(text, at):
            kind, token, at = found.lastgroup, found[0], found.end()
            if kind == "space":
                if self.angle is None:
                    self.words.append(" ")
            elif kind == "comma":
                self._mark(",")
                at = self._take_plain(text, at) if self.angle is None else at
            elif kind == "mark" and token in "<>;:":
                self._mark(token)
            elif token == "(" and closed and (end := _comment_end(text, at)):
                self.comment, at = self.comment or text[at : end - 1], end
            else:
                closed = closed and token != "("
                (self.words if self.angle is None else self.angle).append(token)
        self._end_mailbox()

    def _take_plain(self, text: str, at: int) -> int:
        """The plain mailboxes of a list that stand here, each with its comma. Returns where they end."""
        while (plain := _LISTED.match(text, at)) and _is_short(plain[0]):
            local, domain, quoted, phrase, named_local, named_domain = plain.groups("")
            if local:
                self.found.append(Address("", local, domain))
            else:
                self.found.append(Address(quoted.strip() or " ".join(phrase.split()), named_local, named_domain))
            at = plain.end()
        return at

    def _mark(self, mark: str) -> None:
        route = self.angle is not None and self.angle[:1] == ["@"]
        if mark == "<":
            self.angle = []
        elif mark == ">":
            self._end_angle()
        elif mark == ":" and self.angle is None:
            self.words.clear()  # that was a group's name
        elif route and mark in ",:":
            self.angle = [] if mark == ":" else self.angle
        elif mark != ":":
            self._end_mailbox()

    def _end_angle(self) -> None:
        if self.angle is not None:
            self._add(_phrase(_words(self.words)), "".join(self.angle))
            self.words, self.angle, self.done = [], None, True

    def _end_mailbox(self) -> None:
        self._end_angle()
        words = _words(self.words)
        at = next((at for at in reversed(range(len(words))) if "@" in words[at] and not _is_quoted(words[at])), None)
        if at is not None:
            others = words[:at] + words[at + 1 :]
            self._add(_phrase(others) or _clean(self.comment), words[at])
        elif len(words) == 1 and not self.done and '"' not in words[0]:
            self._add(_clean(self.comment), words[0])
        self._begin()

    def _add(self, display: str, bare: str) -> None:
        local, at, domain = bare.rpartition("@")
        if "=?" in bare and _ENCODED_WORD.search(bare):
            return  # RFC 2047 §5: no address has one in it
        if "\\" in domain or bare.endswith("\\") or ('"' in bare and (not at or not _QUOTES_CLOSED.fullmatch(bare))):
            return  # written among others it would swallow them
        if not _is_short(bare):
            return  # RFC 5321 §4.5.3.1.3: no server takes it
        if not at:
            local, domain = domain, ""
        elif not (local and domain) or _is_quoted(bare):
            return
        if _is_quoted(local) and _DOT_ATOM.fullmatch(_unquoted(local)):
            local = _unquoted(local)  # RFC 5321 §4.1.2: the quotes mean nothing then
        self.found.append(Address(display, _clean(local), _clean(domain)))


def _is_short(bare: str) -> bool:
    return len(bare) <= ADDRESS_OCTETS // 4 or len(bare.encode("utf-8", "surrogatepass")) <= ADDRESS_OCTETS


def _words(tokens: list[str]) -> list[str]:
    """Tokens joined where no gap parts them; the gaps around an @ are none."""
    words: list[list[str]] = [[]]
    for at, token in enumerate(tokens):
        if token != " ":
            words[-1].append(token)
        elif words[-1] and "@" not in (tokens[at - 1], *tokens[at + 1 : at + 2]):
            words.append([])
    return ["".join(word) for word in words if word]


def _is_quoted(word: str) -> bool:
    return len(word) > 1 and word[0] == word[-1] == '"'


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL)


def _phrase(words: list[str]) -> str:
    return _clean(" ".join(_unquoted(word) if _is_quoted(word) else word for word in words))


def _clean(text: str) -> str:
    return text.strip() if text.isprintable() else _CONTROLS.sub(" ", text).strip()


def bare_addresses(value: str | Iterable[str] | None) -> list[str]:
    """Normalised bare addresses in order, without duplicates, out of comma-separated text or several such. Never the null sender."""
    found: dict[str, None] = {}
    for text in [value] if isinstance(value, str) else value or []:
        for bare in _bare_in(text):
            found[bare] = None
    return [*found]


def bare_address(value: str | Iterable[str] | None) -> str | None:
    """The first bare address, normalised; None when there is none. `""` and `"<>"` are the null sender, `""`."""
    if not isinstance(value, str):
        return next((bare for text in value or [] for bare in _bare_in(text)), None)
    if len(value) <= ADDRESS_OCTETS and (plain := _plain(value)) is not None:
        return plain
    if value.strip() in ("", "<>"):
        return NULL
    return next(iter(_bare_in(value)), None)


def _bare_in(text: str) -> Iterable[str]:
    """The bare addresses of one text. An envelope's, asked for several times a delivery, are nearly always as plain as can be."""
    plain = _plain(text) if len(text) <= ADDRESS_OCTETS else None
    return (plain,) if plain is not None else (normalise(found.bare) for found in parse(text) if found.local)


@lru_cache(maxsize=256)
def _plain(text: str) -> str | None:
    """The text, normalised, if it is nothing but a bare address of the plainest kind."""
    return normalise(text) if _BARE.fullmatch(text) else None


def normalise(address: str) -> str:
    """The form in which addresses are compared, routed and kept: lower case, NFC. Accents stay: `jose` is not `josé`."""
    address = address.strip()
    return address.lower() if address.isascii() else unicodedata.normalize("NFC", address.lower())


def check(path: str, utf8: bool = False) -> str:
    """The bare address of a reverse-path or forward-path, with or without its angle brackets (RFC 5321 §4.1.2), as it was written.

    `utf8`: the client said SMTPUTF8 (RFC 6531). A source route is dropped (RFC 5321 appendix C); `<>` gives `NULL`, which only MAIL
    takes; `postmaster` needs no domain (§4.5.1). Anything else that is not exactly a mailbox raises `AddressError` with the reason.
    """
    address = path[1:-1] if path.startswith("<") and path.endswith(">") else path
    if len(address) <= PLAIN_OCTETS and PLAIN.fullmatch(address):
        return address
    if address.startswith("@"):
        address = _without_route(address)
    if address == NULL or address.lower() == "postmaster":
        return address
    if not utf8 and not address.isascii():
        raise AddressError("The address is not ASCII, and SMTPUTF8 was not asked for.")
    local, at, domain = address.rpartition("@")
    if not at:
        raise AddressError("The address has no domain.")
    _check_limits(local, domain)
    if not (_DOT_ATOM.fullmatch(local) or _QUOTED.fullmatch(local)):
        raise AddressError("The part before the @ is not a mailbox name.")
    _check_domain(domain)
    return address


def _without_route(address: str) -> str:
    route, colon, rest = address.partition(":")
    if not colon:
        raise AddressError("The source route has no end.")
    for hop in route.split(","):
        if not hop.startswith("@"):
            raise AddressError("The source route is malformed.")
        _check_domain(hop[1:])
    return rest


def _check_limits(local: str, domain: str) -> None:
    """RFC 5321 §4.5.3.1, in octets of UTF-8; a lone surrogate counts as three and is refused later."""
    octets = [len(part.encode("utf-8", "surrogatepass")) for part in (local, domain)]
    if octets[0] > LOCAL_OCTETS:
        raise AddressError(f"The part before the @ is longer than {LOCAL_OCTETS} octets.")
    if octets[1] > DOMAIN_OCTETS or sum(octets) + 1 > ADDRESS_OCTETS:
        raise AddressError(f"The address is longer than {ADDRESS_OCTETS} octets.")


def _check_domain(domain: str) -> None:
    if domain.startswith("[") and domain.endswith("]"):
        _check_literal(domain[1:-1])
    elif not all(len(label.encode("utf-8", "surrogatepass")) <= 63 and _LABEL.fullmatch(label) for label in domain.split(".")):
        raise AddressError("The domain is not a domain name.")


def _check_literal(literal: str) -> None:
    """An IPv4 or IPv6 address literal (RFC 5321 §4.1.3); no other tag is registered."""
    try:
        if literal[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(literal[5:])
        else:
            ipaddress.IPv4Address(literal)
    except ValueError:
        raise AddressError("The address literal is not an IP address.") from None


def domain_of(address: str) -> str:
    """What follows the last @, in lower case; "" when nothing does."""
    return address.rpartition("@")[2].lower() if "@" in address else ""


def needs_smtputf8(address: str) -> bool:
    """The address as it stands is not ASCII. When only its domain is not, `to_ascii_domain` makes it fit for servers without SMTPUTF8."""
    return not address.isascii()


def to_ascii_domain(address: str) -> str:
    """The address with its domain in A-labels, `user@xn--...` (RFC 5890); one whose domain is ASCII is returned as it is.

    `ß` and `ς` keep their own labels, as registries have them since IDNA 2008: under the standard library's codec of 2003 the mail would
    go to another's domain. Raises `AddressError` for a domain that has no such form.
    """
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return address
    mapped = unicodedata.normalize("NFKC", domain.lower()).replace("\u3002", ".")
    ascii_domain = ".".join(_ascii_label(label) for label in mapped.split("."))
    if len(ascii_domain) > DOMAIN_OCTETS:
        raise AddressError(f"The domain is longer than {DOMAIN_OCTETS} octets.")
    written = f"{local}{at}{ascii_domain}"
    if len(written.encode("utf-8", "surrogatepass")) > ADDRESS_OCTETS:
        raise AddressError(f"The address is longer than {ADDRESS_OCTETS} octets.")
    return written


def _ascii_label(label: str) -> str:
    if len(label) > 63 or not label.isprintable() or (not label.isascii() and re.search(r"[\x00-,/:-@\[-`{-\x7f\s]", label)):
        raise AddressError(f"{label[:63]!r} cannot be part of a domain name.")
    ascii_label = label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
    if len(ascii_label) > 63 or not _ASCII_LABEL.fullmatch(ascii_label):
        raise AddressError(f"{label!r} cannot be part of a domain name.")
    return ascii_label


def file_name(address: str) -> str:
    """A name for a file or folder of this address: one path component, safe against `..`, `/`, NUL, leading dots and dashes.

    Two different addresses have two different names, also where the file system ignores case: what had to be changed gets `~` and a
    digest, and `~` is in no other name. At most `FILE_NAME_OCTETS` octets. Normalise first where `Joe@` and `joe@` shall be one.
    """
    if _SAFE_NAME.fullmatch(address) and len(address) <= FILE_NAME_OCTETS:
        return address
    digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    readable = _UNSAFE_NAME.sub("_", address.lower())[: FILE_NAME_OCTETS - len(digest) - 2]
    return f"{readable.lstrip('.-') or '_'}~{digest}"
