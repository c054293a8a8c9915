"""Settings: one frozen object, read once from the environment and passed down."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from service.credentials import Key, Scope, Webhook, parse_keys, parse_webhooks

__all__ = ["ANY", "PREFIX", "Key", "MaxResources", "Scope", "Settings", "SettingsError", "Webhook", "from_environment"]
PREFIX = "TORCHLOOP_"
ANY = "*"  # every origin
_OF_OTHERS = {"URL", "KEY", "TORCH"}  # settings of the client, and of environment.py
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_A_SERVICE = re.compile(
    r"TORCHLOOP_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_OTHER_NAMES = {"workers": "web_processes", "bind": "host", "database": "database_url"}  # options of other servers
_PORT = re.compile(r"TORCHLOOP_(?:[A-Z0-9_]+_)?PORT")
_PORT_URL = re.compile(r"(?:tcp|udp|sctp)://\S+")
# Of no use to a training worker, and secret: the keys, and the settings that may not be without them.
_OF_WEB_ONLY = {f"{PREFIX}{name}" for name in ("API_KEYS", "KEY", "HOST", "CORS_ORIGINS", "WEBHOOKS")}
_RAY_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - the name of a variable
log = logging.getLogger(__name__)


class SettingsError(Exception):
    """An unknown setting or a bad value, in one line."""


class MaxResources(BaseModel):
    """The most that a job may ask for, see TrainRequest.resources."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: float = Field(0, ge=0, le=4096)
    gpus: float = Field(0, ge=0, le=1)
    nodes: int = Field(1, ge=1, le=64)


def _parse_resources(value: object) -> object:
    """Parse `cpus=8,gpus=1,nodes=4` into fields."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in _parse_list(value)]
    names = [name for name, _, _ in pairs]
    if not all(name in MaxResources.model_fields and number for name, _, number in pairs) or len({*names}) < len(names):
        raise ValueError('write it as "cpus=8,gpus=1,nodes=4"')
    return {name: number for name, _, number in pairs}


def _parse_list(value: Any) -> Any:
    """Split `a,b`."""
    return [part for part in map(str.strip, value.split(",")) if part] if isinstance(value, str) else value


def _parse_networks(value: Any) -> Any:
    """Parse addresses and networks."""
    try:
        return [ip_network(str(part), strict=False) for part in _parse_list(value)]
    except ValueError as err:
        raise ValueError("write addresses or networks as 10.0.0.1,192.168.0.0/16") from err


def _check_origin(origin: str) -> str:
    """Return the origin in lower case. Raises ValueError if it is none."""
    if origin != ANY and not re.fullmatch(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d+)?", origin.lower()):
        raise ValueError("write origins as https://app.example.com, without a path; * for all")
    return origin.lower()


def _check_root_path(path: str) -> str:
    """Return the path without a slash at its end. Raises ValueError if it is none."""
    path = path.rstrip("/")
    if not is_prefix(path):
        raise ValueError("write it as /torchloop")
    return path


def is_prefix(path: str) -> bool:
    """Whether a path may stand in front of the service's own: empty, or plain segments, each after a slash."""
    return re.fullmatch(r"(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-])*", path) is not None


def _expanded(path: Path) -> Path:
    """Expand a leading ~. Raises ValueError if the home folder is unknown."""
    try:
        return path.expanduser()
    except RuntimeError as err:
        raise ValueError(f"the home folder of {str(path).split('/')[0]} is unknown: write the path without ~") from err


def _is_folder(path: Path) -> Path:
    """Return the path unchanged. Raises ValueError if it leads to something else than a folder."""
    if os.path.lexists(path) and not path.is_dir():
        raise ValueError("this is not a folder: name a folder, or a path at which one can be made")
    return path


def _bare(host: str) -> str:
    """Strip the brackets of an IPv6 address. Raises ValueError if there is more than a host."""
    bare = host.strip()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    if not bare or set("/[] ") & set(bare) or bare.count(":") == 1:
        raise ValueError(f"write a name or an address alone, as in 127.0.0.1 or ::1; the port is {PREFIX}PORT")
    return bare


def _check_address(address: str) -> str:
    """Return the address unchanged. Raises ValueError unless it is a host with or without a port, or empty."""
    fits = re.fullmatch(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?", address.strip())
    if address.strip() and (fits is None or not 0 < int(fits[1] or 1) < 65_536):
        raise ValueError("write it as 10.0.0.5:8000, web-1.internal:8000 or [2001:db8::5]:8000")
    return address.strip()


def check_artifacts(artifacts: str) -> str:
    """Return a folder's path without a leading ~, or the URL of an object store. Raises ValueError if it is neither."""
    if re.match(r"(s3|gs|az|file):/?(?!/)", artifacts):
        raise ValueError(f"write two slashes after the colon, as in s3://BUCKET/PREFIX; {artifacts} would be a folder")
    if "://" not in artifacts:
        return str(_is_folder(_expanded(Path(artifacts)))) if artifacts.strip() else ""
    if "/.." in artifacts or not re.fullmatch(r"(s3|gs|az)://[\w.-]+(/[\w.=-]+)*/?|file:///[^?#]+", artifacts):
        raise ValueError("write a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://ACCOUNT/CONTAINER/PREFIX")
    if find_spec("obstore") is None:
        raise ValueError('object stores need another package: pip install "torchloop[s3]"')
    return artifacts.rstrip("/")


Folder = Annotated[Path, AfterValidator(_expanded)]


class Settings(BaseModel):
    """Every setting with its default and bounds. The environment variable is TORCHLOOP_ and the name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    store: Annotated[Folder, AfterValidator(_is_folder)] = Field(
        Path("store"), description="folder for checkpoints and the default database"
    )
    database_url: str = Field(
        "",
        repr=False,
        description="postgresql+psycopg://... for several machines; SQLite in STORE by default",
    )
    artifacts: Annotated[str, AfterValidator(check_artifacts)] = Field(
        "",
        description="checkpoints, datasets, plots: a folder, or an object store for several machines as "
        "s3://BUCKET/PREFIX, gs://..., az://...; in STORE by default, which then has copies",
    )
    cache_bytes: int = Field(
        20 * 2**30, ge=0, le=2**50, description="bound of STORE's copies of files in an object store"
    )
    data: Folder = Field(Path("data"), description="dataset folder")
    project: Annotated[Path, AfterValidator(_expanded), AfterValidator(Path.absolute)] | None = Field(
        None, description="folder of your own models: models/, training/, pretrained/, requirements.txt"
    )
    builtin: Literal["on", "off"] = Field("on", description="off: leave the built-in models out")
    host: Annotated[str, AfterValidator(_bare)] = Field(
        "127.0.0.1", description="address to listen on; any other than loopback needs API_KEYS"
    )
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    address: Annotated[str, AfterValidator(_check_address)] = Field(
        "",
        description="HOST:PORT at which other machines reach this one, for load balancers; by default where it listens",
    )
    web_processes: int = Field(
        1, ge=1, le=256, description="web processes that share the port; with DEVICE=cuda:all, of each device"
    )
    worker: Literal["embedded", "external"] = Field(
        "embedded",
        description="embedded: train in a subprocess of the service; external: in python -m service.worker",
    )
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N | cuda:all: web processes on each | mps")
    backend: Literal["auto", "eager", "onnxruntime", "compile"] = Field(
        "auto",
        description="auto: ONNX Runtime on a CPU if it agrees with PyTorch, else eager | eager | onnxruntime | "
        "compile: PyTorch with torch.compile, which needs a C++ compiler",
    )
    form: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description="numeric form of networks, with the extra openvino. auto: the fastest one that the gate lets in, "
        "for each batch size | fp32 | bf16 | int8: that one, if the gate lets it in",
    )
    form_labels: int = Field(
        0, ge=0, le=1_000_000, description="labels of the validation split that a form may change to be let in"
    )
    form_probability: float = Field(
        0.02, ge=0, le=1, description="largest change of a probability there that a form may make to be let in"
    )
    max_loaded: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="networks that a web process keeps loaded, the last used; others load on demand; by default all",
    )
    max_batch: int = Field(64, ge=1, le=65_536, description="samples in one forward pass")
    max_wait_ms: float = Field(0, ge=0, le=10_000, description="how long a batch waits to fill up; 0: not at all")
    queue_limit: int = Field(
        1024, ge=1, le=1_000_000, description="requests that may wait, over all models; more get 429"
    )
    max_queued_jobs: int = Field(
        1000, ge=1, le=1_000_000, description="training jobs that each API key may have in the queue; more get 429"
    )
    max_resources: Annotated[MaxResources, BeforeValidator(_parse_resources)] | None = Field(
        None, description="the most that a job may ask for by `resources`, as cpus=8,gpus=1,nodes=4; unset: nothing"
    )
    max_event_streams: int = Field(
        512, ge=1, le=1_000_000, description="open event streams of a web process; more get 429"
    )
    request_timeout_s: float = Field(10, gt=0, le=3600, description="deadline of a prediction; later answers are 504")
    max_body_bytes: int = Field(16_777_216, ge=1, le=2**40, description="largest request body")
    max_checkpoint_bytes: int = Field(
        2**30, ge=1, le=2**40, description="largest checkpoint that may be uploaded; written to disk as it arrives"
    )
    max_dataset_bytes: int = Field(
        10 * 2**30,
        ge=1,
        le=2**44,
        description="largest dataset file that may be uploaded; written to disk as it arrives",
    )
    keep_versions: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="unpromoted versions of each model that torchloop prune leaves, the newest; by default all",
    )
    keep_jobs_days: float | None = Field(
        None, ge=0, le=36_500, description="days after which torchloop prune removes finished jobs; by default never"
    )
    keep_drift_days: float = Field(
        30,
        ge=1,
        le=36_500,
        description="days after which counts for drift are removed; after one day, minutes are joined to hours",
    )
    keep_events_days: float = Field(
        90,
        ge=1,
        le=36_500,
        description="days after which changes are removed from the feed, unless a webhook has yet to get them",
    )
    max_pixels: int = Field(25_000_000, ge=1, le=2**31, description="largest picture, width times height")
    api_keys: Annotated[tuple[Key, ...], BeforeValidator(parse_keys)] = Field(
        (),
        description="scope:KEY pairs, separated by commas; scopes predict, train, admin",
    )
    webhooks: Annotated[tuple[Webhook, ...], BeforeValidator(parse_webhooks)] = Field(
        (), description="receivers of the feed of changes: URL and signing key, whsec_BASE64, separated by commas"
    )
    keep_alive_s: int = Field(
        75, ge=1, le=86_400, description="how long an idle connection stays open; longer than a load balancer's timeout"
    )
    root_path: Annotated[str, AfterValidator(_check_root_path)] = Field(
        "", description="path under which a reverse proxy publishes the service, for example /torchloop"
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_parse_networks)] = Field(
        (), description="addresses or networks of proxies whose X-Forwarded-Prefix is used, separated by commas"
    )
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_check_origin)], ...], BeforeValidator(_parse_list)] = (
        Field((), description="origins of other sites whose pages may call the service, separated by commas (CORS)")
    )
    log_format: Literal["text", "json"] = Field("text", description="text | json")

    @model_validator(mode="after")
    def _closed_to_the_network(self) -> "Settings":
        if not self.api_keys and not is_loopback(self.host):
            raise ValueError(f"{PREFIX}HOST={self.host} opens the service to the network: set {PREFIX}API_KEYS as well")
        if not self.api_keys and ANY in self.cors_origins:
            raise ValueError(
                f"{PREFIX}CORS_ORIGINS=* lets every web page call the service: set {PREFIX}API_KEYS as well"
            )
        return self


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Read settings from the variables that begin with TORCHLOOP_; empty ones count as unset. Raises SettingsError."""
    others = {*service_variables(environ), *(f"{PREFIX}{name}" for name in _OF_OTHERS)}
    values = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name not in others and value.strip()
    }
    if faults := [f"{PREFIX}{name.upper()}: {fault}" for name, value in values.items() if (fault := _unfit(value))]:
        raise SettingsError("; ".join(faults))
    try:
        return Settings.model_validate(values)
    except ValidationError as err:
        raise SettingsError("; ".join(_in_words(fault) for fault in err.errors())) from err


def _unfit(value: str) -> str | None:
    """Return the fault of a value that no setting may have, if any."""
    text = value.strip()
    if any("\udc80" <= letter <= "\udcff" for letter in value):  # see os.fsdecode
        return "has bytes that are not UTF-8: set it again"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return f"is in quotes {text[0]}, which a file for docker --env-file keeps: leave them out"
    return None


def service_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that Kubernetes sets in every container for a service named torchloop or torchloop-...."""
    return sorted(
        name
        for name, value in environ.items()
        if _OF_A_SERVICE.fullmatch(name) or (_PORT.fullmatch(name) and _PORT_URL.fullmatch(value))
    )


def log_service_variables(environ: Mapping[str, str]) -> None:
    """Log the names of these variables, in one line, if there are any."""
    if names := service_variables(environ):
        text = "variables of a Kubernetes service ignored (enableServiceLinks: false in the pod leaves them out)"
        log.info(text, extra={"variables": ", ".join(names)})


def for_worker(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a training worker: without the API keys, and the settings that need them."""
    return {name: value for name, value in environ.items() if name.upper() not in _OF_WEB_ONLY}


def for_training(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that runs recipes: also without the database's address and password, and
    without the token of a Ray cluster.

    The path of the project folder is absolute, because such a process has another current folder.
    """
    secret = {f"{PREFIX}DATABASE_URL", _RAY_TOKEN}
    kept = {name: value for name, value in for_worker(environ).items() if name.upper() not in secret}
    if project := kept.get(f"{PREFIX}PROJECT", "").strip():
        kept[f"{PREFIX}PROJECT"] = str(Path(project).expanduser().absolute())
    return kept


class OptionParser(argparse.ArgumentParser):
    """A parser with one-line errors, which name the setting that an unknown option stands for."""

    def error(self, message: str) -> NoReturn:
        """Print the message, and exit with status 2."""
        option = next((word for word in message.split() if word.startswith("--")), "")
        name = option.partition("=")[0].removeprefix("--").replace("-", "_")
        near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else get_close_matches(name, Settings.model_fields, 1)
        hint = f"set {PREFIX}{near[0].upper()}=VALUE in the environment; " if near else ""
        self.exit(2, f"torchloop: {message} ({hint}--help of torchloop serve lists the settings)\n")


def refuse(reason: str, status: int) -> int:
    """Print the reason why a command ends to standard error, in one line. Returns the exit status."""
    sys.stderr.write(f"torchloop: {reason}\n")
    return status


def _in_words(fault: Any) -> str:
    if not fault["loc"]:
        return str(fault["ctx"]["error"])
    first, *rest = fault["loc"]
    name = f"{PREFIX}{str(first).upper()}"
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(str(first), Settings.model_fields, 1)
        known = ", ".join(f"{PREFIX}{field.upper()}" for field in Settings.model_fields)
        hint = f"did you mean {PREFIX}{near[0].upper()}?" if near else f"the settings are {known}"
        return f"{name} is not a known setting; {hint}"
    part = "".join(f"{one}: " for one in rest if isinstance(one, str) and one in MaxResources.model_fields)
    return f"{name}: {part}{fault['msg'].removeprefix('Value error, ')}"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is a loopback address."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
