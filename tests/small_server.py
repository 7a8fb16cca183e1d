"""A program for tests/test_process.py: a server that answers every connection with its process number. It knows no mail either.

    python small_server.py '{"pid": "run/x.pid", ...}' '{"port": 0, ...}'

The first argument is for `lamson.process.Server`, the second says what goes wrong.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lamson.errors import ConfigError, LamsonError
from lamson.process import Server


class Receiver:
    def __init__(self, wrong: dict[str, Any]) -> None:
        self.wrong = wrong

    def start(self, sockets: dict[tuple[str, int], socket.socket] | None = None) -> None:
        self.listening = next(iter((sockets or {}).values()), None) or socket.create_server(("127.0.0.1", self.wrong.get("port", 0)))
        self.address = self.listening.getsockname()
        threading.Thread(target=self.answer, daemon=True).start()

    def answer(self) -> None:
        while True:
            connection, _ = self.listening.accept()
            with connection:
                connection.sendall(str(os.getpid()).encode())

    def stop(self) -> None:
        while "drains_until" in self.wrong and not Path(self.wrong["drains_until"]).exists():
            time.sleep(0.01)
        Path("drained").touch()


class Outbox:
    def start(self) -> None:
        pass

    def stop(self) -> None:
        Path("outbox").write_text("after the receiver" if Path("drained").exists() else "too early")


def load(wrong: dict[str, Any]) -> Any:
    logging.basicConfig(level=logging.INFO)
    print("printed by the boot", flush=True)
    if Path("broken").exists():
        raise ConfigError("it is broken. Mend it")
    if "raises" in wrong:
        raise ConfigError("config/settings.py, line 3: wrong. Put it right")
    if "explodes" in wrong:
        raise ValueError("nobody expected this")
    if "dies" in wrong:
        os._exit(9)
    return SimpleNamespace(receiver=Receiver(wrong), outbox=Outbox())


def main() -> None:
    terms, wrong = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    bind = (lambda: {("127.0.0.1", 0): socket.create_server(("127.0.0.1", 0))}) if terms.get("workers") else dict
    try:
        Server(lambda: load(wrong), bind=bind, **terms).start(tell=lambda text: print(text, flush=True))
    except LamsonError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
