"""Secrets of the settings: API keys, and webhooks with the keys of their signatures."""

import re
from base64 import b64decode
from hashlib import sha256
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Scope = Literal["predict", "train", "admin"]
_WEBHOOK = re.compile(r"(?P<url>https?://[^\s/]\S*)(?P<keys>(\s+whsec_\S+)+)")


class Key(BaseModel):
    """An API key and its scope. The secret never appears in a text."""

    model_config = ConfigDict(frozen=True)

    scope: Scope
    secret: str = Field(min_length=1, repr=False)


class Webhook(BaseModel):
    """A receiver of the feed of changes, and the keys of its signatures: several while one replaces another.

    Neither the address, which may hold a secret, nor a key appears in a text.
    """

    model_config = ConfigDict(frozen=True)

    url: str = Field(repr=False)
    keys: tuple[bytes, ...] = Field(repr=False, min_length=1)

    @property
    def id(self) -> str:
        """A digest of the address."""
        return sha256(self.url.encode()).hexdigest()[:32]


def parse_webhooks(value: object) -> object:
    """Parse `https://example.com/hook whsec_BASE64 [whsec_BASE64 ...], ...` into fields of webhooks."""
    if not isinstance(value, str):
        return value
    found = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        fits = _WEBHOOK.fullmatch(part)
        keys = [_decoded(key.removeprefix("whsec_")) for key in fits["keys"].split()] if fits else []
        if fits is None or not all(24 <= len(key) <= 64 for key in keys):
            raise ValueError(
                'write it as "https://example.com/hook whsec_KEY"; KEY is the base64 of 24 to 64 random bytes, as of '
                "`openssl rand -base64 32`; several are separated by commas, several keys of one by spaces"
            )
        found.append({"url": fits["url"], "keys": tuple(keys)})
    return found


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""


def parse_keys(value: object) -> object:
    """Parse `predict:KEY1,admin:KEY2` into fields of keys."""
    if not isinstance(value, str):
        return value
    keys = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        scope, colon, secret = part.partition(":")
        if not colon or scope not in {"predict", "train", "admin"} or not secret:
            raise ValueError('write it as "predict:KEY1,train:KEY2,admin:KEY3"')
        keys.append({"scope": scope, "secret": secret})
    return keys
