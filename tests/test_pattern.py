"""Formats, literal ends, and the warning of endless backtracking."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamson import pattern
from tests.cost import assert_costs_less


@pytest.mark.parametrize(
    ("format", "captures", "expected"),
    [
        ("(name)@(host)", {"name": "[a-z]+", "host": r"test\.com"}, r"(?P<name>[a-z]+)@(?P<host>test\.com)"),
        ("(jpg|png)@host", {}, "(jpg|png)@host"),
        ("(list)@x", {}, "(list)@x"),
        (r"\(name)@x", {"name": "a"}, r"\(name)@x"),
        ("(?:name)@x", {"name": "a"}, "(?:name)@x"),
    ],
)
def test_expand(format: str, captures: dict[str, str], expected: str) -> None:
    assert pattern.expand(format, captures) == expected


@pytest.mark.parametrize(
    ("regex", "ends"),
    [
        (r"list-(?P<x>.+)@test\.com", ("list-", "@test.com")),
        (r"(?P<name>.+)-(?P<act>post)@(?P<host>Test\.com)", ("", "-post@test.com")),
        ("a|b", ("", "")),
        ("post(a|b)@x", ("post", "@x")),
        ("posts?@x", ("post", "@x")),
        ("a{2}b", ("", "b")),
        ("^abc$", ("abc", "abc")),
        ("[a-z]+@x", ("", "@x")),
        (r"[]\]]@x", ("", "@x")),
        (r"\w+\.x", ("", ".x")),
        ("(?=abc)abc", ("", "abc")),
        ("(?i:abc)d", ("", "d")),
        ("(a)(?P=a)z", ("a", "z")),
        ("", ("", "")),
    ],
)
def test_literal_ends(regex: str, ends: tuple[str, str]) -> None:
    assert pattern.literal_ends(regex) == ends


@pytest.mark.parametrize("regex", ["(a+)+", r"(\w*)*@x", "((a|b+))*", "([a-z]+)+-x", "(?:.+)+"])
def test_an_endless_pattern_is_seen(regex: str) -> None:
    assert pattern.backtracks(regex)


@pytest.mark.parametrize("regex", [".+@x", r"([a-z]+\.)+com", "(a|b)+", "(abc)+", r"(?P<a>.+)-(?P<b>.+)@x", "[a+]+", r"\(+"])
def test_an_ordinary_pattern_is_not_warned_of(regex: str) -> None:
    assert not pattern.backtracks(regex)


_pieces = st.sampled_from(["a", "b", "-", "@", r"\.", ".", "(a|b)", "(?P<n>ab)", "[a-b]", "b*", "a?", "(?:ab)+", "a{1,2}", "ab|ba"])


@given(st.lists(_pieces, max_size=6).map("".join).filter(lambda p: p.count("?P<n>") < 2), st.text("ab-@.", max_size=8))
def test_the_index_never_hides_a_match(regex: str, text: str) -> None:
    index = pattern.Index.of([regex])
    if re.fullmatch(regex, text, re.IGNORECASE):
        assert index.candidates(text.lower()) == [0]


def test_a_wrong_regex_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="'\\(' is wrong"):
        pattern.compiled("(", ValueError)


def test_ten_thousand_patterns_are_passed_over_by_their_rarer_end() -> None:
    index = pattern.Index.of([rf"list{n}-(?P<a>[a-z]+)@(?P<host>test\.com)" for n in range(10_000)])
    assert index.candidates("list77-post@test.com") == [77]


def test_domains_and_local_parts_of_every_length_are_found_at_once() -> None:
    """No look for each length: one host may serve thousands of domains."""
    domains = [rf"(?P<a>[a-z]+)@{'x' * n}\.example" for n in range(1, 200)]
    index = pattern.Index.of([*domains, *(rf"{'y' * n}@(?P<host>.+)" for n in range(1, 200)), "(?P<a>.+)-bounce@(?P<host>.+)"])
    assert (index.heads, index.tails, len(index.anywhere)) == ((), (), 1)
    assert index.candidates("ann@xxx.example") == [2, 398]
    assert index.candidates("yyy@elsewhere.example") == [201, 398]
    assert index.candidates("yyy@xxx.example") == [2, 201, 398]
    assert index.candidates("yyy") == index.candidates('"a@yyy"@z') == index.candidates("") == [398]


def test_scanning_a_long_pattern_is_linear() -> None:
    assert_costs_less(5, lambda: pattern.literal_ends("(a)" * 5000 + "[x]" * 5000))
