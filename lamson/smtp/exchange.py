"""Where a domain's mail goes: its MX records, in order, and the addresses of these servers (RFC 5321 §5.1).

Asks the DNS and nothing else, not even the machine's `hosts` file, as mail servers do. It connects to nobody; `relay` tries what this
names, from the first to the last.
"""

from __future__ import annotations

import ipaddress
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import dns.exception
import dns.name
import dns.resolver

from lamson import address
from lamson.errors import AddressError, PermanentError, RelayError, TransientError, failure

log = logging.getLogger("lamson.smtp.exchange")

#: Servers of one domain that are tried for one message (RFC 5321 §5.1: two at least).
EXCHANGES = 5


@dataclass(frozen=True, slots=True)
class Target:
    """A server: where to connect, and the name that it must prove to have under TLS."""

    host: str
    name: str


class Resolver(Protocol):
    """What looks names up: `dns.resolver.Resolver` is one."""

    def resolve(self, name: str, kind: str, /) -> Iterable[Any]:
        """The records of this kind; raises what dnspython raises when there are none or nobody answers."""


class Exchanges:
    """The servers of a domain (RFC 5321 §5.1)."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver

    def of(self, domain: str) -> list[Target]:
        """In the order in which to try them, never empty.

        Raises `PermanentError` where the domain takes no mail or is none, `TransientError` where the DNS does not say.
        """
        if domain.startswith("["):
            return [_literal_target(domain)]
        try:
            domain = address.to_ascii_domain(f"@{domain}")[1:]
        except AddressError as error:
            raise failure(550, f"{domain} is no domain: {error}", "5.1.2") from error
        if not domain:
            raise failure(553, "The recipient has no domain", "5.1.3")
        return self._targets(domain, self._names(domain))

    def _names(self, domain: str) -> list[str]:
        """Names of servers, the preferred first and those of one preference in any order; the domain itself where it has no MX record."""
        records = self._look_up(domain, "MX")
        if not records:
            return [domain]
        random.shuffle(records)
        records.sort(key=lambda record: record.preference)
        names = [str(record.exchange).rstrip(".") for record in records]
        if not any(names):
            raise failure(556, f"{domain} takes no mail", "5.1.10")  # RFC 7505
        return [name for name in names if name]

    def _targets(self, domain: str, names: Iterable[str]) -> list[Target]:
        found: list[Target] = []
        trouble: RelayError = failure(550, f"No mail server of {domain} has an address", "5.4.4")
        for name in names:
            for kind in ("A", "AAAA"):
                try:
                    found += [Target(str(record.address), name) for record in self._look_up(name, kind)]
                except TransientError as error:
                    trouble = error
                except PermanentError as error:
                    log.info("%s: %s", domain, error.reply)
            if len(found) >= EXCHANGES:
                break
        if not found:
            raise trouble
        return found[:EXCHANGES]

    def _look_up(self, name: str, kind: str) -> list[Any]:
        """The records; none where the name exists without such. The final dot keeps the machine's search list out."""
        if self._resolver is None:
            self._resolver = _system_resolver()
        try:
            return list(self._resolver.resolve(f"{name}.", kind))
        except dns.resolver.NoAnswer:
            return []
        except dns.resolver.NXDOMAIN as error:
            raise failure(550, f"There is no domain {name}", "5.1.2") from error
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape) as error:
            raise failure(550, f"{name} is no domain: {error}", "5.1.2") from error
        except dns.exception.DNSException as error:
            raise failure(451, f"Looking up {name} failed: {error}", "4.4.3") from error


def _system_resolver() -> Resolver:
    """This machine's, with a memory. Raises `TransientError` on a machine that has none."""
    try:
        resolver = dns.resolver.Resolver()
    except dns.exception.DNSException as error:
        raise failure(451, f"This machine has no resolver: {error}", "4.4.3") from error
    resolver.cache = dns.resolver.LRUCache()
    resolver.lifetime = 30.0  # seconds
    return resolver


def _literal_target(domain: str) -> Target:
    """`[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3)."""
    text = domain[1:].removesuffix("]")
    try:
        ip = str(ipaddress.ip_address(text[5:] if text[:5].lower() == "ipv6:" else text))
    except ValueError as error:
        raise failure(550, f"{domain} is no address of a server", "5.1.2") from error
    return Target(ip, ip)
