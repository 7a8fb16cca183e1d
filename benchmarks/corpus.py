"""What reading and writing make of a folder of real messages, and how long it takes beside others.

    python benchmarks/corpus.py FOLDER... [--salmon ENVIRONMENT] [--no-times]

prints how many were read without an exception, given back byte for byte, decoded without replacement characters, and written in canonical
form so that we and the standard library read the same again; each failure by name, with its reason. Then the CPU time of reading all
headers and bodies, against the standard library (`email.policy.compat32`, values left undecoded, transfer encodings undone) and, with
`--salmon`, against Salmon, in an environment of its own that is made there when it is missing.

The status is 1 when reading raised or an untouched message was not given back.
"""

from __future__ import annotations

import argparse
import email
import email.message
import email.policy
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lamson import address, encoding, header
from lamson.encoding import MailBase
from lamson.mail import MailRequest

SUFFIXES = {".eml", ".msg", ".raw", ".txt", ""}

CHECKS = {
    "read": "read without exception",
    "same": "untouched round trip equal",
    "text": "text decoded without replacement characters",
    "canonical": "canonical form parses back equal",
}


# -- the messages


def message_files(folder: Path) -> Iterator[Path]:
    """The messages of a folder: a Maildir's, or by their suffix."""
    for path in sorted(folder.rglob("*") if folder.is_dir() else [folder]):
        in_maildir = path.parent.name in ("new", "cur")
        wanted = path.suffix.lower() in SUFFIXES and not path.name.startswith(("LICENSE", "README"))
        if path.is_file() and (in_maildir or wanted):
            yield path


def read_everything(message: MailRequest) -> None:
    """All that an application can ask of a message."""
    message.items()
    for part in message.walk():
        part.items()
        _ = part.body, part.filename, part.disposition
    _ = message.body(), message.text, message.html, message.attachments, message.route_to, message.route_from
    _ = message.is_automatic(), message.is_bounce(), message.reply_text


# -- the checks


def replacements(message: MailRequest) -> str:
    """Why a text of it has replacement characters that nobody sent; "" when there is none."""
    if b"\xef\xbf\xbd" in message.raw:
        return ""
    parts = [message.base, *message.walk()]
    texts = [text for part in parts for text in (*part.values(), part.body) if isinstance(text, str)]
    return "; ".join(message.defects) if any("\ufffd" in text for text in texts) else ""


def shape(mail: MailBase) -> object:
    """What writing must keep: all headers but those that say how it is written, whom it is for, each body but for its last line end."""
    content = {key.lower() for key in encoding.CONTENT_ENCODING_KEYS}
    headers = [
        (name, address.bare_addresses(value) if name.lower() in header.ADDRESS_HEADERS else value.split())
        for name, value in mail.items()
        if name.lower() not in content
    ]
    body = mail.body.rstrip("\n") if isinstance(mail.body, str) else mail.body
    return headers, mail.content_type if mail.parts else None, body or "", mail.filename, [shape(part) for part in mail.parts]


def standard_shape(message: email.message.Message) -> object:
    """The tree and its decoded bodies as the standard library reads them; a report's blocks, which it takes for messages, as their text."""
    payload = message.get_payload()
    is_report = message.get_content_type() in ("message/delivery-status", "message/disposition-notification")
    if isinstance(payload, list) and not is_report:
        return [standard_shape(part) for part in payload]
    if isinstance(payload, list):
        return "".join(part.as_string() for part in payload).split()
    octets = message.get_payload(decode=True) or b""
    return octets.decode("utf-8", "replace").split() if message.get_content_maintype() in ("text", "message") else octets


def our_shape(mail: MailBase) -> object:
    """The same as we read it."""
    if mail.parts:
        return [our_shape(part) for part in mail.parts]
    return mail.body.split() if isinstance(mail.body, str) else mail.body


def canonical_difference(message: MailRequest) -> str:
    """Why the canonical form is not read back the same; "" when it is."""
    written = encoding.to_bytes(message.base)
    again = encoding.from_string(written)
    if shape(again) != shape(message.base):
        return f"we read it differently: {first_difference(shape(message.base), shape(again))}"
    theirs = standard_shape(email.message_from_bytes(written, policy=email.policy.compat32))
    if theirs != our_shape(again):
        return f"the standard library reads it differently: {first_difference(our_shape(again), theirs)}"
    return ""


def first_difference(one: object, other: object) -> str:
    """Where two shapes part ways, briefly."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return f"{len(one)} and {len(other)} parts in {str(one)[:60]} and {str(other)[:60]}"
        return next(first_difference(*pair) for pair in zip(one, other, strict=True) if pair[0] != pair[1])
    return f"{str(one)[:80]!r} became {str(other)[:80]!r}"


@dataclass
class Report:
    """What was found: how many messages, how many passed each check, and why the others did not."""

    messages: int = 0
    passed: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def check(self, path: Path, raw: bytes) -> None:
        """Puts one message to all checks. What raises is what this looks for, so everything is caught."""
        self.messages += 1
        message = MailRequest("corpus", None, None, raw)
        try:
            read_everything(message)
        except Exception as error:
            self.failures.append(f"read: {path}: {error!r}")
            return
        found = {
            "read": "",
            "same": "" if bytes(message) == raw else "other bytes came back",
            "text": replacements(message),
            "canonical": canonical_difference(message),
        }
        self.passed.update(name for name, why in found.items() if not why)
        self.failures += [f"{name}: {path}: {why}" for name, why in found.items() if why]

    def lines(self) -> Iterator[str]:
        """The report as it is printed."""
        for name, says in CHECKS.items():
            yield f"{says + ' ':.<50} {self.passed[name]:>6} of {self.messages}"
        yield from (f"  {failure}" for failure in self.failures)

    @property
    def is_sound(self) -> bool:
        """All were read, and all given back."""
        return self.passed["read"] == self.passed["same"] == self.messages


# -- times


def read_with_lamson(raw: bytes) -> None:
    message = MailRequest("corpus", None, None, raw)
    for part in (message.base, *message.walk()):
        _ = part.items(), part.body


def read_with_compat32(raw: bytes) -> None:
    for part in email.message_from_bytes(raw, policy=email.policy.compat32).walk():
        part.items()
        if not part.is_multipart():
            part.get_payload(decode=True)


SALMON = """\
import sys, time
from pathlib import Path
from salmon.mail import MailRequest

def read(raw):
    message = MailRequest("corpus", None, None, raw)
    for part in (message.base, *message.walk()):
        part.items(), part.body

raws, raised = [Path(name).read_bytes() for name in sys.stdin.read().splitlines()], 0
best = []
for _ in range(3):
    began, raised = time.process_time(), 0
    for raw in raws:
        try:
            read(raw)
        except Exception:
            raised += 1
    best.append(time.process_time() - began)
print(min(best), raised)
"""


def seconds(read: Callable[[bytes], None], raws: list[bytes]) -> float:
    """CPU time of reading them all, the best of three."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        for raw in raws:
            read(raw)
        spent.append(time.process_time() - began)
    return min(spent)


def salmon_seconds(environment: Path, paths: list[Path]) -> tuple[float, int]:
    """The same with Salmon, and how many of the messages made it raise."""
    python = environment / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "salmon-mail"], check=True)
    names = "\n".join(str(path.resolve()) for path in paths)
    ran = subprocess.run([python, "-c", SALMON], input=names, capture_output=True, text=True, check=True)
    spent, raised = ran.stdout.split()
    return float(spent), int(raised)


def print_times(paths: list[Path], raws: list[bytes], salmon: Path | None) -> None:
    ours = seconds(read_with_lamson, raws)
    megabytes = sum(map(len, raws)) / 1e6
    print(f"\nCPU time of reading all headers and bodies of {len(raws)} messages, {megabytes:.1f} MB:")
    print(f"  lamson ................. {ours:7.3f} s  {ours / len(raws) * 1e6:7.0f} us a message")
    theirs = seconds(read_with_compat32, raws)
    print(f"  email.policy.compat32 .. {theirs:7.3f} s  {theirs / ours:7.1f} x ours")
    if salmon:
        theirs, raised = salmon_seconds(salmon, paths)
        print(f"  Salmon ................. {theirs:7.3f} s  {theirs / ours:7.1f} x ours; it raised on {raised}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--salmon", type=Path, metavar="ENVIRONMENT", help="measure Salmon too, in this environment of its own")
    parser.add_argument("--no-times", action="store_true", help="only the checks")
    options = parser.parse_args()
    paths = [path for folder in options.folder for path in message_files(folder)]
    raws = [path.read_bytes() for path in paths]
    report = Report()
    for path, raw in zip(paths, raws, strict=True):
        report.check(path, raw)
    print("\n".join(report.lines()))
    if not options.no_times and raws:
        print_times(paths, raws, options.salmon)
    return 0 if report.is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
