"""Answers under a passphrase: a file that can lie in the open until the passphrase is told.

``cryptography`` encrypts (Fernet: AES with a hash that shows tampering) under a key that ``scrypt``
makes of the passphrase; only who seals and who opens needs it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from nclib import places

ANSWERS = "answers.json"


def seal(folder: str | Path, answers: Any, passphrase: str) -> None:
    """Write ``answers`` (what JSON can hold), encrypted, into ``folder``.

    Raises ``ValueError`` for a passphrase below twelve characters and for a folder with answers.
    """
    folder = Path(folder)
    refuse(folder, passphrase)
    folder.mkdir(parents=True, exist_ok=True)
    salt = secrets.token_bytes(16)
    token = _fernet(passphrase, salt).encrypt(json.dumps(answers).encode())
    with places.whole(folder / ANSWERS) as draft:
        draft.write_text(json.dumps({"salt": salt.hex(), "answers": token.decode()}))


def refuse(folder: str | Path, passphrase: str) -> None:
    """Raise what ``seal`` would raise, before any work is done."""
    if not isinstance(passphrase, str) or len(passphrase) < 12:
        raise ValueError("passphrase: too short; allowed is a text of twelve characters or more")
    if (Path(folder) / ANSWERS).exists():
        raise ValueError(f"folder: {folder} holds sealed answers; another one is needed")


def opened(folder: str | Path, passphrase: str) -> Any:
    """The answers in ``folder``.

    Raises ``ValueError`` for another passphrase, for a file that was changed, and where there is
    none.
    """
    from cryptography.fernet import InvalidToken

    try:
        locked = json.loads((Path(folder) / ANSWERS).read_text())
        salt, token = bytes.fromhex(locked["salt"]), locked["answers"].encode()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"folder: {folder} holds no sealed answers ({error})") from None
    try:
        return json.loads(_fernet(passphrase, salt).decrypt(token))
    except InvalidToken:
        told = "it does not open these answers, or they were changed"
        raise ValueError(f"passphrase: {told}") from None


def _fernet(passphrase: str, salt: bytes) -> Any:
    try:
        from cryptography.fernet import Fernet
    except ModuleNotFoundError:
        raise ValueError("cryptography: missing; install it, or the package's [grade]") from None
    key = hashlib.scrypt(passphrase.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
    return Fernet(base64.urlsafe_b64encode(key))
