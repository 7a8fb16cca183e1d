"""Where a listener listens, and the certificate that it shows: bound sockets and TLS contexts, with a sentence for whatever is wrong.

Beside `smtp.listener`, and used by the command line, which binds sockets before it gives up its privileges. It accepts nothing.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import stat
from pathlib import Path

from lamson.errors import ConfigError

log = logging.getLogger("lamson.smtp.endpoint")

#: (host, port), or the path of a unix socket.
Address = tuple[str, int] | str


#: Connections that the kernel keeps for us until they are accepted.
BACKLOG = 512


def bind(address: Address, mode: int = 0o660) -> socket.socket:
    """A socket that is bound to the address and listens there: from now on clients can connect, and wait. `mode`: the permissions of a unix
    socket. `ConfigError` says why not, and what to do."""
    return _bind_path(address, mode) if isinstance(address, str) else _bind_port(*address)


def _bind_port(host: str, port: int) -> socket.socket:
    if not isinstance(port, int) or not 0 <= port <= 65535:  # settings are not type-checked
        raise ConfigError(f"Cannot listen on {host}:{port!r}: a port is a number from 0 to 65535. Correct the port in the settings.")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"Cannot listen on {host}:{port}: {host!r} is no known host. Correct the host in the settings.") from error
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the sockets that it accepts inherit this
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)  # two sockets with SO_REUSEADDR may be bound to one port; only this tells that another has it
    except OSError as error:
        sock.close()
        raise ConfigError(f"Cannot listen on {host}:{port}: {_why(error)}") from error
    return sock


def _why(error: OSError) -> str:
    number = error.errno
    if number == errno.EADDRINUSE:
        return "another program has this port. Stop that one (`lamson stop` if it is one of ours), or choose another port in the settings."
    if number == errno.EACCES:
        return "ports below 1024 are root's. Start as root with -uid and -gid, or choose another port in the settings."
    if number == errno.EADDRNOTAVAIL:
        return "this machine does not have that address. Correct the host in the settings."
    return f"{error.strerror or error}."


def _bind_path(path: str, mode: int) -> socket.socket:
    """A unix socket. The file of a server that is no more is replaced; one that somebody listens on is not."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        os.chmod(path, mode)  # before listen(): nobody can connect until then
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"Cannot listen on the unix socket {path}: {error.strerror or error}. Choose another path.") from error
    except ConfigError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ConfigError(f"Cannot listen on the unix socket {path}: there is a file of that name. Remove it, or choose another path.")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise ConfigError(f"Cannot listen on the unix socket {path}: another program does. Stop it, or choose another path.")


def own_address(sock: socket.socket) -> Address:
    """Where a bound socket is, with its real port."""
    name = sock.getsockname()
    return name if isinstance(name, str) else (name[0], name[1])


class Certificate:
    """A certificate chain and its key in PEM files, read again when either changes. Without `key` it lies in the first file."""

    def __init__(self, certificate: Path | str, key: Path | str | None = None) -> None:
        self._files = [Path(certificate), Path(key or certificate)]
        self._stamp = self._changed()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """The context of the certificate as it is now. One that cannot be read leaves the last good one in use."""
        try:
            stamp = self._changed()
            if stamp != self._stamp:
                self._stamp, self._context = stamp, self._load()
                log.info("The certificate %s has changed and was read again.", self._files[0])
        except ConfigError as error:
            log.error("%s The last good one stays in use.", error)
        return self._context

    def _changed(self) -> list[tuple[int, int]]:
        return [(known.st_mtime_ns, known.st_ino) for known in map(self._look, self._files)]

    def _look(self, file: Path) -> os.stat_result:
        try:
            return file.stat()
        except OSError as error:
            raise ConfigError(f"The TLS certificate or key {file} cannot be read: {error.strerror}.") from error

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(self._files[0], self._files[1])
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"The TLS certificate {self._files[0]} with the key {self._files[1]} cannot be used: {error}.") from error
        return context
