"""Log formats: text with key=value fields, or one JSON object a line."""

import json
import logging
import logging.config
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

_RECORD_FIELDS = set(vars(logging.makeLogRecord({})))


class _Fields(logging.Formatter):
    """`date time level message key=value ...`; the fields come from `extra`, `output` follows as lines."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record, '%Y-%m-%d %H:%M:%S')} {record.levelname:<7} {_one_line(record.getMessage())}"
        fields = _extra(record)
        lines = str(fields.pop("output", "")).splitlines()
        words = [head, *(f"{key}={_one_line(str(value))}" for key, value in fields.items())]
        trace = [*lines, *(self.formatException(record.exc_info).splitlines() if record.exc_info else [])]
        return "\n    ".join([" ".join(words), *map(_one_line, trace)])


class _Json(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {"at": at, "level": record.levelname.lower(), "message": record.getMessage(), **_extra(record)}
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    known = _RECORD_FIELDS | {"message", "asctime", "color_message", "taskName"}
    return {key: value for key, value in vars(record).items() if key not in known and not key.startswith("_ray")}


def _one_line(text: str) -> str:
    """Escape control characters, so that a client's text cannot forge a log line."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _log_uncaught(kind: type[BaseException], err: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, err, trace)
    else:
        logging.getLogger(__name__).critical("uncaught exception", exc_info=(kind, err, trace))


def _log_uncaught_in_thread(hook: threading.ExceptHookArgs) -> None:
    if hook.exc_value is not None:
        name = hook.thread.name if hook.thread else ""
        info = (hook.exc_type, hook.exc_value, hook.exc_traceback)
        logging.getLogger(__name__).critical("uncaught exception", exc_info=info, extra={"thread_name": name})


def _log_unraisable(hook: "sys.UnraisableHookArgs") -> None:
    if hook.exc_value is not None:
        info = (hook.exc_type, hook.exc_value, hook.exc_traceback)
        message = hook.err_msg or "exception ignored"
        logging.getLogger(__name__).error(message, exc_info=info, extra={"object": repr(hook.object)})


def configure_logging(log_format: Literal["text", "json"]) -> None:
    """Log to standard error. Called by main functions only."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"text": {"()": _Fields}, "json": {"()": _Json}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": log_format}},
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {"alembic": {"level": "WARNING"}},
        },
    )


def log_uncaught() -> None:
    """Log warnings and uncaught exceptions, which Python would print itself. Called by main functions only."""
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable
