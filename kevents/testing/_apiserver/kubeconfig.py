"""The kubeconfig of an API server."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

__all__ = ["kubeconfig", "write_kubeconfig"]


def write_kubeconfig(path: Path, url: str, token: str, ca: str = "") -> Path:
    """Write a kubeconfig that only its owner can read; give its path. The arguments are those of `kubeconfig`."""
    path.touch(mode=0o600)
    path.write_text(kubeconfig(url, token, ca), encoding="utf-8")
    return path


def kubeconfig(url: str, token: str, ca: str = "") -> str:
    """Give the text of a kubeconfig, JSON, which YAML readers take as well.

    Args:
        url: Where the server is.
        token: The bearer token.
        ca: The certificate authority, PEM; empty for a server whose certificate is not to be checked.
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
