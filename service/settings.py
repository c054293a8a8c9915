"""Settings: one frozen object, read once from the environment and passed down."""

import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import (
    make_url,
)
from sqlalchemy.exc import SQLAlchemyError

PREFIX = "TORCHLOOP_"
_OF_OTHERS = {"url", "key", "torch"}  # settings of the client, and of environment.py

Scope = Literal["predict", "train", "admin"]


class SettingsError(Exception):
    """An unknown setting or a bad value, in one line."""


class Key(BaseModel):
    """An API key and its scope. The secret never appears in a text."""

    model_config = ConfigDict(frozen=True)

    scope: Scope
    secret: str = Field(min_length=1, repr=False)


def _parse_keys(value: object) -> object:
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


def check_url(url: str) -> str:
    """Return the URL unchanged. Raises ValueError if the database is not supported."""
    try:
        driver = make_url(url).drivername
    except SQLAlchemyError as err:
        raise ValueError("write it as postgresql+psycopg://USER:PASSWORD@HOST/NAME") from err
    if driver not in {"postgresql+psycopg", "sqlite"}:
        raise ValueError(f"{driver} is not supported; use postgresql+psycopg://... or leave it out for SQLite")
    return url


class Settings(BaseModel):
    """Every setting with its default and bounds. The environment variable is TORCHLOOP_ and the name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    store: Path = Field(Path("store"), description="folder for checkpoints and the default database")
    database_url: Annotated[str, AfterValidator(check_url)] = Field(
        "",
        repr=False,
        description="postgresql+psycopg://... for several machines; SQLite in STORE by default",
    )
    data: Path = Field(Path("data"), description="dataset folder")
    host: str = Field("127.0.0.1", description="address to listen on; any other than loopback needs API_KEYS")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    web_processes: int = Field(1, ge=1, le=256, description="web processes that share the port")
    worker: Literal["embedded", "external"] = Field(
        "embedded",
        description="embedded: train in a subprocess of the service; external: in python -m service.worker",
    )
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N | mps")
    backend: Literal["auto", "eager", "onnxruntime", "compile"] = Field(
        "auto",
        description="auto: ONNX Runtime on a CPU if it agrees with PyTorch, else eager | eager | onnxruntime | "
        "compile: PyTorch with torch.compile, which needs a C++ compiler",
    )
    max_batch: int = Field(64, ge=1, le=65_536, description="samples in one forward pass")
    max_wait_ms: float = Field(0, ge=0, le=10_000, description="how long a batch waits to fill up; 0: not at all")
    queue_limit: int = Field(
        1024, ge=1, le=1_000_000, description="requests that may wait, over all models; more get 429"
    )
    request_timeout_s: float = Field(10, gt=0, le=3600, description="deadline of a prediction; later answers are 504")
    max_body_bytes: int = Field(16_777_216, ge=1, le=2**40, description="largest request body")
    max_pixels: int = Field(25_000_000, ge=1, le=2**31, description="largest picture, width times height")
    api_keys: Annotated[tuple[Key, ...], BeforeValidator(_parse_keys)] = Field(
        (),
        description="scope:KEY pairs, separated by commas; scopes predict, train, admin",
    )
    log_format: Literal["text", "json"] = Field("text", description="text | json")

    @model_validator(mode="after")
    def _closed_to_the_network(self) -> "Settings":
        if not self.api_keys and not is_loopback(self.host):
            raise ValueError(f"{PREFIX}HOST={self.host} opens the service to the network: set {PREFIX}API_KEYS as well")
        return self


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Read settings from the variables that begin with TORCHLOOP_. Raises SettingsError."""
    values = {name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if name.startswith(PREFIX)}
    try:
        return Settings.model_validate({name: value for name, value in values.items() if name not in _OF_OTHERS})
    except ValidationError as err:
        raise SettingsError("; ".join(_in_words(fault) for fault in err.errors())) from err


def refuse(reason: str, status: int) -> int:
    """Print the reason why a command ends to standard error, in one line. Returns the exit status."""
    sys.stderr.write(f"torchloop: {reason}\n")
    return status


def _in_words(fault: Any) -> str:
    if not fault["loc"]:
        return str(fault["ctx"]["error"])
    name = f"{PREFIX}{str(fault['loc'][0]).upper()}"
    if fault["type"] == "extra_forbidden":
        known = ", ".join(field.upper() for field in Settings.model_fields)
        return f"{name} is not a known setting; the settings are {known}"
    return f"{name}: {fault['msg']}"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is a loopback address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
