"""The computation graph: variables and functions, run forward and backward in topological order.

A `Variable` holds a value; a `Function` is one application of an `Operation` to variables. A function node stores
its values, knows its local gradients, and turns the gradient of its output into those of its inputs. A `Graph` visits
the functions in topological order (forward), and in reverse (backward). Values are NumPy arrays: nothing here uses
JAX, so that a gradient found this way is a second opinion. Nothing recurses either: a chain may be of any length.

Source: lecture, section *Computation graph* (after Allauzen: ``err-graph-name``). The operations are in
`mlpjax.graph_operations`, layers and examples in `mlpjax.graph_modules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from mlpjax.errors import InputError, listed
from mlpjax.graph_order import topological_order


class Operation(NamedTuple):
    """What a function node computes: ``z = forward(x, y, …)``, and its derivative, side by side.

    ``vjp(g, z, x, y, …)`` takes the gradient g = ∂l/∂z, of the shape of z, and returns the pair (or as many as
    there are inputs) ∂l/∂x, ∂l/∂y, each of the shape of its input: a vector–Jacobian product, not a product of two
    arrays (``err-graph-jacobian``). ``None`` stands for an input through which nothing flows. ``options`` names the
    keyword arguments that both take. Source: ``graph-custom-node``.

    >>> square = Operation("square", lambda x: x * x, lambda g, z, x: (2 * x * g,))
    >>> l = apply(square, Variable(3.0, "x"))
    >>> Graph(l).value_and_gradients()[1]
    {'x': array(6.)}
    """

    name: str
    forward: Callable[..., Any]
    vjp: Callable[..., tuple[Any, ...]]
    options: tuple[str, ...] = ()


class Variable:
    """A variable node: an input or parameter given with a value, or the output of a function.

    ``grad`` is ∂l/∂(this variable) after a backward pass, of the shape of ``value``; ``None`` where l does not
    depend on it. A ``constant`` (data, a label) gets none. Source: ``graph-definition``, ``graph-label-node``.

    Raises:
        InputError: the value is not of real numbers.

    >>> Variable([1, 2], "x")
    Variable(x (2,))
    """

    __slots__ = ("_value", "constant", "grad", "name", "producer")

    def __init__(self, value: Any = None, name: str = "", *, constant: bool = False) -> None:
        self.name = name
        self.value = value
        self.constant = constant
        self.grad: np.ndarray | None = None
        self.producer: Function | None = None

    @property
    def value(self) -> Any:
        """The NumPy array, or ``None`` before it is known."""
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = None if value is None else _array(value)

    def __repr__(self) -> str:
        return f"Variable({self.name or 'unnamed'} {'no value' if self.value is None else self.value.shape})"


class Function:
    """A function node z = f(x, y): it stores x, y and z, and knows ``forward``, local gradients and ``backward``.

    Args:
        operation: f and its derivative.
        inputs: the variables x, y, …
        output: the variable z; a variable is the output of one function at most.
        options: keyword arguments of f.

    After a backward pass ``gradients`` has what the node returned to each input; a variable with several uses has
    their sum. ``group`` is the name and the output of the module that the node belongs to, if any.
    Source: ``graph-node-summary``, ``graph-node-forward``, ``graph-node-local``, ``graph-node-backward``.

    >>> multiply = Operation("mul", np.multiply, lambda g, z, x, y: (g * y, g * x))
    >>> node = Function(multiply, (Variable(2.0), Variable(5.0)), Variable())
    >>> node.forward(), node.local_gradients(), node.backward(10.0)
    (array(10.), (array(5.), array(2.)), (array(50.), array(20.)))
    """

    __slots__ = ("gradients", "group", "inputs", "operation", "options", "output")

    def __init__(
        self,
        operation: Operation,
        inputs: Iterable[Variable],
        output: Variable,
        options: dict[str, Any] | None = None,
    ) -> None:
        if output.producer is not None:
            raise InputError(
                f"{output} is already the output of {output.producer.operation.name!r}: give {operation.name!r} "
                "an output of its own"
            )
        self.operation: Operation = operation
        self.inputs = tuple(inputs)
        if other := [type(given).__name__ for given in self.inputs if not isinstance(given, Variable)]:
            raise InputError(f"{operation.name!r} was given {listed(other)}: wrap it, Variable(…), to make it a node")
        self.output = output
        self.options = options or {}
        self.group: tuple[str, Variable] | None = None
        self.gradients: tuple[np.ndarray | None, ...] = ()
        output.producer = self

    def __repr__(self) -> str:
        return f"Function({self.operation.name}: {listed(v.name or '·' for v in self.inputs)})"

    def forward(self) -> np.ndarray:
        """Compute z = f(x, y) and store it.

        Raises:
            InputError: an input has no value, or f refuses its inputs; the message names the node.
        """
        for variable in self.inputs:
            if variable.value is None:
                raise InputError(f"{self}: {variable} has no value; set its .value before the forward pass")
        values = [variable.value for variable in self.inputs]
        try:
            with np.errstate(all="ignore"):
                self.output.value = self.operation.forward(*values, **self.options)
        except (ValueError, TypeError) as error:
            shapes = listed(np.shape(value) for value in values)
            raise InputError(f"{self} cannot take inputs of shapes {shapes}: {error}") from error
        return self.output.value

    def backward(self, upstream: Any) -> tuple[np.ndarray | None, ...]:
        """Return ∂l/∂x, ∂l/∂y from ``upstream`` = ∂l/∂z: upstream × local, as a vector–Jacobian product.

        Raises:
            InputError: the operation's vjp does not give one array of the right shape per input.
        """
        values = [variable.value for variable in self.inputs]
        with np.errstate(all="ignore"):
            found = self.operation.vjp(np.asarray(upstream), self.output.value, *values, **self.options)
        if not isinstance(found, tuple) or len(found) != len(values):
            raise InputError(
                f"the vjp of {self} returned {found!r}: expected a tuple of {len(values)} gradients, one per input, "
                "None where nothing flows"
            )
        self.gradients = tuple(None if gradient is None else np.asarray(gradient) for gradient in found)
        for position, (gradient, value) in enumerate(zip(self.gradients, values, strict=True)):
            if gradient is not None and gradient.shape != value.shape:
                raise InputError(
                    f"the vjp of {self} gave input {position} a gradient of shape {gradient.shape}: expected that of "
                    f"the input, {value.shape}"
                )
        return self.gradients

    def local_gradients(self) -> tuple[np.ndarray | None, ...]:
        """Return ∂z/∂x, ∂z/∂y: Jacobians of shape ``z.shape + x.shape``, one row per element of z.

        ``backward`` never builds them.
        """
        z, kept = self.forward(), self.gradients
        rows = [self.backward(row.reshape(z.shape)) for row in np.eye(z.size, dtype=z.dtype)]
        self.gradients = kept
        return tuple(
            None if column[0] is None else np.stack(column).reshape(z.shape + column[0].shape)
            for column in zip(*rows, strict=True)
        )


def apply(operation: Operation, *inputs: Variable, name: str = "", **options: Any) -> Variable:
    """Add a function node to the inputs and return its output variable; nothing is computed yet.

    Source: ``graph-definition``.

    >>> apply(Operation("neg", np.negative, lambda g, z, x: (-g,)), Variable(1.0, "x"), name="y")
    Variable(y no value)
    """
    output = Variable(name=name)
    Function(operation, inputs, output, options)
    return output


class Graph:
    """The functions behind one or several output variables, in topological order.

    ``functions`` are those in the order of the forward pass; ``inputs`` the variables that no function computes, in
    the order of their first use. Source: ``graph-definition``, ``graph-passes``, ``graph-fanout``.

    >>> multiply = Operation("mul", np.multiply, lambda g, z, x, y: (g * y, g * x))
    >>> x = Variable(3.0, "x")
    >>> graph = Graph(apply(multiply, x, x))  # x has two uses: their gradients add up
    >>> graph.forward(), graph.backward(), x.grad
    (array(9.), None, array(6.))
    """

    def __init__(self, *outputs: Variable) -> None:
        if not outputs:
            raise InputError("a graph needs an output: give the variables to compute, Graph(l)")
        self.outputs = outputs
        self.functions = topological_order(outputs)
        seen = dict.fromkeys(variable for function in self.functions for variable in function.inputs)
        seen.update(dict.fromkeys(outputs))
        self.inputs = tuple(variable for variable in seen if variable.producer is None)

    def forward(self) -> Any:
        """Compute every function in topological order; returns the value of the first output."""
        for function in self.functions:
            function.forward()
        return self.outputs[0].value

    def backward(self, upstream: Any = None) -> None:
        """Fill ``grad`` of every variable with the gradient of the first output, in reverse topological order.

        Args:
            upstream: ∂l/∂output, of the output's shape, for an l beyond the graph; 1 for a scalar output l.

        Raises:
            InputError: before a forward pass, or without ``upstream`` for an output that is not a scalar.

        The gradients of a variable that is used several times add up (``err-graph-fanout``).
        """
        for variable in (*self.inputs, *(function.output for function in self.functions)):
            variable.grad = None
        self.outputs[0].grad = _seed(self.outputs[0], upstream)
        for function in reversed(self.functions):
            function.gradients = ()
            if function.output.grad is not None:
                function.backward(function.output.grad)
            gradient: np.ndarray | None
            for variable, gradient in zip(function.inputs, function.gradients, strict=False):
                if gradient is not None and not variable.constant:
                    variable.grad = gradient if variable.grad is None else np.asarray(variable.grad + gradient)

    def value_and_gradients(self) -> tuple[Any, dict[str, Any]]:
        """Run both passes; returns the scalar output and the gradient of each named input that is no constant."""
        value = self.forward()
        self.backward()
        return value, {v.name: v.grad for v in self.inputs if v.name and not v.constant}


def _array(value: Any) -> np.ndarray:
    """An array of real numbers; Python's integers become float64. ``V`` is bfloat16."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiubV":
        raise InputError(f"a variable was given {value!r}, of dtype {array.dtype}: expected real numbers")
    made_here = not isinstance(value, np.ndarray | np.generic)
    return array.astype(np.float64) if made_here and array.dtype.kind in "iu" else array


def _seed(output: Variable, upstream: Any) -> np.ndarray:
    if output.value is None:
        raise InputError(f"{output} has no value: run the forward pass before the backward pass")
    if upstream is None:
        if output.value.shape != ():
            raise InputError(
                f"the output has shape {output.value.shape}: a gradient is that of a scalar; sum the output, or give "
                "upstream, the gradient of a scalar with respect to it"
            )
        return np.ones_like(output.value)
    upstream = np.asarray(upstream, output.value.dtype)
    if upstream.shape != output.value.shape:
        raise InputError(f"upstream has shape {upstream.shape}: expected that of the output, {output.value.shape}")
    return upstream
