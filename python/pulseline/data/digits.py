"""Handwritten digits: the 1,797 of 8x8 that scikit-learn ships (UCI optical recognition, test)."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import ConfigError
from .sets import DataSet

__all__ = ["load_digits"]


def load_digits(samples: int | None = None) -> DataSet:
    """The digits / 16, a stratified 80/20 split with random_state 0: 1,437 and 360 images.

    Args:
        samples: training images to take, the first ones; None: all.

    Returns:
        Images as vectors of 64.

    Raises:
        ConfigError: there are fewer training images.
    """
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    images, labels = bundled(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        (images / 16).astype(np.float32), labels, test_size=0.2, random_state=0, stratify=labels
    )
    if samples is not None and samples > len(x_train):
        raise ConfigError(f"samples is {samples}; use at most the {len(x_train)} training images")
    x_train, y_train = x_train[:samples], y_train[:samples]
    parts = [torch.from_numpy(a) for a in (x_train, y_train, x_test, y_test)]
    return DataSet.of(parts, (1, 8, 8))
