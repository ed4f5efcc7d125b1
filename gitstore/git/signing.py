"""The key with which the server signs its commits: reading it, and signing.

docs/security.md, "Signatures"
"""

from __future__ import annotations

import os
import stat
from functools import partial

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from gitstore.errors import Invalid
from gitstore.git.commits import Sign, add_signature, unsigned
from gitstore.git.sshsig import KEY_TYPES, PrivateKey, PublicKey, public_key_of, sign

_LARGEST = 16 * 1024
"""Bytes of a file with a key: no such key takes more."""


def signer(path: str | None, git_dir: str = "") -> Sign:
    """What signs commits with the private key in a file of OpenSSH's; `unsigned` for None. The file is read once, now.

    A relative path begins at the git directory.
    Raises Invalid, in one line, where there is no such file, others than its owner may read it, or the key in it is
    encrypted, or neither Ed25519 nor ECDSA.
    """
    if path is None:
        return unsigned
    path = os.path.join(git_dir, path)
    try:
        key = load_ssh_private_key(_read(path), password=None)
    except TypeError as error:  # which is what it raises where a password is missing
        raise _unusable(path, "the key is encrypted, and nobody is there to unlock it") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "it is no private key of OpenSSH") from error
    if (
        not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey)
        or public_key_of(key).type not in KEY_TYPES
    ):
        raise _unusable(path, f"the key is of another type than {', '.join(KEY_TYPES)}")
    return partial(_signed, key, public_key_of(key))


def _signed(key: PrivateKey, public: PublicKey, data: bytes) -> bytes:
    return add_signature(data, sign(key, public, data))


def _read(path: str) -> bytes:
    try:
        # Not to wait, should it be a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unusable(path, f"it can't be read ({error.strerror})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(path, "it is no file")
        if status.st_mode & 0o077:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise _unusable(path, f"others than its owner may use it (mode {mode}): `chmod 600` it")
        return os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)


def _unusable(path: str, why: str) -> Invalid:
    return Invalid(f"fhir.signingKey is `{path}`: {why}.")
