"""Recipe of the MNIST CNN: `python -m training mnist`; `--preset champion` trains the shipped checkpoint."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import nn
from torch.nn.utils.memory_format import convert_conv2d_weight_memory_format

from training import data, distillation, metrics
from training.fitting.augment import affine, distort
from training.fitting.batches import Augment
from training.fitting.calibration import calibrate
from training.fitting.phases import Stage
from training.fitting.precision import Mixed, in_bfloat16
from training.fitting.shares import shares_of
from training.loop import Loss, fit, steps_of
from training.recipe import Dataset, Hyperparameters, Recipe, Report, Schedule, Split


def _on_or_off(mixed: object) -> object:
    """Accept a boolean, the earlier type of `mixed`."""
    if isinstance(mixed, bool):
        return "on" if mixed else "off"
    return mixed


class Config(Hyperparameters):
    """Defaults: a quick run, one epoch of Adam."""

    # Of one epoch's runs (seeds 0 to 7) on the validation split: constant 0.9804 to 0.9856, linear 0.9806 to 0.9824,
    # cooldown 0.9844 to 0.9874.
    schedule: Schedule = "cooldown"
    dataset: Literal["mnist", "digits"] = Field("mnist", description="digits: the 1,797 built-in ones, no files needed")
    augment: bool = Field(False, description="rotate, scale and shift each picture at random")
    elastic: float = Field(0.0, ge=0, le=4, description="with augment: elastic distortion of each picture, in pixels")
    teacher_epochs: int = Field(0, ge=0, le=1_000, description="distillation: epochs of a larger teacher; 0: none")
    copies: int = Field(0, ge=0, le=100, description="with a teacher: augmented copies of each picture")
    softness: float = Field(3.0, ge=1, le=100, description="with a teacher: temperature of the distillation loss")
    mixed: Annotated[Mixed, BeforeValidator(_on_or_off)] = Field(
        "auto",
        description="compute in bfloat16; auto: if the processor has instructions for it",
    )
    calibrate: bool = Field(False, description="temperature scaling on the validation split after training")
    limit: int | None = Field(None, ge=1, description="use only the first N training samples")
    num_workers: int = Field(
        0, ge=0, le=16, description="processes that prepare batches; 0: prepare them in the main process"
    )


# An epoch includes the copies: 12 epochs are 96 passes over the 55,000 pictures.
CHAMPION: Mapping[str, Any] = {
    "epochs": 12,
    "batch_size": 128,
    "optimizer": "adamw",
    "lr": 0.003,
    "weight_decay": 0.02,
    "augment": True,
    "elastic": 0.6,
    "teacher_epochs": 8,
    "copies": 7,
    "mixed": "on",
    "calibrate": True,
}
_TAUGHT: Mapping[str, Any] = {
    "lr": 0.004,
    "schedule": "one_cycle",
    "weight_decay": 0.05,
}  # hyperparameters of the teacher


def arguments(config: Config) -> dict[str, Any]:
    """The CNN's constructor arguments."""
    return {"activation": config.activation}


def load(config: Config, folder: Path) -> Dataset:
    """MNIST from the data folder, or the built-in digits."""
    return data.limited(data.mnist(folder) if config.dataset == "mnist" else data.digits(), config.limit)


def fixture(_: Path) -> Mapping[str, Any]:
    """The built-in digits need no files."""
    return {"dataset": "digits"}


def fit_network(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    """Train on the labels (cross entropy) or on a teacher's logits. Reports accuracy on 250 validation images."""
    if config.teacher_epochs:
        _learn_from_teacher(network, dataset, config, report)
    else:
        shares = shares_of(config.batch_size, dataset.train.samples.device)
        _fit(network, dataset, dataset.train, config, report, augment=_augmentation(config), shares=shares)
    if config.calibrate:
        calibrate(network, dataset.validation)


def _learn_from_teacher(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    """Distillation: train a teacher, then train the network on its logits for every picture and copy."""
    augment = _augmentation(config)
    lessons = config.model_copy(update={"epochs": config.teacher_epochs, **_TAUGHT})
    copies = config.copies if augment else 0
    samples, device = len(dataset.train), dataset.train.samples.device
    steps = [steps_of(samples, lessons, report), steps_of(samples * (copies + 1), config, report)]
    first = Stage(report=report, name="teacher", epochs=(0, config.epochs), steps=(0, steps[1]))
    second = Stage(report=report, name="pupil", before=first, epochs=(lessons.epochs, 0), steps=(steps[0], 0))
    larger = distillation.new_teacher(config.seed).to(device)
    _fit(larger, dataset, dataset.train, lessons, first, augment=augment)
    mixed = in_bfloat16(config.mixed, device)
    judged = distillation.judged(larger, dataset.train, augment, copies=copies, seed=config.seed, mixed=mixed)
    shares = shares_of(config.batch_size, device)
    _fit(network, dataset, judged, config, second, loss=distillation.softened_loss(config.softness), shares=shares)


def _fit(
    network: nn.Module,
    dataset: Dataset,
    train: Split,
    config: Config,
    report: Report,
    *,
    loss: Loss = nn.functional.cross_entropy,
    augment: Augment | None = None,
    shares: int = 1,
) -> None:
    watched = Split(dataset.validation.samples[:250], dataset.validation.targets[:250])
    device = train.samples.device
    mixed = in_bfloat16(config.mixed, device)

    def measure(network: nn.Module) -> dict[str, float]:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            return {"accuracy": metrics.accuracy(network, watched)}

    fit(
        convert_conv2d_weight_memory_format(network, torch.channels_last),  # makes pooling several times as fast
        train,
        config,
        report,
        loss=loss,
        measure=measure,
        samples_per_report=5_000,
        augment=augment,
        num_workers=config.num_workers,
        mixed=mixed,
        shares=shares,
    )


def _augmentation(config: Config) -> Augment | None:
    if not config.augment:
        return None
    return partial(distort, elastic=config.elastic) if config.elastic else affine


RECIPE = Recipe(
    config=Config,
    arguments=arguments,
    load=load,
    target="label",
    labels=tuple("0123456789"),
    fit=fit_network,
    evaluate=metrics.classification,
    details=metrics.classification_by_class,
    metric="accuracy",
    higher_is_better=True,
    loss="cross entropy (nats)",
    presets={"champion": CHAMPION},
    fixture=fixture,
    built_in={
        "mnist": {"train": 55_000, "validation": 5_000, "test": 10_000},
        "digits": {"train": 1_257, "validation": 270, "test": 270},
    },
)
