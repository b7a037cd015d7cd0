"""A network as a graph of NIR, the neuromorphic intermediate representation, where NIR can say what it is."""

import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eprop.errors import InvalidSetting, require, require_choice
from eprop.networks import Network, Recurrent
from eprop.neurons import ALIF, GRU, LIF, LSTM, Filtered, Neuron, Rate
from eprop.rules import BPTT, Rule

Discretisation = Literal["euler", "exponential"]
REASONS = {
    ALIF: "NIR has no adaptive threshold",
    LSTM: "NIR has no gated units",
    GRU: "NIR has no gated units",
    Rate: "NIR has no leaky rate unit with a nonlinearity",
}


class NIRExport(NamedTuple):
    """A graph, and the measured share of spikes that differ: of all spikes of both, those that only one has.

    None where nothing was measured.
    """

    graph: Any
    spikes_differ: float | None


def to_nir(
    network: Network,
    *,
    approximate: bool = False,
    inputs: Float[Array, "time batch n_in"] | None = None,
    discretisation: Discretisation = "euler",
    rule: Rule | None = None,
) -> NIRExport:
    """The network as a NIR graph: `input -> w_in -> lif (<- w_rec) -> w_out -> readout -> output`.

    NIR is written in continuous time: `tau dv/dt = v_leak - v + R I`. Constants are chosen such that an interpreter's
    step is ours: `tau = dt / (1 - alpha)` for one that steps by Euler, `tau = tau_m` for one that decays by
    `exp(-dt/tau)`; `R` such that the gain on the current is ours. Times are in seconds; the graph's metadata say `dt`
    and the discretisation. The readout's filter is `LI`, its bias stands behind it.

    A neuron with a hard reset (`LIF(reset="hard")`) is NIR's LIF, and goes out as it is. Where ours subtracts the
    threshold, NIR has no word: its LIF sets the membrane to `v_reset` at a spike. That is written where `approximate`
    allows it, with `v_reset` 0, and `inputs` say how often spikes then differ.

    Args:
        network: one or more layers of LIF neurons without refractory period.
        approximate: write the reset that NIR has instead of ours; refused where nothing is approximate.
        inputs: spikes to measure the difference on, `[time, batch, n_in]`; needed with `approximate`.
        discretisation: of the tools that will run the graph.
        rule: NIR has no learning rules: giving one is refused.

    Raises:
        InvalidSetting: for what NIR cannot say, with the reason.
    """
    require_choice("discretisation", discretisation, ("euler", "exponential"))
    require(rule is None, f"rule = {getattr(rule, 'label', rule)}: NIR has no learning rules; export without it")
    _check(network)
    exact = all(_inner(layer.neuron).reset == "hard" for layer in network.layers)  # pyright: ignore[reportAttributeAccessIssue]
    graph_of = lambda reset: _graph(network, discretisation, reset)  # noqa: E731
    if exact:
        require(not approximate, "approximate: nothing to approximate, all resets are hard; export without it")
        return NIRExport(graph_of("exact"), None)
    require(approximate, "reset: NIR's LIF sets the membrane to 0, this one subtracts v_th; allow it with approximate")
    require(inputs is not None, "inputs: needed with approximate, to measure the share of spikes that differ")
    graph = graph_of("approximate")
    share = _share(network, jnp.asarray(inputs))
    return NIRExport(graph, share)


def _check(network: Network) -> None:
    """Refuse by name what NIR cannot say."""
    require(network.embedding is None, "embedding: NIR has no embeddings; export what stands behind it")
    require(not network.read_all or len(network.layers) == 1, "read_all: only a readout of the last layer is written")
    for n, layer in enumerate(network.layers):
        if not isinstance(layer, Recurrent):
            raise InvalidSetting(f"layers[{n}]: {type(layer).__name__}: NIR runs forwards in time only")
        neuron = _inner(layer.neuron)
        for kind, reason in REASONS.items():
            require(not isinstance(neuron, kind), f"layers[{n}]: {type(neuron).__name__}: {reason}")
        name = type(neuron).__name__
        require(type(neuron) is LIF, f"layers[{n}]: {name}: only LIF is written; NIR's word for it is not known here")
        refractory = getattr(neuron, "n_refractory", 1)
        require(refractory == 1, f"n_refractory = {refractory}: NIR's LIF has no refractory period")
        require(layer.frame == 1, f"frame = {layer.frame}: NIR's readout has no frames")
        require_no_delays(n, layer)


def require_no_delays(n: int, layer: Recurrent) -> None:
    """Refuse axonal delays: they would be left out unsaid."""
    for name in ("delays_in", "delays_rec"):
        require(getattr(layer, name) is None, f"layers[{n}].{name}: axonal delays are not written")


def require_nir() -> Any:
    """The package `nir`."""
    try:
        import nir
    except ModuleNotFoundError:
        raise InvalidSetting("nir: not installed; pip install nir") from None
    return nir


def _inner(neuron: Neuron) -> Any:
    return neuron.neuron if isinstance(neuron, Filtered) else neuron


def _graph(network: Network, discretisation: Discretisation, reset: str) -> Any:
    """The graph itself."""
    nir = require_nir()
    layers: list[Any] = list(network.layers)
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array([layers[0].w_in.shape[0]])})}
    edges, before = [], "input"
    for n, layer in enumerate(layers):
        synapses = layer.synapses()
        w_in, w_rec = np.asarray(synapses.w_in[:, 0]).T, np.asarray(synapses.w_rec[:, 0]).T
        bias = None if layer.bias is None else np.asarray(layer.bias[0])
        nodes[f"w_in_{n}"] = nir.Linear(w_in) if bias is None else nir.Affine(w_in, bias)
        nodes[f"lif_{n}"] = _membrane(nir, _inner(layer.neuron), layer.size, discretisation)
        nodes[f"w_rec_{n}"] = nir.Linear(w_rec)
        edges += [(before, f"w_in_{n}"), (f"w_in_{n}", f"lif_{n}"), (f"lif_{n}", f"w_rec_{n}")]
        edges.append((f"w_rec_{n}", f"lif_{n}"))
        before = f"lif_{n}"
    weight, bias = np.asarray(network.readout.weight).T, np.asarray(network.readout.bias)
    last = layers[-1].neuron
    if isinstance(last, Filtered):
        kappa = math.exp(-last.time_step / float(_single(last.tau_out, "tau_out")))
        gain = 1.0 if last.gain == "one" else 1.0 - kappa
        tau = _tau(np.full(len(bias), kappa), last.time_step, discretisation)
        nodes["w_out"] = nir.Linear(weight)
        nodes["readout"] = nir.LI(tau=tau, r=np.full(len(bias), gain / (1 - kappa)), v_leak=np.zeros(len(bias)))
        nodes["bias"] = nir.Affine(np.eye(len(bias), dtype=weight.dtype), bias)
        path = [before, "w_out", "readout", "bias", "output"]
    else:
        nodes["w_out"] = nir.Affine(weight, bias)
        path = [before, "w_out", "output"]
    nodes["output"] = nir.Output({"output": np.array([len(bias)])})
    edges += list(zip(path[:-1], path[1:], strict=True))
    metadata: dict[str, Any] = {
        "dt": _inner(layers[0].neuron).dt / 1000,
        "discretisation": discretisation,
        "reset": reset,
    }
    return nir.NIRGraph(nodes, edges, metadata=metadata)


def _membrane(nir: Any, neuron: LIF, n: int, discretisation: Discretisation) -> Any:
    """A LIF population in NIR's constants."""
    each = lambda value: np.broadcast_to(np.asarray(value, float), (n,)).copy()  # noqa: E731
    alpha = np.exp(-neuron.dt / each(neuron.tau_m))
    r = 1 / (1 - alpha) if neuron.input_gain == "one" else np.ones(n)
    tau, zero = _tau(alpha, neuron.dt, discretisation), np.zeros(n)
    return nir.LIF(tau=tau, r=r, v_leak=zero, v_threshold=each(neuron.v_th), v_reset=each(neuron.v_reset))


def _tau(decay: np.ndarray, dt: float, discretisation: Discretisation) -> np.ndarray:
    """The time constant, s, with which an interpreter's step decays by `decay`."""
    return dt / 1000 / (1 - decay if discretisation == "euler" else -np.log(decay))


def _single(value: Any, name: str) -> Any:
    require(np.size(value) == 1, f"{name}: one value a neuron: NIR's LI stands behind the readout and has one a output")
    return np.reshape(np.asarray(value), ())


def _share(network: Network, inputs: Array) -> float:
    """Spikes that only one of both resets gives, over the spikes of both."""
    ours = network(inputs, BPTT()).z
    theirs = _hard_reset(network, np.asarray(inputs, float))
    both = sum(float(np.asarray(z).sum() + h.sum()) for z, h in zip(ours, theirs, strict=True))
    differ = sum(float(np.abs(np.asarray(z) - h).sum()) for z, h in zip(ours, theirs, strict=True))
    return differ / both if both else 0.0


def _hard_reset(network: Network, below: np.ndarray) -> list[np.ndarray]:
    """Spikes of each layer where a spike sets its membrane to `v_reset`."""
    found = []
    for layer in network.layers:
        assert isinstance(layer, Recurrent)
        synapses, neuron = layer.synapses(), _inner(layer.neuron)
        assert synapses.w_rec is not None  # a spiking model of NIR's has recurrent currents
        w_in, w_rec = np.asarray(synapses.w_in[:, 0], float), np.asarray(synapses.w_rec[:, 0], float)
        alpha = np.exp(-neuron.dt / np.asarray(neuron.tau_m, float))
        gain = 1.0 if neuron.input_gain == "one" else 1 - alpha
        bias = 0.0 if layer.bias is None else np.asarray(layer.bias[0], float)
        v = z = np.zeros((below.shape[1], layer.size))
        rows = []
        for x in below:
            v = alpha * (v * (1 - z) + z * np.asarray(neuron.v_reset)) + gain * (x @ w_in + z @ w_rec + bias)
            z = (v > np.asarray(neuron.v_th)).astype(float)
            rows.append(z)
        below = np.stack(rows)
        found.append(below)
    return found
