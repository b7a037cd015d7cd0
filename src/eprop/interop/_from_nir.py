"""A graph of NIR read back into a network, where it says one of ours."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eprop.errors import require, require_choice, require_positive
from eprop.interop._nir import Discretisation
from eprop.networks import Network, Readout, Recurrent
from eprop.neurons import LIF, Filtered


def from_nir(
    graph: Any, *, dt: float | None = None, discretisation: Discretisation | None = None, dtype: Any = jnp.float32
) -> Network:
    """The network that a NIR graph says: layers of LIF neurons with a hard reset, a readout with or without a leak.

    The graph is one chain, `input -> weights -> LIF (<- weights) -> ... -> weights (-> LI) (-> weights) -> output`.
    Of a LIF node, `tau`, `v_threshold` and `v_reset` become constants `[neuron]`; `r` and `v_leak` go into the weights
    and a bias. What `to_nir` wrote comes back with the same spikes; what it wrote with `approximate` comes back as it
    was written, with a hard reset.

    Args:
        graph: of the package `nir`, as `nir.read` returns it.
        dt: length of a step, ms; None: what the graph's metadata say, in seconds.
        discretisation: how the graph's constants are meant (see `to_nir`); None: what its metadata say.
        dtype: of the weights.

    Returns:
        The network; a readout's feedback weights are its own weights.

    Raises:
        InvalidSetting: for a graph that says something else, naming the node.
    """
    metadata = dict(graph.metadata or {})
    if dt is None:
        require("dt" in metadata, "dt: the graph's metadata do not say it; give the length of a step, ms")
        dt = 1000 * float(metadata["dt"])
    require_positive(dt=dt)
    how = discretisation or metadata.get("discretisation")
    require(how is not None, "discretisation: the graph's metadata do not say it; euler or exponential")
    require_choice("discretisation", str(how), ("euler", "exponential"))
    walk = _Walk(graph, dt, str(how))
    layers, chain = [], walk.next(walk.only("Input"), ())
    into = walk.weights(chain)
    while True:
        chain = walk.next(chain, ())
        require(walk.kind(chain) == "LIF", f"{chain}: {walk.kind(chain)}: expected LIF behind the weights")
        layers.append((chain, into))
        back = walk.recurrent(chain)
        after = walk.next(chain, (back,))
        into = walk.weights(after)
        following = walk.next(after, ())
        if walk.kind(following) != "LIF":
            break
        chain = after
    tau_out, readout = walk.readout(following, into, dtype)
    made = [walk.layer(name, weights, tau_out if name == layers[-1][0] else None, dtype) for name, weights in layers]
    return Network(tuple(made), readout)


class _Weights(NamedTuple):
    """`x @ w + bias`."""

    w: np.ndarray
    bias: np.ndarray | None


class _Walk:
    """Along the edges of a graph."""

    def __init__(self, graph: Any, dt: float, discretisation: str) -> None:
        self.nodes, self.dt, self.discretisation = graph.nodes, dt, discretisation
        self.after: dict[str, list[str]] = {name: [] for name in graph.nodes}
        self.before: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self.after[source].append(target)
            self.before[target].append(source)

    def kind(self, name: str) -> str:
        return type(self.nodes[name]).__name__

    def only(self, kind: str) -> str:
        found = [name for name in self.nodes if self.kind(name) == kind]
        require(len(found) == 1, f"graph: expected one {kind}, got {len(found)}")
        return found[0]

    def next(self, name: str, but: tuple[str | None, ...]) -> str:
        """The node that a node feeds, beside those named."""
        found = [node for node in self.after[name] if node not in but]
        require(len(found) == 1, f"{name}: feeds {len(found)} nodes; only a chain of layers is read")
        return found[0]

    def weights(self, name: str) -> _Weights:
        node, kind = self.nodes[name], self.kind(name)
        require(kind in ("Linear", "Affine"), f"{name}: {kind}: expected Linear or Affine here")
        return _Weights(np.asarray(node.weight, float).T, np.asarray(node.bias, float) if kind == "Affine" else None)

    def recurrent(self, name: str) -> str | None:
        """The weights from a population to itself."""
        found = [node for node in self.after[name] if self.after[node] == [name]]
        require(len(found) <= 1, f"{name}: has {len(found)} recurrent connections; at most one is read")
        return found[0] if found else None

    def decay(self, tau: Any) -> np.ndarray:
        ratio = self.dt / 1000 / np.asarray(tau, float)
        return 1 - ratio if self.discretisation == "euler" else np.exp(-ratio)

    def layer(self, name: str, into: _Weights, tau_out: float | None, dtype: Any) -> Recurrent:
        node, back = self.nodes[name], self.recurrent(name)
        alpha, n = self.decay(node.tau), into.w.shape[1]
        require(bool((alpha > 0).all()), f"{name}: tau: a step of {self.dt} ms leaves nothing of the membrane")
        gain, each = (1 - alpha) * np.asarray(node.r, float), lambda x: np.broadcast_to(np.asarray(x, float), (n,))
        w_rec, bias = np.zeros((n, n)), (1 - alpha) * each(node.v_leak)
        for weights in (into, *([] if back is None else [self.weights(back)])):
            bias = bias + (0 if weights.bias is None else gain * weights.bias)
        if back is not None:
            w_rec = self.weights(back).w * gain
        constant = lambda x: jnp.asarray(each(x), dtype)  # noqa: E731
        neuron = LIF(
            tau_m=constant(-self.dt / np.log(alpha)), v_th=constant(node.v_threshold), v_reset=constant(node.v_reset),
            dt=self.dt, reset="hard",
        )  # fmt: skip
        return Recurrent.from_weights(
            neuron if tau_out is None else Filtered(neuron, tau_out=tau_out), jnp.asarray(into.w * gain, dtype),
            jnp.asarray(w_rec, dtype), jnp.asarray(bias, dtype)[None] if bias.any() else None,
            autapses=bool(np.diagonal(w_rec).any()),
        )  # fmt: skip

    def readout(self, name: str, into: _Weights, dtype: Any) -> tuple[float | None, Readout]:
        """What stands between the last weights and the output: nothing, a leak, and a bias behind it."""
        w, bias, tau_out = into.w, into.bias, None
        if self.kind(name) == "LI":
            node = self.nodes[name]
            kappa = np.unique(self.decay(node.tau))
            require(kappa.size == 1, f"{name}: tau: one value for all outputs is read, got {kappa.size}")
            quiet = not np.asarray(node.v_leak).any() and (bias is None or not bias.any())
            require(quiet, f"{name}: v_leak, or a bias before the leak: only a bias behind it is read")
            tau_out = float(-self.dt / np.log(kappa[0]))
            w, bias, name = w * (1 - kappa[0]) * np.asarray(node.r, float), None, self.next(name, ())
        if self.kind(name) in ("Linear", "Affine"):
            last = self.weights(name)
            first = 0 if bias is None else bias @ last.w
            w, bias, name = w @ last.w, first + (0 if last.bias is None else last.bias), self.next(name, ())
        require(self.kind(name) == "Output", f"{name}: {self.kind(name)}: expected the output here")
        readout = Readout(*w.shape, key=jax.random.key(0), dtype=dtype)
        bias = np.zeros(w.shape[1]) if bias is None else bias
        parts = jnp.asarray(w, dtype), jnp.asarray(w, dtype), jnp.asarray(bias, dtype)
        return tau_out, eqx.tree_at(lambda r: (r.weight, r.feedback_weights, r.bias), readout, parts)
