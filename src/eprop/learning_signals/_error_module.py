"""The learning signal of e-prop 2: a network of its own, which learns what to send."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eprop.eligibility import unroll
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
        expected, given = self.layer.n_in, [part.shape[-1] for part in parts]
        require(sum(given) == expected, f"error module: expected {expected} inputs, got {' + '.join(map(str, given))}")
        batch = max(part.shape[1] for part in parts)
        seen = [jnp.broadcast_to(part, (part.shape[0], batch, part.shape[2])) for part in parts]
        inputs = jnp.concatenate(seen, axis=-1)
        start = self.layer.start(batch)
        outputs, _, _ = unroll(self.layer.neuron, self.layer.synapses(), inputs, start, recurrence="kept")
        return readout_output(outputs) @ self.weight, recurrent_output(outputs)
