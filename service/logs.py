"""Log formats: text with key=value fields, or one JSON object a line."""

import json
import logging
import logging.config
from datetime import UTC, datetime
from typing import Any, Literal

_RECORD_FIELDS = set(vars(logging.makeLogRecord({})))


class _Fields(logging.Formatter):
    """`time level message key=value ...`; the fields come from `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname:<7} {_one_line(record.getMessage())}"
        words = [head, *(f"{key}={_one_line(str(value))}" for key, value in _extra(record).items())]
        trace = self.formatException(record.exc_info).splitlines() if record.exc_info else []
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
    return {key: value for key, value in vars(record).items() if key not in known}


def _one_line(text: str) -> str:
    """Escape control characters, so that a client's text cannot forge a log line."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


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
