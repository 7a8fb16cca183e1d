"""From a route's format to a regular expression, and what can be known of that without running it.

`expand` puts captures into a format. `literal_ends` tells the text that every match must begin and end with, by which the router
passes over nearly all of ten thousand routes without trying one. `backtracks` tells a pattern that some text could keep busy for
ever. Pure; knows nothing of functions, messages or states.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

#: `(name)` in a format; `\(name)` is escaped and `(?...)` never fits.
_PLACE = re.compile(r"(?<!\\)\((\w+)\)")


def names(format: str) -> list[str]:
    """The words in parentheses that may be captures, in order."""
    return [name for name in _PLACE.findall(format) if name.isidentifier()]


def expand(format: str, captures: Mapping[str, str]) -> str:
    """Each `(name)` that has a regex becomes a group of that name; every other pair of parentheses is a plain group and stays."""

    def place(found: re.Match[str]) -> str:
        name = found.group(1)
        return f"(?P<{name}>{captures[name]})" if name in captures else found.group(0)

    return _PLACE.sub(place, format)


@dataclass(slots=True)
class _Sequence:
    """A run of atoms: each its literal text, or None where it could be several."""

    atoms: list[str | None] = field(default_factory=list)
    certain: bool = True  # False: there are alternatives, so nothing in it is sure
    repeats: bool = False  # something in it is repeated without bound

    @property
    def literal(self) -> str | None:
        """The one text that this can be, if it is only one."""
        return "".join(map(str, self.atoms)) if self.certain and None not in self.atoms else None

    @property
    def ambiguous(self) -> bool:
        """Repeated, one text could be read in many ways: it repeats something, and no sure text parts one turn from the next."""
        return self.repeats and not (self.certain and any(self.atoms))


class _Scan:
    """Reads a regex from left to right. It need not understand everything: what it does not know is 'could be anything'."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.nested = False  # an unbounded repetition of something ambiguous

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        self.at += 1
        return self.pattern[self.at - 1 : self.at]

    def sequence(self) -> _Sequence:
        """Up to the closing parenthesis or the end."""
        read = _Sequence()
        while (char := self.peek()) and char != ")":
            if char == "|":
                self.at += 1
                read.certain = False
                continue
            inner, literal = self.atom()
            many = self.quantifier()
            read.repeats |= many == "many" or (inner is not None and inner.repeats)
            self.nested |= many == "many" and inner is not None and inner.ambiguous
            read.atoms.append(None if many else literal)
        return read

    def atom(self) -> tuple[_Sequence | None, str | None]:
        """One atom: the sequence within it, if it is a group, and its literal text, if it has just one."""
        char = self.take()
        if char == "(":
            return self.group()
        if char == "[":
            return self.char_class()
        if char == "\\":
            escaped = self.take()
            return None, None if escaped.isalnum() else escaped.lower()
        if char in "^$":  # a whole address is matched, so these add nothing
            return None, ""
        return None, None if char == "." else char.lower()

    def group(self) -> tuple[_Sequence, str | None]:
        head = re.compile(r"\?(?:P<\w+>|:|P=\w+|[^)]?[=!>]?)").match(self.pattern, self.at) if self.peek() == "?" else None
        plain = head is None or head.group().startswith(("?P<", "?:"))
        self.at = head.end() if head else self.at
        inner = self.sequence()
        self.at += 1
        return inner, inner.literal if plain else None

    def char_class(self) -> tuple[None, None]:
        found = re.compile(r"\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL).match(self.pattern, self.at)
        self.at = found.end() if found else len(self.pattern)
        return None, None

    def quantifier(self) -> str:
        """ "" for none, "some" for a bounded one, "many" for one without bound."""
        found = re.compile(r"(?:[*+?]|\{\d*,?\d*\})[?+]?").match(self.pattern, self.at)
        if not found:
            return ""
        self.at = found.end()
        return "many" if found.group()[0] in "*+" or ",}" in found.group() else "some"


def literal_ends(pattern: str) -> tuple[str, str]:
    """The lower-case text that everything this matches begins with, and ends with; "" where nothing is certain."""
    read = _Scan(pattern).sequence()
    if not read.certain:
        return "", ""
    return "".join(_until_unknown(read.atoms)), "".join(reversed(list(_until_unknown(read.atoms[::-1]))))


def _until_unknown(atoms: list[str | None]) -> Iterator[str]:
    for atom in atoms:
        if atom is None:
            return
        yield atom


def backtracks(pattern: str) -> bool:
    """Whether it repeats without bound what itself repeats, as `(a+)+`: some text takes time exponential in its length."""
    scan = _Scan(pattern)
    scan.sequence()
    return scan.nested


Numbers = Mapping[str, list[int]]


@dataclass(frozen=True, slots=True)
class Index:
    """Which of many patterns could match a text, by their literal ends.

    An end that is a whole local part (`support@`) or a whole domain (`@example.com`) is found at once, however many there are. Others
    cost a look for each different length. `anywhere` are the patterns that have no literal end.
    """

    anywhere: tuple[int, ...]
    local_parts: Numbers
    domains: Numbers
    heads: tuple[tuple[int, Numbers], ...]
    tails: tuple[tuple[int, Numbers], ...]

    @classmethod
    def of(cls, patterns: list[str]) -> Index:
        ends = [literal_ends(pattern) for pattern in patterns]
        heads, tails = _count(head for head, _ in ends), _count(tail for _, tail in ends)
        anywhere: list[int] = []
        by_head: dict[str, list[int]] = {}
        by_tail: dict[str, list[int]] = {}
        for number, (head, tail) in enumerate(ends):
            if head and (not tail or heads[head] <= tails[tail]):  # the rarer end says more
                by_head.setdefault(head, []).append(number)
            elif tail:
                by_tail.setdefault(tail, []).append(number)
            else:
                anywhere.append(number)
        local_parts = _split_off(by_head, lambda head: head.find("@") == len(head) - 1)
        domains = _split_off(by_tail, lambda tail: tail.rfind("@") == 0)
        return cls(tuple(anywhere), local_parts, domains, _by_length(by_head), _by_length(by_tail))

    def candidates(self, text: str) -> list[int]:
        """The numbers of the patterns that could match, in order. `text` in lower case."""
        found = [*self.anywhere]
        found += self.local_parts.get(text[: text.find("@") + 1], ())
        found += self.domains.get(text[text.rfind("@") :], ())
        for length, heads in self.heads:
            found += heads.get(text[:length], ())
        for length, tails in self.tails:
            found += tails.get(text[-length:], ())
        found.sort()
        return found


def _split_off(ends: dict[str, list[int]], wanted: Callable[[str], bool]) -> Numbers:
    """Takes those of a kind out of `ends`."""
    return {end: ends.pop(end) for end in [end for end in ends if wanted(end)]}


def _by_length(ends: Numbers) -> tuple[tuple[int, Numbers], ...]:
    lengths: dict[int, dict[str, list[int]]] = {}
    for end, numbers in ends.items():
        lengths.setdefault(len(end), {})[end] = numbers
    return tuple(lengths.items())


def _count(texts: Iterator[str]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for text in texts:
        counted[text] = counted.get(text, 0) + 1
    return counted


def compiled(pattern: str, explain: Callable[[str], Exception]) -> re.Pattern[str]:
    """The pattern compiled, ignoring case. A mistake in it raises what `explain(sentence)` makes."""
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise explain(f"the regular expression {pattern!r} is wrong: {error}") from None
