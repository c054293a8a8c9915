"""Entry point of the installed command `torchloop-client`."""

from service.client.interruption import exit_at_signals, ignore_signals


def run() -> int:
    """Run the client. Until it installs its own handlers, signals end it at once: its imports take time."""
    exit_at_signals()
    from service.client.__main__ import main  # noqa: PLC0415

    status = main(prog="torchloop-client")
    ignore_signals()
    return status
