"""`lamson web`: the files of a directory over HTTP, to look at what an application wrote. It is for one's own machine."""

from __future__ import annotations

import functools
import io
import os
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO

import click

from lamson.commands.style import command, option
from lamson.errors import ConfigError


class FilesBelow(SimpleHTTPRequestHandler):
    """Serves what lies below its directory, also when a symbolic link there leads elsewhere."""

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        if not self._is_below(self.translate_path(self.path)):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def _is_below(self, path: str) -> bool:
        base = os.path.realpath(self.directory)
        return "\0" not in path and os.path.commonpath([base, os.path.realpath(path)]) == base


@command("web")
@option("basedir", "The directory whose files are served.", default=".", metavar="DIR")
@option("port", "The port to listen on.", default=8888, type=click.IntRange(0, 65535), metavar="NUMBER")
@option("host", "The address to listen on.", default="127.0.0.1")
def web(basedir: str, port: int, host: str) -> None:
    """Serves the files below a directory over HTTP until it is interrupted."""
    if not os.path.isdir(basedir):
        raise ConfigError(f"There is no directory {basedir}. Name one that exists: -basedir DIR")
    with ThreadingHTTPServer((host, port), functools.partial(FilesBelow, directory=os.path.abspath(basedir))) as server:
        click.echo(f"Serving {os.path.abspath(basedir)} on http://{host}:{server.server_address[1]}/ until you press Ctrl-C.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("Ended.")
