"""What ``mlpjax train --augment`` says, as an augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mlpjax.augment import ImageAugment
from mlpjax.augment_vectors import VectorAugment
from mlpjax.augmenting import Augment, chain
from mlpjax.errors import ConfigError, unknown_name
from mlpjax.problems import Dataset

IMAGE_NAMES = tuple(field.name for field in dataclasses.fields(ImageAugment) if field.name != "shape")
VECTOR_NAMES = tuple(field.name for field in dataclasses.fields(VectorAugment))


def augmentation(words: Sequence[str], dataset: Dataset) -> Augment | None:
    """Make an augmentation of words ``NAME=NUMBER``, the fields of `ImageAugment` and `VectorAugment`.

    Raises:
        ConfigError: for a word that is no such name and number, a name twice, a number out of its range, and images'
            names where the rows of ``dataset`` are not images.

    >>> augmentation(["rotate=15", "mixup=0.2"], mlpjax.load_dataset("digits")) is not None
    True
    >>> augmentation(["rotate=15"], mlpjax.load_dataset("circle"))
    Traceback (most recent call last):
        ...
    mlpjax.errors.ConfigError: --augment rotate: circle has rows of 2 features, not images (height, width), as ...
    """
    strengths: dict[str, float] = {}
    for word in words:
        name, sign, number = word.partition("=")
        if name not in IMAGE_NAMES + VECTOR_NAMES:
            raise ConfigError(unknown_name("--augment", name, IMAGE_NAMES + VECTOR_NAMES))
        if name in strengths:
            raise ConfigError(f"--augment has {name} twice: expected each name once")
        try:
            strengths[name] = float(number)
        except ValueError:
            got = f"{number!r}, not a number" if sign else "without a number"
            raise ConfigError(f"--augment {name} is {got}: expected NAME=NUMBER, such as {name}=0.5") from None
    image = {name: number for name, number in strengths.items() if name in IMAGE_NAMES}
    vector = {name: number for name, number in strengths.items() if name in VECTOR_NAMES}
    if image and dataset.image_shape is None:
        raise ConfigError(
            f"--augment {next(iter(image))}: {dataset.name} has rows of {dataset.x.shape[1]} features, not images "
            f"(height, width), as mnist and digits have; for vectors there are {' and '.join(VECTOR_NAMES)}"
        )
    if "smooth" in image and "elastic" not in image:
        raise ConfigError("--augment smooth is of the elastic field: give elastic too, such as elastic=1")
    parts: list[Augment] = []
    try:
        if image:
            parts.append(ImageAugment(shape=dataset.image_shape or (), **image))
        if vector:
            parts.append(VectorAugment(**vector))
    except ConfigError as error:
        raise ConfigError(f"--augment: {error}") from None
    return chain(*parts) if len(parts) > 1 else next(iter(parts), None)
