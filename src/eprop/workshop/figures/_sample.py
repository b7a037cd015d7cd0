"""The contents of one sample's pictures: states, outputs, eligibility traces, learning signals."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eprop.eligibility import Trajectory, eligibility_traces, record, total_learning_signals
from eprop.eligibility.tools import unstack_currents
from eprop.networks import Bidirectional, NetworkOutput, Recurrent, hold
from eprop.neurons import Filtered, Neuron, readout_output
from eprop.rules import BPTT
from eprop.workshop.tasks import Batch
from eprop.workshop.training import LoadedRun, SequenceTrainer, purpose_key


class Sample(NamedTuple):
    """One held-out sample, run through the trained network."""

    batch: Batch
    result: NetworkOutput
    layer: Recurrent  # the last one; forwards in time where bidirectional
    trajectory: Trajectory
    inputs: Array  # of that layer
    observed: dict[str, np.ndarray]  # [time, neuron] each


class SynapseTraces(NamedTuple):
    """Traces and signals of a few synapses; what they add up to is the synapse's gradient."""

    presynaptic: np.ndarray  # [time, synapse]
    trace: np.ndarray  # [time, synapse]
    signal: np.ndarray  # [time, synapse]
    names: list[str]


def draw_sample(run: LoadedRun) -> Sample:
    """The first sample of the first seed's held-out data."""
    trainer, network = run.trainer, run.network
    assert isinstance(trainer, SequenceTrainer)
    data = trainer.data if trainer.task.shared_data else jax.tree.map(lambda x: x[0], trainer.data)
    batch = trainer.task.held_out(data, purpose_key(trainer.keys[0], 4), 1)[0]
    dtype = run.experiment.network.precision
    batch = batch._replace(inputs=batch.inputs.astype(dtype))
    result = eqx.filter_jit(trainer.forward)(network, batch)
    layer = network.layers[-1]
    inputs = hold(batch.inputs, layer.frame) if len(network.layers) == 1 else result.z[-2]
    layer = layer.forward if isinstance(layer, Bidirectional) else layer
    assert isinstance(layer, Recurrent)
    arriving = layer.arriving(inputs)
    _, trajectory = record(layer.neuron, layer.synapses(), arriving, layer.start(1))
    return Sample(batch, result, layer, trajectory, inputs, _observe(layer.neuron, trajectory))


def _observe(neuron: Neuron, trajectory: Trajectory) -> dict[str, np.ndarray]:
    def step(state, inputs):
        currents, z_prev = inputs
        after, _ = neuron.step(state, unstack_currents(currents), z_prev)
        return after, neuron.observe(state, after)

    _, observed = jax.lax.scan(step, trajectory.state, (trajectory.currents, trajectory.z_prev))
    return {name: np.asarray(x[:, 0]) for name, x in observed.items()}


def learning_signals(run: LoadedRun, sample: Sample) -> Array:
    """`L_j^t` of the task's loss, `[time, neuron]`, as the run's rule has it; of frames, at their last steps.

    e-prop 1: the error at the readout, broadcast; it meets traces filtered like the readout. BPTT, its
    truncation and RTRL: the total derivative `dE/dz_j^t`, which holds that filter; it meets unfiltered traces.
    """
    trainer, network = run.trainer, run.network
    n, frame = sample.layer.size, sample.layer.frame

    def loss(z_bar: Array) -> Array:
        others = jax.lax.stop_gradient(_read(run, sample))[..., n:]  # of the backward direction
        y = network.readout(jnp.concatenate([z_bar, others], axis=-1), trainer.rule.feedback)
        return trainer.task.loss(y, sample.batch)

    layer, start = sample.layer, sample.layer.start(1)
    if trainer.rule.recurrence == "cut":
        of_frames = jax.grad(loss)(_read(run, sample)[..., :n])[:, 0]
        return jnp.zeros((frame * len(of_frames), n), of_frames.dtype).at[frame - 1 :: frame].set(of_frames)
    _, signals = total_learning_signals(
        layer.neuron,
        layer.synapses(),
        layer.arriving(sample.inputs),
        start,
        lambda outputs: loss(readout_output(outputs)[frame - 1 :: frame]),
    )
    if not isinstance(layer.neuron, Filtered):
        return signals[:, 0]
    of_z, of_z_bar = signals
    return (of_z + _through_filter(layer.neuron, of_z_bar))[:, 0]


def _through_filter(neuron: Filtered, signals: Array) -> Array:
    """Learning signals at `z_bar` carried over to `z`: the filter's adjoint, backwards in time."""

    def filter_outputs(z: Array) -> Array:
        def step(z_bar, inputs):
            z_t, phase = inputs
            z_bar = neuron.filter(z_bar, z_t, None if neuron.frame == 1 else phase)
            return z_bar, z_bar

        phases = jnp.arange(len(z)) % neuron.frame
        return jax.lax.scan(step, jnp.zeros_like(z[0]), (z, phases))[1]

    return jax.vjp(filter_outputs, jnp.zeros_like(signals))[1](signals)[0]


def _read(run: LoadedRun, sample: Sample) -> Array:
    """The activity that the readout reads."""
    layer = run.network.layers[-1]
    return layer(sample.inputs, BPTT(), None, layer.frame * sample.batch.lengths).z_bar  # forwards all rules are one


def synapse_traces(run: LoadedRun, sample: Sample, number: int = 3) -> SynapseTraces:
    """The synapses with the largest gradient among those of the neurons with the largest learning signals."""
    signals = learning_signals(run, sample)
    moving = jnp.abs(signals).sum(0) * jnp.abs(_read(run, sample)[:, 0, : sample.layer.size]).sum(0)
    posts = np.argsort(-np.asarray(moving))[:number]
    busy = np.asarray(jnp.abs(sample.trajectory.presynaptic[:, 0, :-1]).sum(0))
    pres = np.argsort(-busy, kind="stable")[: 8 * number]
    traces = traces_between(sample.layer, sample.trajectory, pres, posts, run.trainer.rule.recurrence == "cut")
    n_in = sample.layer.w_in.shape[0]
    gradient = np.einsum("tiqj,tj->iqj", traces, np.asarray(signals)[:, posts])
    there = np.concatenate([np.asarray(w) for w in sample.layer.connected()[:2] if w is not None])
    gradient = gradient * there[pres][:, :, posts]
    chosen = [np.unravel_index(np.abs(gradient[..., j]).argmax(), gradient.shape[:2]) for j in range(len(posts))]
    pick = lambda x: np.stack(x, axis=1)  # noqa: E731
    source = lambda i: f"input {i}" if i < n_in else f"neuron {i - n_in}"  # noqa: E731
    presynaptic = np.asarray(sample.trajectory.presynaptic)[:, 0]
    return SynapseTraces(
        pick([presynaptic[:, pres[i]] for i, _ in chosen]),
        pick([traces[:, i, q, j] for j, (i, q) in enumerate(chosen)]),
        np.asarray(signals)[:, posts],
        [f"{source(pres[i])} → neuron {posts[j]}" for j, (i, _) in enumerate(chosen)],
    )


def traces_between(
    layer: Recurrent, trajectory: Trajectory, pres: np.ndarray, posts: np.ndarray, filtered: bool
) -> np.ndarray:
    """Eligibility traces `[time, pre, current, post]` of chosen synapses only (a whole network's would not fit)."""
    n = layer.size
    of_posts = lambda x: x[..., posts] if eqx.is_array(x) and x.ndim and x.shape[-1] == n else x  # noqa: E731
    few: Any = Trajectory(
        jax.tree.map(of_posts, trajectory.state),
        trajectory.presynaptic[..., pres],
        of_posts(trajectory.currents),
        of_posts(trajectory.z_prev),
    )
    traces = eqx.filter_jit(eligibility_traces)(jax.tree.map(of_posts, layer.neuron), few)
    return np.asarray(traces[-1 if filtered else 0][:, 0])
