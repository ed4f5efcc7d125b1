"""Signatures as `ssh-keygen -Y sign` makes them, and the public keys that check them.

https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig. One form of each is known: what is written in
another way, though it means the same, can't be read. So no bit of a signature can change unnoticed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from gitstore.errors import Invalid

PrivateKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey

NAMESPACE = "git"
"""What git says its signatures are for, so that one of a mail can't pass for one of a commit."""

ED25519 = "ssh-ed25519"
_CURVES = {
    "nistp256": (SECP256R1(), hashes.SHA256()),
    "nistp384": (SECP384R1(), hashes.SHA384()),
    "nistp521": (SECP521R1(), hashes.SHA512()),
}
"""With the hash that goes with each. https://www.rfc-editor.org/rfc/rfc5656#section-6.2.1"""

_ECDSA = "ecdsa-sha2-"
KEY_TYPES = (ED25519, *(_ECDSA + curve for curve in _CURVES))

_MAGIC = b"SSHSIG"
_VERSION = b"\x00\x00\x00\x01"
_HASH = b"sha512"
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----\n", b"\n-----END SSH SIGNATURE-----\n"
_WIDTH = 70
_UNREADABLE = "its signature is not in the form of SSH signatures"


class PublicKey(Struct, frozen=True):
    """A key by the bytes that stand, in base64, in public key files."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        digest = hashlib.sha256(self.blob).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    def __str__(self) -> str:
        return f"{self.type} {base64.b64encode(self.blob).decode()}"


class Signature(Struct, frozen=True):
    """What a signature says, before anything of it is checked."""

    key: PublicKey
    namespace: str
    value: bytes


def sign(key: PrivateKey, public: PublicKey, message: bytes) -> bytes:
    """The armored signature of a message, in the namespace of git and with SHA-512. `public` belongs to `key`."""
    data = _to_be_signed(NAMESPACE.encode(), message)
    if isinstance(key, Ed25519PrivateKey):
        value = key.sign(data)
    else:
        value = b"".join(map(_number, decode_dss_signature(key.sign(data, ECDSA(_hash_of(key.curve.name))))))
    signature = _string(public.type.encode()) + _string(value)
    fields = (public.blob, NAMESPACE.encode(), b"", _HASH, signature)
    return _armored(_MAGIC + _VERSION + b"".join(map(_string, fields)))


def parse_signature(text: bytes) -> Signature:
    """Read an armored signature. Raises Invalid where it is none, or isn't written as ours are."""
    try:
        blob = base64.b64decode(text.removeprefix(_BEGIN).removesuffix(_END).replace(b"\n", b""))
    except binascii.Error as error:
        raise Invalid(_UNREADABLE) from error
    head = _MAGIC + _VERSION
    if _armored(blob) != text or not blob.startswith(head):
        raise Invalid(_UNREADABLE)
    key, namespace, reserved, hash, signature = _strings(blob[len(head) :], 5)
    if reserved or hash != _HASH:
        raise Invalid("its signature is not one of SHA-512")
    public = parse_public_key(key)
    type, value = _strings(signature, 2)
    if type.decode(errors="replace") != public.type:
        raise Invalid("its signature is of another type than its key")
    return Signature(public, namespace.decode(errors="replace"), value)


def is_signed(signature: Signature, message: bytes) -> bool:
    """Whether the signature is that of its key for this message."""
    data = _to_be_signed(signature.namespace.encode(), message)
    key = _loaded(signature.key)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature.value, data)
        else:
            r, s = map(_of_number, _strings(signature.value, 2))
            key.verify(encode_dss_signature(r, s), data, ECDSA(_hash_of(key.curve.name)))
    except (InvalidSignature, Invalid):
        return False
    return True


def public_key_of(key: PrivateKey) -> PublicKey:
    """What may be told of a private key."""
    type, blob = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split(b" ")
    return PublicKey(type.decode(), base64.b64decode(blob))


def parse_public_key(blob: bytes) -> PublicKey:
    """The key that the bytes stand for. Raises Invalid for one that isn't Ed25519 or ECDSA, or can't be read."""
    [type], _ = _first_strings(blob, 1)
    key = PublicKey(type.decode(errors="replace"), blob)
    if key.type not in KEY_TYPES:
        raise Invalid(f"a key of type {key.type[:40]} is not understood; only {', '.join(KEY_TYPES)} are")
    _loaded(key)
    return key


@lru_cache(maxsize=64)
def _loaded(key: PublicKey) -> Ed25519PublicKey | EllipticCurvePublicKey:
    try:
        if key.type == ED25519:
            return Ed25519PublicKey.from_public_bytes(_strings(key.blob, 2)[1])
        _, name, point = _strings(key.blob, 3)
        curve = key.type.removeprefix(_ECDSA)
        if name != curve.encode() or not point.startswith(b"\x04"):
            raise Invalid("a key can't be read")
        return EllipticCurvePublicKey.from_encoded_point(_CURVES[curve][0], point)
    except ValueError as error:
        raise Invalid("a key can't be read") from error


def _hash_of(curve: str) -> hashes.HashAlgorithm:
    return next(hash for of, hash in _CURVES.values() if of.name == curve)


def _to_be_signed(namespace: bytes, message: bytes) -> bytes:
    return _MAGIC + b"".join(map(_string, (namespace, b"", _HASH, hashlib.sha512(message).digest())))


def _armored(blob: bytes) -> bytes:
    text = base64.b64encode(blob).decode()
    return _BEGIN + "\n".join(text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)).encode() + _END


# The data types of SSH. https://www.rfc-editor.org/rfc/rfc4251#section-5


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def _strings(data: bytes, count: int) -> list[bytes]:
    """So many strings and nothing else. Raises Invalid."""
    found, rest = _first_strings(data, count)
    if rest:
        raise Invalid(_UNREADABLE)
    return found


def _first_strings(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    found = []
    for _ in range(count):
        size = int.from_bytes(data[:4])
        if len(data) < 4 + size:
            raise Invalid(_UNREADABLE)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found, data


def _number(value: int) -> bytes:
    """A positive number as a string. A first bit that is set would make it negative."""
    return _string(value.to_bytes(value.bit_length() // 8 + 1))


def _of_number(data: bytes) -> int:
    value = int.from_bytes(data)
    if _number(value) != _string(data):
        raise Invalid(_UNREADABLE)
    return value
