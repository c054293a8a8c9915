"""The recipe of NAME: `torchloop train NAME`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

# isort: split
from training.loop import fit
from training.metrics import classification
from training.recipe import (
    BatchSize,
    Dataset,
    Epochs,
    Hyperparameters,
    LearningRate,
    Recipe,
    Report,
    Split,
)

# isort: split
from training.templates.text_model import LABELS, words_of

WORDS = {
    "positive": ("good", "great", "funny", "fine", "clever"),
    "negative": ("bad", "boring", "poor", "dull", "silly"),
}
SENTENCES = (
    "a {word} {noun}",
    "what a {word} {noun}!",
    "I think that this {noun} is really {word}",
    "{word}: I would not say more about the {noun}",
)


class Config(Hyperparameters):
    """The hyperparameters and their defaults. Each field is a flag of `torchloop train`."""

    epochs: Epochs = 15
    batch_size: BatchSize = 20
    lr: LearningRate = 0.01


def load(_config: Config, _folder: Path) -> Dataset:
    """Make up the data. Read your own from the data folder instead, split for good."""
    return Dataset(
        name="made up",
        train=reviews("film", "book", "game"),
        validation=reviews("song"),
        test=reviews("play"),
    )


def reviews(*nouns: str) -> Split:
    """Write reviews, rows as a request sends them; 1 if they are positive."""
    found = [
        ({"text": sentence.format(word=word, noun=noun)}, int(label == "positive"))
        for sentence in SENTENCES
        for noun in nouns
        for label, words in WORDS.items()
        for word in words
    ]
    return Split([row for row, _ in found], torch.tensor([label for _, label in found]))


def artifacts(_config: Config, dataset: Dataset) -> Mapping[str, Any]:
    """Make the vocabulary, word -> number, which belongs to the weights."""
    rows = dataset.train.samples
    words = sorted({word for row in rows for word in words_of(row["text"])})
    return {"vocabulary": {word: place for place, word in enumerate(words, 1)}}


def arguments(config: Config, artifacts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor arguments of the network: a vector for unknown words, too."""
    words = len(artifacts["vocabulary"]) + 1
    return {"words": words, "activation": config.activation}


def fixture(_folder: Path) -> Mapping[str, Any]:
    """Prepare `torchloop check`: write a small dataset here, if `load` reads files."""
    return {"epochs": 2}


def fit_network(
    network: nn.Module,
    dataset: Dataset,
    config: Config,
    report: Report,
) -> None:
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
    labels=LABELS,
    fit=fit_network,
    evaluate=classification,
    metric="accuracy",
    higher_is_better=True,
    loss="cross entropy (nats)",
    fixture=fixture,
)
