"""How one delivery's cost grows with what the database holds already. Prints messages, seconds and CPU seconds as JSON.

    python growth.py states SENDERS FOLDER     moves of state, among so many senders
    python growth.py later ROWS FOLDER         mail sent beside so much that is not due yet
    python growth.py due ROWS FOLDER           a backlog of so much that is due
"""

import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import sqlalchemy as sa
from timing import timed

from lamson import delivery
from lamson.database import Database, FSMState, Message, OutboxRow, configure_database
from lamson.delivery import Outgoing
from lamson.errors import RelayError
from lamson.outbox import Outbox

FEW = 500
LETTER = b"From: list@example.com\r\nTo: ann@example.com\r\nSubject: An answer\r\n\r\nIt has arrived.\r\n"


class Nowhere:
    """A relay whose next server takes everything at once."""

    name = "default"

    def destination(self, rcpt_to: str) -> str:
        return "next.example"

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        return {}

    def hand_over_all(self, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
        return map(self.hand_over, mails)

    def close(self) -> None:
        pass

    def close_idle(self) -> None:
        pass


def fill(database: Database, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    """Writes many rows, ten thousand a transaction."""
    while some := list(islice(rows, 10_000)):
        with database.transaction() as session:
            session.execute(sa.insert(table), some)


def states(database: Database, senders: int) -> Callable[[], int]:
    """Each move is a delivery: the state is read, another one committed."""
    fill(database, FSMState, ({"fsm": "app.post", "sender": f"person{n}@example.com", "state": "START"} for n in range(senders)))
    asked = random.Random(1)

    def work() -> int:
        for number in range(FEW):
            sender = f"person{asked.randrange(senders)}@example.com"
            with delivery.begin(database.states, "list@example.com", sender) as held:
                held.get_state("app.post", sender)
                held.set_state("app.post", sender, f"STATE_{number}")
        return FEW

    return work


def waiting(database: Database, rows: int, due: float) -> None:
    """Answers of as many deliveries, each to somebody else."""
    fill(database, Message, ({"id": f"{due:.0f}-{n}", "data": LETTER} for n in range(rows)))
    common = {"relay": "default", "delivery": "", "mail_from": "list@example.com", "destination": "next.example"}
    common |= {"created": time.time(), "due": due}
    fill(database, OutboxRow, (common | {"message": f"{due:.0f}-{n}", "rcpt_to": f"person{n}@example.com"} for n in range(rows)))


def later(database: Database, rows: int) -> Callable[[], int]:
    waiting(database, rows, time.time() + 86400)
    waiting(database, FEW, time.time() - 1)
    return lambda: drained(database, FEW)


def due(database: Database, rows: int) -> Callable[[], int]:
    waiting(database, rows, time.time() - 1)
    return lambda: drained(database, rows)


def drained(database: Database, rows: int) -> int:
    assert Outbox(database, [Nowhere()]).drain(600), "not everything was sent"
    return rows


def main() -> None:
    what, number, folder = sys.argv[1:]
    database = configure_database({"url": f"sqlite:///{folder}/growth.db"}, also_create=True)
    work = {"states": states, "later": later, "due": due}[what](database, int(number))
    print(json.dumps(timed(work)))
    database.dispose()


main()
