"""A contact sheet: one handwritten digit under each transform of `mlpjax.augment`, at three strengths.

Claims: at strength 0 the picture is the digit, bit for bit; the same key gives the same pictures twice; and in the mean
over 100 pictures, a greater strength changes more (except mixup, whose α changes how often, not how much).

    uv run --with matplotlib python experiments/augmentation.py --data-dir FOLDER_OF_MNIST

Writes experiments/results/augmentation.png and .json, and exits with an error when a claim is missed.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import matplotlib
import numpy as np

import mlpjax
from mlpjax import Batch, ImageAugment, VectorAugment
from mlpjax.versions import versions

matplotlib.use("Agg")
from matplotlib import pyplot

EXAMPLE, PARTNER = 0, 7
"""Of the training images: a five, and the three that mixup mixes with it."""
PICTURES, SHOWN = 100, 3
STRENGTHS = {
    "shift": (1.0, 2.0, 4.0),
    "rotate": (10.0, 20.0, 45.0),
    "scale": (0.1, 0.2, 0.4),
    "shear": (10.0, 20.0, 40.0),
    "flip": (0.1, 0.5, 1.0),
    "elastic": (0.7, 1.3, 2.6),
    "noise": (0.1, 0.2, 0.4),
    "mixup": (0.1, 0.4, 1.0),
}
UNITS = {"shift": " px", "rotate": "°", "shear": "°", "elastic": " px"}

apply = jax.jit(lambda augment, key, batch: augment(key, batch))


def main() -> int:
    """Draw the sheet, print and write the numbers; returns 1 when a claim is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir")
    mnist = mlpjax.load_dataset("mnist", data_dir=parser.parse_args().data_dir)
    five, partner = (np.float32(mnist.x[i]) / 255 for i in (EXAMPLE, PARTNER))
    shape = mnist.image_shape
    # every second row is the digit, so that the next one is its partner
    batch = Batch(np.tile([five, partner], (PICTURES, 1)), np.tile(np.eye(2, dtype=np.float32), (PICTURES, 1)))

    def pictures(name: str, strength: float) -> np.ndarray:
        # all parts are on, so that one program serves every strength
        zero = dict.fromkeys(("shift", "rotate", "scale", "shear", "flip", "elastic", "noise"), 0.0)
        image = ImageAugment(shape=shape, **{**zero, **({} if name == "mixup" else {name: strength})})
        augment = VectorAugment(mixup=strength) if name == "mixup" else image
        return np.asarray(apply(augment, jax.random.key(0), batch).x)[::2]

    changes, same, sheets = {}, True, {}
    for name, strengths in STRENGTHS.items():
        sheets[name] = [pictures(name, strength) for strength in strengths]
        changes[name] = [float(np.abs(sheet - five).mean()) for sheet in sheets[name]]
        same &= np.array_equal(pictures(name, strengths[-1]), sheets[name][-1])
        same &= all(np.array_equal(picture, five) for picture in pictures(name, 0.0))
        print(f"{name:8}", ", ".join(f"{s:g}: {c:.4f}" for s, c in zip(strengths, changes[name], strict=True)))
    draw(five.reshape(shape), sheets)
    growing = all(name == "mixup" or sorted(set(values)) == values for name, values in changes.items())
    print(f"strength 0 and a second time: {'the same' if same else 'NOT the same'}; growing: {growing}")
    result = {"pictures": PICTURES, "strengths": STRENGTHS, "mean_absolute_change": changes, "versions": versions()}
    target = Path(__file__).parent / "results" / "augmentation.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(not (same and growing))


def draw(image: np.ndarray, sheets: dict[str, list[np.ndarray]]) -> None:
    """One row per transform: the digit, then a few pictures at each strength."""
    columns = 1 + len(next(iter(STRENGTHS.values()))) * SHOWN
    figure, axes = pyplot.subplots(len(sheets), columns, figsize=(0.75 * columns, 0.9 * len(sheets)), dpi=80)
    for row, (name, per_strength) in zip(axes, sheets.items(), strict=True):
        cells = [image, *(picture.reshape(image.shape) for sheet in per_strength for picture in sheet[:SHOWN])]
        for axis, cell in zip(row, cells, strict=True):
            axis.imshow(cell, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
        row[0].set_title(name, fontsize=9, fontweight="bold")
        for k, strength in enumerate(STRENGTHS[name]):
            row[1 + SHOWN * k + SHOWN // 2].set_title(f"{strength:g}{UNITS.get(name, '')}", fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(Path(__file__).parent / "results" / "augmentation.png")


if __name__ == "__main__":
    sys.exit(main())
