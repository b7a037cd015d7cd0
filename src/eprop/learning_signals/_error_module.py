"""The learning signal of e-prop 2: a network of its own, which learns what to send."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eprop.eligibility import run_exact, start
from eprop.errors import require
from eprop.neurons import readout_output, recurrent_output


class ErrorModule(eqx.Module):
    """A recurrent network whose readout is the learning signal of each neuron of another (Bellec et al. 2019).

        L_j^t = sum_k P_kj z_bar_k^t

    with `z_bar` the filtered outputs of the module's own neurons. They read whatever parts the module is
    called with: what the task asks for (or the output's error), the main network's `z`, the time. `L_j^t`
    may depend on the module's `z` at t, and that on the main network's. The outer loop trains module and `P`.

    Args:
        layer: a `Recurrent` layer of any neuron model; wrapped in `Filtered` it is read through the filter.
        n: number of neurons that get a learning signal.
        key: random key. `P ~ N(0,1) / sqrt(module's neurons)`.
    """

    layer: Any
    weight: Float[Array, "module neuron"]

    def __init__(self, layer: Any, n: int, *, key: PRNGKeyArray) -> None:
        self.layer = layer
        self.weight = jax.random.normal(key, (layer.size, n), layer.w_in.dtype) * layer.size**-0.5

    def __call__(
        self, *parts: Float[Array, "time _ _"]
    ) -> tuple[Float[Array, "time batch neuron"], Float[Array, "time batch module"]]:
        """Learning signals, and the module's own `z`; nothing is detached.

        Args:
            parts: inputs side by side, `[time, batch, channel]` each; one of batch 1 is the same for all samples.

        Raises:
            InvalidSetting: if the parts' channels do not add up to the layer's inputs.
        """
        synapses, neuron = self.layer.synapses(), self.layer.neuron
        expected, given = synapses.w_in.shape[0], [part.shape[-1] for part in parts]
        require(sum(given) == expected, f"error module: expected {expected} inputs, got {' + '.join(map(str, given))}")
        rows = [sum(given[:i]) for i in range(len(given))]
        drives = [
            jnp.einsum("tbi,ikn->tbkn", part, synapses.w_in[row : row + n])
            for part, row, n in zip(parts, rows, given, strict=True)
        ]
        drive = functools.reduce(jnp.add, drives)  # batch 1 spreads over the others'
        if synapses.bias is not None:
            drive = drive + synapses.bias[None, None]
        carry = start(neuron, drive.shape[1], self.layer.size, drive.dtype)
        outputs, _ = run_exact(neuron, synapses.w_rec, drive, carry)
        return readout_output(outputs) @ self.weight, recurrent_output(outputs)
