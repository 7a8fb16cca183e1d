"""PostgreSQL, MariaDB, rspamd and spamd servers of the tests' own: made in a scratch folder, on a free port, stopped and started at will.

They need the programs of Debian's `postgresql`, `mariadb-server`, `rspamd` and `spamd`, no configuration, no service and no network.
A test may stop one, kill it or freeze it without anybody else noticing.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any


class NotInstalled(Exception):
    """The server's programs are not here; the text says which."""


class Server:
    """One server. `start` returns when it takes connections."""

    user = ""

    def __init__(self) -> None:
        self.port = _free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="lamson-db-", dir="/tmp"))  # a short path: it holds a unix socket
        self.process: subprocess.Popen[bytes] | None = None
        self._account = self.user if os.geteuid() == 0 else None
        if self._account:
            os.chown(self.folder, pwd.getpwnam(self._account).pw_uid, pwd.getpwnam(self._account).pw_gid)

    @property
    def url(self) -> str:
        """Where a database may be made."""
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self._as_account())
        until = time.monotonic() + 30
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{type(self).__name__} did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it, at once with SIGKILL. What it keeps stays for the next start."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)
        self.process = None

    def remove(self) -> None:
        self.stop(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **self._as_account())
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")

    def _as_account(self) -> dict[str, Any]:
        return {"user": self._account, "group": self._account, "extra_groups": [], "cwd": self.folder} if self._account else {}

    def _answers(self) -> bool:
        raise NotImplementedError


class PostgreSQL(Server):
    user = "postgres"

    def __init__(self) -> None:
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb")) or [path for path in [shutil.which("initdb")] if path]
        if not found:
            raise NotInstalled("PostgreSQL (Debian: postgresql)")
        self.bin = Path(found[-1]).parent
        super().__init__()
        self.run(f"{self.bin}/initdb", "-D", f"{self.folder}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}".split()
        return [f"{self.bin}/postgres", "-D", f"{self.folder}/data", *options]

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is its fast stop: it does not wait for clients to leave."""
        super().stop(signal.SIGINT if how is signal.SIGTERM else how)

    def _answers(self) -> bool:
        ready = [f"{self.bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, stdin=subprocess.DEVNULL, check=False).returncode == 0


class MariaDB(Server):
    user = "mysql"

    def __init__(self) -> None:
        install = shutil.which("mariadb-install-db")
        self.daemon = shutil.which("mariadbd", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not install or not self.daemon:
            raise NotInstalled("MariaDB (Debian: mariadb-server)")
        super().__init__()
        self.run(install, "--no-defaults", f"--datadir={self.folder}/data", "--auth-root-authentication-method=normal", "--skip-test-db")

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/mysql"

    def command(self) -> list[str]:
        assert self.daemon
        places = [f"--datadir={self.folder}/data", f"--socket={self.folder}/s", f"--pid-file={self.folder}/pid"]
        network = ["--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve=0", "--max-allowed-packet=64M"]
        return [self.daemon, "--no-defaults", *places, *network]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        super().stop(signal.SIGTERM if how is signal.SIGINT else how)

    def _answers(self) -> bool:
        with socket.socket() as sock:
            sock.settimeout(1)
            try:
                sock.connect(("127.0.0.1", self.port))
                return len(sock.recv(4)) == 4  # its greeting
            except OSError:
                return False


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if found is None:
        raise NotInstalled(f"{name} (Debian: {package})")
    return found


class Rspamd(Server):
    """With one rule of the tests' own: a message that speaks of a casino has 7 points, of which 6 are spam."""

    user = "_rspamd"

    def __init__(self) -> None:
        self.program = _program("rspamd", "rspamd")
        super().__init__()
        (self.folder / "tld").write_text("com\nexample\n")  # compiling the real list takes long
        (self.folder / "rspamd.conf").write_text(RSPAMD.replace("FOLDER", str(self.folder)).replace("PORT", str(self.port)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [self.program, "-f", "-c", f"{self.folder}/rspamd.conf"]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        super().stop(signal.SIGTERM if how is signal.SIGINT else how)

    def _answers(self) -> bool:
        return _listens(self.port)


RSPAMD = """
options {
    pidfile = "FOLDER/pid"; tempdir = "FOLDER"; hs_cache_dir = "FOLDER"; control_socket = "FOLDER/control mode=0600";
    url_tld = "FOLDER/tld"; filters = "regexp"; dns { nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }
}
logging { type = "console"; level = "info"; }
worker "normal" { bind_socket = "127.0.0.1:PORT"; count = 1; }
actions { reject = 15; add_header = 6; greylist = 4; }
regexp { LAMSON_CASINO { re = "/casino/i{mime}"; score = 7.0; } }
"""


class Spamd(Server):
    """SpamAssassin's server with its rules, without its learning and without DNS."""

    user = "debian-spamd"

    def __init__(self) -> None:
        self.program = _program("spamd", "spamd")
        super().__init__()
        (self.folder / "init.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
        (self.folder / "local.cf").write_text("use_bayes 0\ndns_available no\nbody LAMSON_CASINO /casino/i\nscore LAMSON_CASINO 3.5\n")

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        rules = ["-L", "-x", "-C", "/usr/share/spamassassin", f"--siteconfigpath={self.folder}"]
        return [self.program, "-4", "-i", "127.0.0.1", "-p", str(self.port), "--min-children=1", "-m", "2", "-s", "stderr", *rules]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        super().stop(signal.SIGTERM if how is signal.SIGINT else how)

    def _answers(self) -> bool:
        return _listens(self.port)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
