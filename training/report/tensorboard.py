"""Write TensorBoard event files of a run: `tensorboard --logdir FOLDER`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from training.recipe import Hyperparameters, Progress, TrainingError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FLUSH_S = 2  # delay until TensorBoard shows a new point


class EventFile:
    """Write the progress of a run into `folder`: train/loss, validation/METRIC, and at the end the final metrics.

    A resumed run writes a new file, which makes TensorBoard discard the repeated steps.
    Raises TrainingError if nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._step = 0

    def add(self, progress: Progress) -> None:
        """Write one point."""
        writer = self._writer = self._writer or self._opened(progress.step)
        self._step = progress.step
        writer.add_scalar("train/loss", progress.loss, progress.step)
        writer.add_scalar("train/epoch", progress.epoch, progress.step)
        for name, value in progress.metrics.items():
            writer.add_scalar(f"validation/{name}", value, progress.step)

    def finish(self, config: Hyperparameters, figures: Mapping[str, float]) -> None:
        """After a successful run, write its hyperparameters as text and its final metrics as scalars."""
        writer = self._writer or self._opened(0)
        rows = "".join(f"\n| {name} | {value} |" for name, value in config.model_dump(mode="json").items())
        writer.add_text("hyperparameters", f"| name | value |\n|---|---|{rows}", self._step)
        for name, value in figures.items():
            writer.add_scalar(f"checkpoint/{name}", value, self._step)

    def close(self) -> None:
        """Flush and close the file, after success or failure."""
        if self._writer:
            self._writer.close()

    def _opened(self, step: int) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - takes half a second to import

        try:
            return SummaryWriter(str(self._folder), purge_step=step, flush_secs=_FLUSH_S)
        except OSError as err:
            raise TrainingError(
                f"event files cannot be written ({err.strerror}): choose another --tensorboard",
            ) from err
