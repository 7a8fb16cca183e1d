"""`lamson web` serves what lies below its directory."""

from __future__ import annotations

import functools
import http.client
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from lamson.commands.web import FilesBelow
from tests.commands.conftest import Type


class Quiet(FilesBelow):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port(run_folder: Path) -> Iterator[int]:
    Path("secret.txt").write_text("secret")
    Path("public").mkdir()
    Path("public/page.html").write_text("<p>Hello</p>")
    Path("public/out").symlink_to(run_folder / "secret.txt")
    Path("public/up").symlink_to(run_folder)
    Path("public/in").symlink_to("page.html")
    Path("public-too").mkdir()
    Path("public-too/page.txt").write_text("secret")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(run_folder / "public"))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_page(port: int) -> None:
    assert get(port, "/page.html") == (200, b"<p>Hello</p>")
    assert get(port, "/in") == (200, b"<p>Hello</p>")


@pytest.mark.parametrize(
    "path",
    [
        "/out",
        "/up/secret.txt",
        "/up/",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "//secret.txt",
        "/../public-too/page.txt",
        "/nothing",
        "/%00",
    ],
)
def test_nothing_from_elsewhere(port: int, path: str) -> None:
    status, body = get(port, path)
    assert status == 404
    assert b"secret" not in body.replace(b"secret.txt", b"")


def test_a_directory_that_is_not_there(lamson: Type, run_folder: Path) -> None:
    done = lamson("web", "-basedir", "nowhere")
    assert done.status == 1
    assert "There is no directory nowhere" in done.err
