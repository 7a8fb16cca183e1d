"""Automatic mail, mail that comes again, large mail: the quick forms."""

from __future__ import annotations

from tests.faults import again, automatic, large


def test_automatic_mail_gets_no_answer_and_a_ring_ends() -> None:
    figures = automatic.run(quiet=0.5)
    assert figures["answers to them"] == 0
    assert figures["messages in the ring of two applications"] == 2


def test_what_comes_again_is_handled_once_and_never_swallowed() -> None:
    assert set(again.run()["handled"]) == {"two", "unnamed", "broken", "middle"}  # type: ignore[call-overload]


def test_large_answers_many_states_and_greedy_routes() -> None:
    assert large.run(rows=50_000)["came whole"]
