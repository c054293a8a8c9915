"""Fits `tickets` to made-up messages."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.tickets import words_of
from training.loop import fit
from training.metrics import classification
from training.recipe import BatchSize, Dataset, Epochs, Hyperparameters, LearningRate, Recipe, Report, Split

SUBJECTS = {
    "billing": ("bill", "refund", "invoice", "payment"),
    "delivery": ("parcel", "delivery", "driver", "address"),
    "support": ("password", "login", "screen", "app"),
}
SENTENCES = (
    "my {} is wrong",
    "there is a problem with the {}, please help",
    "hello, I wrote to you about my {} last week and have no answer yet",
    "{}?",
    "what about the {}",
    "could you look at my {} again",
)


class Config(Hyperparameters):
    """The hyperparameters and their defaults."""

    epochs: Epochs = 20
    batch_size: BatchSize = 12
    lr: LearningRate = 0.02


def load(_config: Config, _folder: Path) -> Dataset:
    """Make messages; the sentences of the held-out splits are not those of the training split."""
    parts = [_messages(SENTENCES[:4]), _messages(SENTENCES[4:5]), _messages(SENTENCES[5:])]
    return Dataset(name="made-up messages", train=parts[0], validation=parts[1], test=parts[2])


def _messages(sentences: tuple[str, ...]) -> Split:
    pairs = [(word, label) for label, words in enumerate(SUBJECTS.values()) for word in words]
    found = [({"message": sentence.format(word)}, label) for sentence, (word, label) in product(sentences, pairs)]
    return Split([row for row, _ in found], torch.tensor([label for _, label in found]))


def artifacts(_config: Config, dataset: Dataset) -> Mapping[str, Any]:
    """Make the vocabulary of the training rows, and name the departments."""
    words = sorted({word for row in dataset.train.samples for word in words_of(row["message"])})
    return {"vocabulary": {word: place for place, word in enumerate(words, 1)}, "departments": list(SUBJECTS)}


def arguments(_config: Config, artifacts: Mapping[str, Any]) -> dict[str, Any]:
    """The network has a vector for each word, and one for unknown words."""
    return {"words": len(artifacts["vocabulary"]) + 1}


def fit_network(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    """Minimise the cross entropy."""
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=nn.functional.cross_entropy,
        measure=lambda network: classification(network, dataset.validation),
        samples_per_report=len(dataset.train),
    )


RECIPE = Recipe(
    config=Config,
    arguments=arguments,
    artifacts=artifacts,
    load=load,
    target="label",
    labels=tuple(SUBJECTS),
    fit=fit_network,
    evaluate=classification,
    metric="accuracy",
    higher_is_better=True,
)
