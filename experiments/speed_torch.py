"""PyTorch in the experiment on speed: eager, and with `torch.compile` of model and loss; fused optimisers.

On an accelerator in bfloat16 under autocast, and `torch.compile` with CUDA graphs (``mode="reduce-overhead"``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from speed_workloads import Job, Orders
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import mlpjax

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}
RULES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def network(config: mlpjax.Config) -> nn.Sequential:
    """Affine → batch-norm → activation → dropout in each hidden layer."""
    layers: list[nn.Module] = []
    for l in range(1, config.depth + 1):
        hidden = l < config.depth
        norm = config.batch_norm and hidden
        layers.append(nn.Linear(config.sizes[l - 1], config.sizes[l], bias=not norm))
        if norm:
            layers.append(nn.BatchNorm1d(config.sizes[l]))
        if hidden:
            layers.append(ACTIVATIONS[config.activations[l - 1]]())
            if config.dropout is not None:
                layers.append(nn.Dropout(config.dropout))
    return nn.Sequential(*layers)


class Torch:
    """The plain loop of its documentation, on data that lie on the device."""

    tells_compile = False

    def __init__(self, job: Job, compiled: bool) -> None:
        self.job, self.device = job, torch.device("cpu" if job.device == "cpu" else "cuda")
        binary = job.workload.config.head == "binary"
        self.x = torch.from_numpy(job.x).to(self.device)
        self.y = torch.from_numpy(job.y).to(self.device, torch.float32 if binary else torch.int64)
        self.model = network(job.workload.config).to(self.device)
        self.linear = [layer for layer in self.model if isinstance(layer, nn.Linear)]
        self.norms = [layer for layer in self.model if isinstance(layer, nn.BatchNorm1d)]
        if self.device.type == "cuda":
            # as jax does by default
            torch.set_float32_matmul_precision("high")
        mixed = job.workload.config.compute_dtype == "bfloat16"

        def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
                z = self.model(x)
            z = z.float()
            return binary_cross_entropy_with_logits(z[:, 0], y) if binary else cross_entropy(z, y)

        # a program for the batch and one for the smaller last batch: faster than one for every size
        mode = "default" if self.device.type == "cpu" else "reduce-overhead"
        self.loss: Callable[..., torch.Tensor] = torch.compile(loss, dynamic=False, mode=mode) if compiled else loss

    def start(self, seed: int) -> None:
        """Copy the weights in place: what was compiled stays."""
        torch.manual_seed(seed)
        with torch.no_grad():
            for layer, given in zip(self.linear, self.job.start(seed), strict=True):
                layer.weight.copy_(torch.from_numpy(np.array(given.W).T))
                if layer.bias is not None:
                    layer.bias.zero_()
            for norm in self.norms:
                norm.reset_parameters()
        workload = self.job.workload
        self.rule = RULES[workload.rule](self.model.parameters(), lr=workload.lr, fused=True)

    def train(self, orders: Orders) -> None:
        """Train."""
        for order in orders:
            for rows in torch.from_numpy(order).to(self.device, torch.int64).split(self.job.workload.batch_size):
                self.rule.zero_grad()
                self.loss(self.x[rows], self.y[rows]).backward()
                self.rule.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def params(self) -> Any:
        """Copies as NumPy arrays."""

        def array(tensor: torch.Tensor | None) -> np.ndarray | None:
            return None if tensor is None else tensor.detach().cpu().numpy().copy()

        norms = [(array(norm.weight), array(norm.bias)) for norm in self.norms] or [(None, None)] * len(self.linear[1:])
        return tuple(
            mlpjax.Layer(array(layer.weight.T), array(layer.bias), gamma, beta)
            for layer, (gamma, beta) in zip(self.linear, [*norms, (None, None)], strict=True)
        )


CONTENDERS = {"PyTorch": partial(Torch, compiled=False), "torch.compile": partial(Torch, compiled=True)}
