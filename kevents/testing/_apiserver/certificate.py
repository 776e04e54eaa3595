"""A self-signed certificate for the loopback interface, made anew for each server.

kubectl sends no token over plain HTTP, so the embedded server must speak TLS, and it may use nothing but the
standard library. This is just enough of ECDSA over P-256 and of X.509 for that. It is no library for cryptography:
the arithmetic takes a time that depends on the key, which does not matter for a key that lives as long as a test
does.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Certificate", "self_signed"]

_P: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_A: Final = -3
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_BASE: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_SIZE: Final = 32
_LONG_FORM: Final = 0x80

_EC_KEY: Final = "1.2.840.10045.2.1"
_CURVE: Final = "1.2.840.10045.3.1.7"
_SIGNATURE: Final = "1.2.840.10045.4.3.2"
_COMMON_NAME: Final = "2.5.4.3"
_KEY_IDENTIFIER: Final = "2.5.29.14"
_KEY_USAGE: Final = "2.5.29.15"
_ALTERNATIVE_NAMES: Final = "2.5.29.17"
_CONSTRAINTS: Final = "2.5.29.19"
_EXTENDED_USAGE: Final = "2.5.29.37"
_SERVER: Final = "1.3.6.1.5.5.7.3.1"

Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, both as PEM; clients trust the certificate itself."""

    certificate: str
    key: str

    def context(self) -> ssl.SSLContext:
        """Give the context of a server with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with tempfile.TemporaryDirectory(prefix="kevents-") as folder:
            path = Path(folder) / "server.pem"
            path.touch(mode=0o600)
            path.write_text(self.certificate + self.key, encoding="ascii")
            context.load_cert_chain(path)
        return context


def self_signed(hosts: Iterable[str]) -> Certificate:
    """Make a certificate, valid for a year, for host names and addresses."""
    secret = 1 + secrets.randbelow(_ORDER - 1)
    public = b"\x04" + b"".join(part.to_bytes(_SIZE, "big") for part in _times(secret, _BASE))
    body = _body(public, hosts)
    signed = _sequence(body, _sequence(_identifier(_SIGNATURE)), _bits(_sign(secret, body)))
    key = _sequence(
        _integer(1),
        _tagged(0x04, secret.to_bytes(_SIZE, "big")),
        _tagged(0xA0, _identifier(_CURVE)),
        _tagged(0xA1, _bits(public)),
    )
    return Certificate(_pem("CERTIFICATE", signed), _pem("EC PRIVATE KEY", key))


def _add(first: Point | None, second: Point | None) -> Point | None:
    if first is None or second is None:
        return first or second
    (x1, y1), (x2, y2) = first, second
    if x1 == x2:
        if (y1 + y2) % _P == 0:
            return None
        slope = (3 * x1 * x1 + _A) * pow(2 * y1, -1, _P)
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, _P)
    x3 = (slope * slope - x1 - x2) % _P
    return x3, (slope * (x1 - x3) - y1) % _P


def _times(factor: int, point: Point) -> Point:
    result: Point | None = None
    doubled: Point | None = point
    while factor:
        if factor & 1:
            result = _add(result, doubled)
        doubled = _add(doubled, doubled)
        factor >>= 1
    if result is None:
        raise ArithmeticError
    return result


def _sign(secret: int, message: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    while True:
        once = 1 + secrets.randbelow(_ORDER - 1)
        r = _times(once, _BASE)[0] % _ORDER
        s = pow(once, -1, _ORDER) * (digest + r * secret) % _ORDER
        if r and s:
            return _sequence(_integer(r), _integer(s))


def _body(public: bytes, hosts: Iterable[str]) -> bytes:
    now = datetime.now(timezone.utc)
    moments = [_time(now - timedelta(days=1)), _time(now + timedelta(days=365))]
    name = _sequence(_tagged(0x31, _sequence(_identifier(_COMMON_NAME), _tagged(0x0C, b"kevents"))))
    algorithm = _sequence(_identifier(_SIGNATURE))
    key = _sequence(_sequence(_identifier(_EC_KEY), _identifier(_CURVE)), _bits(public))
    extensions = [
        _extension(_CONSTRAINTS, _sequence(b"\x01\x01\xff"), critical=True),
        _extension(_KEY_USAGE, b"\x03\x02\x02\x84", critical=True),  # digitalSignature, keyCertSign
        _extension(_EXTENDED_USAGE, _sequence(_identifier(_SERVER))),
        _extension(_KEY_IDENTIFIER, _tagged(0x04, hashlib.sha256(public).digest()[:20])),
        _extension(_ALTERNATIVE_NAMES, _sequence(*map(_alternative, hosts))),
    ]
    version, serial = _tagged(0xA0, _integer(2)), _integer(1 + secrets.randbits(120))
    return _sequence(
        version, serial, algorithm, name, _sequence(*moments), name, key, _tagged(0xA3, _sequence(*extensions))
    )


def _alternative(host: str) -> bytes:
    try:
        return _tagged(0x87, ipaddress.ip_address(host).packed)
    except ValueError:
        return _tagged(0x82, host.encode("ascii"))


def _extension(name: str, value: bytes, *, critical: bool = False) -> bytes:
    return _sequence(_identifier(name), b"\x01\x01\xff" if critical else b"", _tagged(0x04, value))


def _time(moment: datetime) -> bytes:
    return _tagged(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())


def _tagged(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < _LONG_FORM:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def _sequence(*items: bytes) -> bytes:
    return _tagged(0x30, b"".join(items))


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(content: bytes) -> bytes:
    return _tagged(0x03, b"\x00" + content)


def _identifier(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = bytearray((first * 40 + second,))
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        content += bytes(reversed(groups))
    return _tagged(0x06, bytes(content))


def _pem(label: str, content: bytes) -> str:
    text = base64.encodebytes(content).decode("ascii")
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n"
