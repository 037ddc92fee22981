"""Does the host hold a key that the phone trusts? (AOSP packages/modules/adb, `adb_auth.cpp`)"""

from __future__ import annotations

import base64
import binascii
import struct
from enum import StrEnum

SHA1_DIGEST_INFO = bytes.fromhex("3021300906052b0e03021a05000414")


class AuthMode(StrEnum):
    """How the phone treats hosts: take all, trust a key at its first offer, or trust none."""

    ACCEPT = "accept"
    TOFU = "tofu"
    DENY = "deny"


class HostKeys:
    """The public keys of hosts that the phone trusts."""

    def __init__(self, mode: AuthMode = AuthMode.ACCEPT) -> None:
        self.mode = mode
        self.trusted: list[bytes] = []

    @property
    def required(self) -> bool:
        """Must a host show a key at all?"""
        return self.mode is not AuthMode.ACCEPT

    def verify(self, token: bytes, signature: bytes) -> bool:
        """Is `signature` made over `token` by a trusted key?"""
        return self.mode is not AuthMode.DENY and any(
            signed_by(key, token, signature) for key in self.trusted
        )

    def offer(self, key: bytes) -> bool:
        """A host shows its public key ("<base64> user@host"); True if it is taken."""
        if self.mode is not AuthMode.TOFU or public_numbers(key) is None:
            return False
        self.trusted.append(key)
        return True


def public_numbers(key: bytes) -> tuple[int, int, int] | None:
    """Modulus, exponent and modulus length in bytes of an adb public key, None if it is none.

    The base64 text holds Android's RSAPublicKey struct: word count, n0inv, the modulus and R^2 in
    little-endian words, the exponent.
    """
    try:
        raw = base64.b64decode(key.split()[0], validate=True)
        (words,) = struct.unpack_from("<I", raw)
        if words != 64 or len(raw) != 8 + 8 * words + 4:
            return None
        modulus = int.from_bytes(raw[8 : 8 + 4 * words], "little")
        (exponent,) = struct.unpack_from("<I", raw, 8 + 8 * words)
    except (IndexError, ValueError, binascii.Error, struct.error):
        return None
    return (modulus, exponent, 4 * words) if modulus > 0 else None


def signed_by(key: bytes, token: bytes, signature: bytes) -> bool:
    """Check a PKCS#1 v1.5 signature in which the token stands in the place of a SHA-1 digest."""
    numbers = public_numbers(key)
    if numbers is None:
        return False
    modulus, exponent, length = numbers
    message = SHA1_DIGEST_INFO + token
    padding = b"\xff" * (length - len(message) - 3)
    expected = b"\0\1" + padding + b"\0" + message
    found = pow(int.from_bytes(signature, "big"), exponent, modulus)
    return found.to_bytes(length, "big") == expected
