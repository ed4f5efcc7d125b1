"""Keys to sign with, made once for all tests, and files that allow them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gitstore.git.sshsig import PrivateKey, public_key_of

KINDS = ("ed25519", "nistp256", "nistp384", "nistp521")
_CURVES = {"nistp256": ec.SECP256R1(), "nistp384": ec.SECP384R1(), "nistp521": ec.SECP521R1()}


def private_key(kind: str, number: int = 0) -> PrivateKey:
    """The key of this kind and number: always the same within a run."""
    return _made(kind, number)


@cache
def _made(kind: str, number: int) -> PrivateKey:
    return ec.generate_private_key(_CURVES[kind]) if kind in _CURVES else Ed25519PrivateKey.generate()


def public_line(kind: str, number: int = 0) -> str:
    """`ssh-ed25519 AAAA…`"""
    return str(public_key_of(private_key(kind, number)))


def key_file(folder: Path, kind: str = "ed25519", number: int = 0) -> Path:
    """The key as `ssh-keygen` would leave it in a folder."""
    path = folder / f"id_{kind}_{number}"
    path.write_bytes(
        private_key(kind, number).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    path.chmod(0o600)
    return path
