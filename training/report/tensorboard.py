"""A run as TensorBoard event files, for those who ask for them: `tensorboard --logdir FOLDER`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from training.recipe import Hyperparameters, Progress, TrainingError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FLUSH_S = 2  # how old what TensorBoard shows of a running job may be


class EventFile:
    """Writes into `folder` what a run reports: train/loss, validation/METRIC, and at the end its figures.

    A resumed run writes a file of its own, which tells TensorBoard to forget the steps that are told again.
    Raises TrainingError where nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._step = 0

    def add(self, progress: Progress) -> None:
        """One point."""
        writer = self._writer = self._writer or self._opened(progress.step)
        self._step = progress.step
        writer.add_scalar("train/loss", progress.loss, progress.step)
        writer.add_scalar("train/epoch", progress.epoch, progress.step)
        for name, value in progress.metrics.items():
            writer.add_scalar(f"validation/{name}", value, progress.step)

    def finish(self, config: Hyperparameters, figures: Mapping[str, float]) -> None:
        """The run went well: its hyperparameters as text, the figures of its checkpoint as scalars."""
        writer = self._writer or self._opened(0)
        rows = "".join(f"\n| {name} | {value} |" for name, value in config.model_dump(mode="json").items())
        writer.add_text("hyperparameters", f"| name | value |\n|---|---|{rows}", self._step)
        for name, value in figures.items():
            writer.add_scalar(f"checkpoint/{name}", value, self._step)

    def close(self) -> None:
        """The run is over, however it went: what it told is written, and the file let go."""
        if self._writer:
            self._writer.close()

    def _opened(self, step: int) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - half a second, for those who ask for it

        try:
            return SummaryWriter(str(self._folder), purge_step=step, flush_secs=_FLUSH_S)
        except OSError as err:
            raise TrainingError(
                f"event files cannot be written ({err.strerror}): choose another --tensorboard",
            ) from err
