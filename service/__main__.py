"""python -m service: the web process. Settings come from the environment; --help lists them."""

import argparse
import os
import sys

import uvicorn

from models import device
from service.config import PREFIX, Settings, SettingsError, configure_logging, from_environment
from service.embedded import EmbeddedWorker


def main() -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit status: 2 for a bad setting."""
    _parser().parse_args()
    try:
        settings = from_environment(os.environ)
        device.resolve(settings.device)
    except (SettingsError, ValueError) as err:
        print(f"torchloop: {err}", file=sys.stderr)  # noqa: T201
        return 2
    configure_logging(settings.log_format)
    worker = EmbeddedWorker() if settings.worker == "embedded" else None
    if worker:
        worker.start()
    try:
        uvicorn.run(
            "service.app:from_settings",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.web_processes,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.request_timeout_s) + 1,
        )
    finally:
        if worker:
            worker.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    lines = [
        f"  {PREFIX}{name.upper():<20} {field.description} [{getattr(defaults, name) or ''}]"
        for name, field in Settings.model_fields.items()
    ]
    return argparse.ArgumentParser(
        prog="python -m service",
        description="Serve the models over HTTP.",
        epilog="settings, from the environment [default]:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    sys.exit(main())
