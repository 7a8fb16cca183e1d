"""What strangers send: smuggling, addresses as paths, template tricks, idle and slow clients. The quick forms."""

from __future__ import annotations

from tests.faults import addresses, idle, smuggling, templates


def test_never_two_messages_out_of_one() -> None:
    assert smuggling.run()["hidden messages handled"] == 0


def test_no_address_leads_out_of_the_run_folders() -> None:
    assert addresses.run()["files touched outside the run folders"] == 0


def test_what_a_stranger_wrote_is_not_evaluated() -> None:
    figures = templates.run()
    assert figures["answers"] == 4 * len(templates.TRICKS)


def test_idle_slow_and_deaf_clients_hold_up_no_other() -> None:
    idle.run(idle=200, slow=10, messages=50, idle_seconds=3)
