"""`kill -9` at random moments, under load: every message handled exactly once, every answer sent at least once.

200 senders write through a conversation of three states, in order, with a client that tries again until it hears 250. Each message
leaves one row of the application and one answer. The server is killed with all its workers whenever chance says so, also while it
starts; with workers, every other time only one of them is.
"""

from __future__ import annotations

import random
import time

from tests.faults.client import Letter, Sender, letter
from tests.faults.figures import Figures, promise
from tests.faults.scene import Scene, scene
from tests.faults.sink import Sink

STATES = ("START", "MIDDLE", "LAST")


def run(
    kills: int = 20, messages: int = 5000, senders: int = 200, workers: int = 1, database: str = "sqlite", seed: int = 0, threads: int = 20
) -> Figures:
    """`seed` 0 takes one by chance; it is among the figures, so that a run can be made again."""
    seed = seed or random.randrange(1, 10**6)
    letters = conversation(messages, senders)
    with Sink() as sink, scene(database, workers, relay_config={"port": sink.port}, **timings()) as server:
        server.start()
        began = time.monotonic()
        client = Sender(server.port, letters, threads)
        with client:
            done = kill_now_and_then(server, client, kills, random.Random(seed))
            client.join(600)
        took = time.monotonic() - began
        missing = sink.wait_for({each.mark for each in letters}, 120)
        promise(not missing, f"{len(missing)} answers never came, for instance to {sorted(missing)[:3]}")
        server.wait(lambda: server.waiting() == 0, "an empty outbox")
        server.stop()
        figures = {"database": database, "workers": workers, "seed": seed, "messages": messages, "kills": done, "seconds": took}
        return figures | judge(server, sink, letters) | {"heard by the client": dict(client.codes)}


def timings() -> dict[str, object]:
    return {"outbox_config": {"pauses": [0.5, 1.0], "lease": 30.0}}


def conversation(messages: int, senders: int) -> list[Letter]:
    """The letters, round about the senders: `sender-number` is the mark."""
    return [letter(f"{n % senders}-{n // senders}", f"sender{n % senders}@client.test") for n in range(messages)]


def kill_now_and_then(server: Scene, client: Sender, kills: int, chance: random.Random) -> dict[str, int]:
    """Kills when the count of messages taken passes points that chance has set, a random instant later; every fifth time during the
    start that follows, too."""
    total = len(list(client.letters))
    done = {"the whole server": 0, "one worker": 0, "in the midst of a start": 0}
    for number, point in enumerate(sorted(chance.sample(range(1, total), kills))):
        while len(client.kept) < point and client.working:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        if server.workers > 1 and number % 2:
            server.kill_worker(chance.randrange(server.workers))
            done["one worker"] += 1
            continue
        server.kill()
        done["the whole server"] += 1
        if number % 5 == 4:
            server.launch()
            time.sleep(chance.uniform(0, 1.5))
            server.kill()
            done["in the midst of a start"] += 1
        server.launch()
    server.wait_ready()
    return done


def judge(server: Scene, sink: Sink, letters: list[Letter]) -> Figures:
    """Counts rows, moves and answers. Raises `Broken` for the first that is not as promised."""
    wanted = {each.mark for each in letters}
    marks = server.marks()
    lost = wanted - marks.keys()
    twice = {mark: count for mark, count in marks.items() if count > 1}
    promise(not lost, f"{len(lost)} messages were answered 250 and left no row, for instance {sorted(lost)[:3]}")
    promise(not twice, f"{len(twice)} messages left more than one row: {dict(list(twice.items())[:3])}")
    promise(not server.undeliverable(), f"{len(server.undeliverable())} messages are in the undeliverable queue")
    moves = judge_moves(server, letters)
    answers = sink.by_mark()
    named_anew = [mark for mark, ids in answers.items() if len(ids) != 1]
    promise(not named_anew, f"the answers to {named_anew[:3]} came under several Message-IDs: {[answers[m] for m in named_anew[:3]]}")
    promise(answers.keys() == wanted, f"answers to what was not asked: {sorted(answers.keys() - wanted)[:3]}")
    repeats = sum(sum(ids.values()) - 1 for ids in answers.values())
    return {
        "rows": sum(marks.values()),
        "moves of state": moves,
        "answers": len(answers),
        "answers that came again, with the same Message-ID": repeats,
        "messages that came again, answered by their receipt": server.count_in_log("handled before"),
    }


def judge_moves(server: Scene, letters: list[Letter]) -> int:
    """Each sender has gone through the states in order, one a message, and its row counts as many runs."""
    runs: dict[str, list[tuple[str, str]]] = {}
    for mark, sender, _, state in server.handled():
        runs.setdefault(sender, []).append((mark, state))
    sent: dict[str, list[str]] = {}
    for each in letters:
        sent.setdefault(each.sender, []).append(each.mark)
    kept = server.states()
    for sender, marks in sent.items():
        expected = [(mark, STATES[number % 3]) for number, mark in enumerate(marks)]
        promise(runs[sender] == expected, f"{sender} went {runs[sender]} and not {expected}")
        end = (STATES[len(marks) % 3], len(marks))
        promise(kept[sender] == end, f"the state of {sender} is {kept[sender]} and not {end}")
    return sum(version for _, version in kept.values())
