"""Files for other tools: a round trip gives the same spikes and arrays; what cannot be said is refused by name."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import ALIF, GRU, LIF, LSTM, Bidirectional, EProp1, Filtered, InvalidSetting, Network, Readout, Recurrent
from eprop.interop import from_nir, from_npz, from_safetensors, named_arrays, to_nir, to_npz, to_safetensors

nir = pytest.importorskip("nir")
pytest.importorskip("safetensors")
pytestmark = pytest.mark.usefixtures("compiled_quickly")


def network(neuron=None, tau_out=20.0, bias=False, dtype=jnp.float32):
    key = jax.random.key(0)
    neuron = LIF(tau_m=20.0, v_th=0.6) if neuron is None else neuron
    layer = Recurrent(Filtered(neuron, tau_out) if tau_out else neuron, n_in=4, n=12, key=key, bias=bias, dtype=dtype)
    made = Network((layer,), Readout(12, 2, key=key, dtype=dtype))
    return eqx.tree_at(lambda n: n.readout.bias, made, jnp.array([0.3, -0.2], dtype))


INPUTS = (np.random.default_rng(0).random((80, 1, 4)) < 0.4).astype(np.float32)


def interpreted(graph, inputs, dt=1e-3, decay="euler"):
    """A NIR interpreter for such graphs: nodes in the order of edges, cycles a step late."""
    nodes, into = graph.nodes, {}
    for a, b in graph.edges:
        into.setdefault(b, []).append(a)
    out = {name: 0.0 for name in nodes}
    v = {name: 0.0 for name in nodes}
    order = ["w_rec_0", "input", "w_in_0", "lif_0", "w_out", "readout", "bias", "output"]
    spikes, y = [], []
    for x in inputs:
        for name in [name for name in order if name in nodes]:
            node = nodes[name]
            total = x if name == "input" else sum(out[source] for source in into[name])
            kind = type(node).__name__
            if kind in ("Linear", "Affine"):
                out[name] = node.weight @ (np.zeros(node.weight.shape[1]) if np.ndim(total) == 0 else total)
                out[name] = out[name] + (node.bias if kind == "Affine" else 0)
            elif kind in ("LIF", "LI"):
                share = dt / node.tau if decay == "euler" else 1 - np.exp(-dt / node.tau)
                v[name] = v[name] + share * (node.v_leak - v[name] + node.r * total)
                out[name] = v[name]
                if kind == "LIF":
                    out[name] = (v[name] > node.v_threshold).astype(float)
                    v[name] = np.where(out[name] > 0, node.v_reset, v[name])
            else:
                out[name] = total
        spikes.append(out["lif_0"])
        y.append(out["output"])
    return np.array(spikes), np.array(y)


@pytest.mark.parametrize(("decay", "tau_out"), [("euler", 20.0), ("exponential", None)])
def test_the_share_of_spikes_that_differ_is_that_of_an_interpreter(tmp_path, decay, tau_out):
    made = network(tau_out=tau_out, bias=True)
    exported = to_nir(made, approximate=True, inputs=INPUTS, discretisation=decay)
    nir.write(tmp_path / "graph.nir", exported.graph)
    spikes, _ = interpreted(nir.read(tmp_path / "graph.nir"), INPUTS[:, 0], decay=decay)
    ours = np.asarray(made(jnp.asarray(INPUTS), EProp1("symmetric")).z[0])[:, 0]
    assert ours.any() and 0 < exported.spikes_differ < 1
    assert exported.spikes_differ == pytest.approx(np.abs(ours - spikes).sum() / (ours.sum() + spikes.sum()))


@pytest.mark.parametrize(("decay", "tau_out"), [("euler", 20.0), ("exponential", None)])
def test_a_hard_reset_goes_out_and_comes_back_with_the_same_spikes(tmp_path, decay, tau_out):
    made = network(LIF(tau_m=20.0, v_th=0.6, reset="hard", v_reset=-0.2), tau_out=tau_out, bias=True, dtype=jnp.float64)
    made = eqx.tree_at(lambda n: n.layers[0].bias, made, 0.05 * jnp.ones_like(made.layers[0].bias))
    exported = to_nir(made, discretisation=decay)
    assert exported.spikes_differ is None
    nir.write(tmp_path / "graph.nir", exported.graph)
    read = nir.read(tmp_path / "graph.nir")
    ours = made(jnp.asarray(INPUTS), EProp1("symmetric"))
    spikes, y = interpreted(read, INPUTS[:, 0], decay=decay)
    assert np.asarray(ours.z[0]).sum() > 50
    assert np.array_equal(spikes, np.asarray(ours.z[0])[:, 0]) and np.allclose(y, np.asarray(ours.y)[:, 0])
    back = from_nir(read, dtype=jnp.float64)(jnp.asarray(INPUTS), EProp1("symmetric"))
    assert np.array_equal(back.z[0], ours.z[0]) and np.allclose(back.y, ours.y)


def test_two_layers_come_back_from_nir():
    key = jax.random.key(1)
    sizes = zip((4, 7), (7, 5), strict=True)
    layers = [Recurrent(LIF(v_th=0.3, reset="hard"), n_in=a, n=b, key=key, dtype=jnp.float64) for a, b in sizes]
    made = Network(tuple(layers), Readout(5, 2, key=key, dtype=jnp.float64))
    back = from_nir(to_nir(made).graph, dtype=jnp.float64)
    ours, theirs = (n(jnp.asarray(INPUTS), EProp1("symmetric")) for n in (made, back))
    assert all(np.asarray(z).any() and np.array_equal(z, other) for z, other in zip(ours.z, theirs.z, strict=True))
    assert np.allclose(ours.y, theirs.y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.metadata.pop("dt"), "dt: the graph's metadata do not say it"),
        (lambda g: g.metadata.pop("discretisation"), "discretisation: the graph's metadata do not say it"),
        (lambda g: g.nodes.update(lif_0=g.nodes["w_out"]), "lif_0: Linear: expected LIF behind the weights"),
        (lambda g: g.edges.append(("lif_0", "bias")), "lif_0: feeds 2 nodes; only a chain"),
        (lambda g: g.nodes.update(extra=g.nodes["input"]), "graph: expected one Input, got 2"),
    ],
)
def test_a_graph_of_something_else_is_refused_by_name(change, message):
    graph = to_nir(network(LIF(reset="hard"))).graph
    change(graph)
    with pytest.raises(InvalidSetting, match=message):
        from_nir(graph)


def test_until_the_first_spike_outputs_are_the_same():
    made = network()
    quiet = eqx.tree_at(lambda n: n.layers[0].w_in, made, 0.02 * made.layers[0].w_in)
    exported = to_nir(quiet, approximate=True, inputs=INPUTS)
    spikes, y = interpreted(exported.graph, INPUTS[:, 0])
    assert exported.spikes_differ == 0 and not spikes.any()
    assert np.allclose(y, np.asarray(quiet(jnp.asarray(INPUTS), EProp1("symmetric")).y)[:, 0], atol=1e-6)


@pytest.mark.parametrize(("form", "neuron"), [("npz", ALIF()), ("safetensors", LSTM())], ids=["npz", "safetensors"])
def test_arrays_go_to_a_file_and_back(tmp_path, form, neuron):
    write, read = {"npz": (to_npz, from_npz), "safetensors": (to_safetensors, from_safetensors)}[form]
    made = network(neuron)
    write(made, tmp_path / "file")
    other = jax.tree.map(lambda x: 0 * x if eqx.is_inexact_array(x) else x, made)
    back = read(other, tmp_path / "file")
    assert "layers.0.w_in" in named_arrays(made)
    for name, array in named_arrays(made).items():
        assert np.array_equal(named_arrays(back)[name], array), name
    with pytest.raises(InvalidSetting, match=r"layers.0.w_in: expected float32\[4, .*got float32\[4"):
        read(network(GRU()), tmp_path / "file")


def both_ways():
    key = jax.random.key(0)
    layers = [Recurrent(LIF(), n_in=4, n=6, key=key) for _ in range(2)]
    return Network((Bidirectional(*layers),), Readout(12, 2, key=key))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: to_nir(network(ALIF())), "ALIF: NIR has no adaptive threshold"),
        (lambda: to_nir(network(LSTM())), "LSTM: NIR has no gated units"),
        (lambda: to_nir(network(GRU())), "GRU: NIR has no gated units"),
        (lambda: to_nir(network(LIF(n_refractory=5))), "n_refractory = 5: NIR's LIF has no refractory period"),
        (lambda: to_nir(network()), "reset: NIR's LIF sets the membrane to 0, this one subtracts v_th"),
        (
            lambda: to_nir(network(LIF(reset="hard")), approximate=True, inputs=INPUTS),
            "approximate: nothing to approximate, all resets are hard",
        ),
        (lambda: to_nir(network(), approximate=True), "inputs: needed with approximate"),
        (lambda: to_nir(network(), rule=EProp1("random")), "rule = eprop1:random: NIR has no learning rules"),
        (lambda: to_nir(both_ways()), "Bidirectional: NIR runs forwards in time only"),
    ],
)
def test_what_nir_cannot_say_is_refused_by_name(make, message):
    with pytest.raises(InvalidSetting, match=message):
        make()
