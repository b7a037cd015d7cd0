"""How far e-prop's gradient is from the float engine's with everything on grids of b bits: a table and a picture.

python examples/quantised_gradients.py FILE.png
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt

from eprop import ALIF, LIF, LSTM, EProp1, Filtered, Network, Readout, Recurrent, value_and_grad
from eprop.chips import Grid, Quantised, QuantisedEProp1, measure_spans

matplotlib.use("Agg")
jax.config.update("jax_enable_x64", True)  # floats of 32 bits hold 24
BITS = (4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32)
NEURONS = {"LIF": LIF(v_th=0.6), "ALIF": ALIF(v_th=0.6, tau_a=30.0), "LSTM": LSTM()}


def loss(y):
    return (y**2).sum()


@eqx.filter_jit
def gradient(network, inputs, rule):
    return value_and_grad(lambda n: loss(n(inputs, rule).y), rule)(network)[1]


def errors(neuron, state, rounding):
    """The largest error over all weights' arrays, relative to each array's norm, at each number of bits."""
    key = jax.random.key(3)
    layer = Recurrent(Filtered(neuron, tau_out=20.0), n_in=4, n=12, key=key, dtype=jnp.float64)
    network = Network((layer,), Readout(12, 2, key=key, dtype=jnp.float64))
    inputs = (jax.random.uniform(key, (60, 2, 4)) < 0.3).astype(jnp.float64)
    exact, spans = gradient(network, inputs, EProp1("random")), measure_spans(network, inputs, loss, "random")
    found = []
    for bits in jnp.array(BITS):
        rule = QuantisedEProp1(
            "random", traces=Grid(bits, spans.traces), signals=Grid(bits, spans.signals), rounding=rounding
        )
        quantised = Quantised(layer.neuron, bits=bits, spans=spans.state, rounding=rounding)
        moved = eqx.tree_at(lambda n: n.layers[0].neuron, network, quantised) if state else network
        pairs = zip(jax.tree.leaves(gradient(moved, inputs, rule)), jax.tree.leaves(exact), strict=True)
        found.append(max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs))
    return found


def main(path: str) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, state, title in ((axes[0], False, "traces and signals"), (axes[1], True, "state too")):
        for place, (name, neuron) in enumerate(NEURONS.items()):
            for rounding, style in (("nearest", "-"), ("stochastic", ":")):
                found = errors(neuron, state, rounding)
                axis.semilogy(BITS, found, style, color=f"C{place}", label=f"{name}, {rounding}")
                print(f"{title:18} {name:5} {rounding:10}", *(f"{error:.1e}" for error in found))
        axis.semilogy(BITS, [2.0 ** (4 - bits) for bits in BITS], "k--", lw=0.8, label="halves with each bit")
        axis.set(title=f"{title} on grids", xlabel="bits")
    axes[0].set_ylabel("error of the gradient")
    axes[1].legend(fontsize="x-small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
