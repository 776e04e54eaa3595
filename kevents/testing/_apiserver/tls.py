"""The server's TLS certificate, and the kubeconfig for its clients. TLS needs ``cryptography`` (extra ``testing``)."""

from __future__ import annotations

import base64
import importlib.util
import ipaddress
import json
import ssl
import tempfile
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate and its key, both in PEM."""

    certificate: str
    key: str

    def context(self) -> ssl.SSLContext:
        """Return the TLS context of a server with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with tempfile.TemporaryDirectory(prefix="kevents-") as folder:
            path = Path(folder) / "server.pem"
            path.touch(mode=0o600)
            path.write_text(self.certificate + self.key, encoding="ascii")
            context.load_cert_chain(path)
        return context


def self_signed(hosts: Iterable[str]) -> Certificate:
    """Make a certificate that is valid for one year.

    Args:
        hosts: Host names and IP addresses.

    Raises:
        ImportError: ``cryptography`` is not installed.
    """
    try:
        from cryptography import x509  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415
    except ImportError as missing:
        raise ImportError(
            f"TLS of the embedded API server needs cryptography: pip install 'kevents[testing]' ({missing})"
        ) from missing
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kevents")])
    now = datetime.now(timezone.utc)
    usages = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **usages
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    unencrypted = serialization.NoEncryption()
    return Certificate(
        certificate.public_bytes(encoding).decode(),
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, unencrypted).decode(),
    )


def _alternative_name(host: str) -> x509.GeneralName:
    from cryptography import x509  # noqa: PLC0415 - an extra

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Identity:
    """The server's certificate, made on first use.

    Args:
        host: The address of the server; the certificate is also valid for the loopback addresses.
        context: The TLS context to use; None for a self-signed certificate.
        ca: The certificate authority for clients, PEM, when a context is given.
    """

    def __init__(self, host: str, context: ssl.SSLContext | None, ca: str) -> None:
        self._host = host
        self._context = context
        self._ca = ca
        self._lock = threading.Lock()

    @property
    def available(self) -> bool:
        """Whether the server can speak TLS."""
        return self._context is not None or importlib.util.find_spec("cryptography") is not None

    def context(self) -> ssl.SSLContext:
        """Return the server's TLS context.

        Raises:
            ImportError: ``cryptography`` is not installed, and no context was given.
        """
        with self._lock:
            if self._context is None:
                made = self_signed(dict.fromkeys((self._host, "127.0.0.1", "::1", "localhost")))
                self._ca, self._context = made.certificate, made.context()
            return self._context

    @property
    def ca(self) -> str:
        """The certificate authority for clients, PEM.

        Raises:
            ImportError: As for `context`.
        """
        self.context()
        return self._ca


def kubeconfig(url: str, token: str, ca: str = "") -> str:
    """Return a kubeconfig as JSON, which readers of YAML accept.

    Args:
        url: The address of the server.
        token: The bearer token.
        ca: The certificate authority, PEM; if empty, clients do not verify the certificate.
    """
    cluster: dict[str, Any] = {"server": url}
    if ca:
        cluster["certificate-authority-data"] = base64.b64encode(ca.encode()).decode()
    elif url.startswith("https:"):
        cluster["insecure-skip-tls-verify"] = True
    name = "kevents"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        "current-context": name,
    }
    return json.dumps(config, indent=2) + "\n"
