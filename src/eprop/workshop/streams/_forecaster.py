"""The network that forecasts a table's next rows: scaling, late targets, and the online learner."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eprop.errors import RunFailed
from eprop.learner import Learner
from eprop.rules import make_rule
from eprop.workshop.settings import NetworkSettings, OptimiserSettings
from eprop.workshop.streams._scale import Moments, follow_moments
from eprop.workshop.streams._settings import StreamSettings
from eprop.workshop.streams._table import Table
from eprop.workshop.training import build_network, build_optimiser

CLIP = 8.0
"""Scaled inputs and targets are kept within so many spreads: one wild row must not undo what was learnt."""

CALL_ROWS = 256
"""At most about so many rows are learnt from in one compiled call."""


class Past(NamedTuple):
    """The newest `horizon` rows, `[row, target]`; NaN before the first row."""

    value: np.ndarray
    base: np.ndarray
    spread: np.ndarray
    ahead: np.ndarray


class Forecasts(NamedTuple):
    """Forecasts and values of some rows, `[row, target]` each; NaN where there was no forecast yet."""

    truth: np.ndarray
    forecast: np.ndarray
    """The network's, of this row, made `horizon` rows before it."""
    naive: np.ndarray
    """The value `horizon` rows before it."""
    ahead: np.ndarray
    """The network's, made at this row, of the row `horizon` rows after it."""


class _Scaled(NamedTuple):
    inputs: np.ndarray  # [row, n_in]
    wanted: np.ndarray  # [row, target]: what the output `horizon` rows before should have been; NaN: not known
    moments: tuple[Moments, Moments]
    truth: np.ndarray
    naive: np.ndarray
    base: np.ndarray
    spread: np.ndarray


class Forecaster:
    """Forecasts targets `horizon` rows ahead, and learns from each row as it comes.

        forecast_{t+h} = b_t + s_t y_t

    y_t: the network's output at row t, which has read rows up to t, scaled by running mean and spread of rows up to t.
    b_t, s_t: the value at row t and the running spread of changes over h rows (`forecast="change"`), or the running
    mean and spread of values (`"level"`). Once row t+h is there, y_t's error is that of (target_{t+h} - b_t) / s_t.

    Args:
        settings: what is learnt.
        network, optimiser: settings of the network and of the optimiser.
        table: which columns are inputs and targets.

    Numbers do not depend on how rows are divided into calls, nor on a stop between them.
    """

    def __init__(
        self, settings: StreamSettings, network: NetworkSettings, optimiser: OptimiserSettings, table: Table
    ) -> None:
        self.settings: StreamSettings = settings
        self._optimiser = optimiser
        self._inputs, self._targets = table.input_columns, table.target_columns
        self._windows = max(1, CALL_ROWS // settings.window)
        self._dtype = np.dtype(network.precision)
        n_in, n_out = len(self._inputs), len(self._targets)
        rule = make_rule(settings.rule)
        built = build_network(network, n_in, n_out, jax.random.key(settings.seed), feedback=rule.feedback)
        self._learner = Learner(
            rule,
            build_optimiser(optimiser),
            squared_error,
            delay=settings.horizon,
            rate_target=optimiser.rate_target / 1000.0,
            rate_strength=optimiser.rate_strength,
            kolen_pollack=optimiser.kolen_pollack_decay,
        )
        blank = np.zeros((settings.window, 1, n_in), self._dtype), np.zeros((settings.window, 1, n_out), self._dtype)
        self._state = self._learner.init(built, first=(jnp.asarray(blank[0]), jnp.asarray(blank[1])))
        self._moments = Moments.none(n_in), Moments.none(n_out)
        self._past = Past(*(np.full((settings.horizon, n_out), np.nan) for _ in Past._fields))

    @property
    def most_rows(self) -> int:
        """The most rows that `learn` takes: whole windows."""
        return self._windows * self.settings.window

    def learn(self, values: np.ndarray) -> Forecasts:
        """Forecast from and learn from whole windows of rows, `[row, column]`, at most `most_rows`.

        Raises:
            RunFailed: if a forecast is not finite.
        """
        count, window = len(values), self.settings.window
        scaled = self._scale(values)
        inputs, wanted = (jnp.asarray(self._padded(rows, self.most_rows)) for rows in (scaled.inputs, scaled.wanted))
        mask = jnp.ones(inputs.shape[:2], self._dtype)
        self._state, y, _ = self._learner.run(self._state, inputs, wanted, mask, window=window, count=count // window)
        forecasts = self._forecasts(scaled, np.asarray(y)[:count, 0])
        self._moments = scaled.moments
        newest = Past(scaled.truth, scaled.base, scaled.spread, forecasts.ahead)
        self._past = Past(*(np.concatenate(pair)[count:] for pair in zip(self._past, newest, strict=True)))
        return forecasts

    def peek(self, values: np.ndarray) -> Forecasts:
        """Forecast from rows that do not fill a window, without learning and without going on."""
        scaled = self._scale(values)
        y = self._learner.predict(self._state, jnp.asarray(self._padded(scaled.inputs, self.settings.window)))
        return self._forecasts(scaled, np.asarray(y)[: len(values), 0])

    def arrays(self) -> list[np.ndarray]:
        """All that is carried from row to row, for `restore`."""
        learnt = jax.tree.leaves(eqx.filter(self._state, eqx.is_array))
        return [np.asarray(a) for a in (*learnt, *self._moments[0], *self._moments[1], *self._past)]

    def restore(self, arrays: list[np.ndarray]) -> bool:
        """Go on where `arrays` were taken; False if they are of another network."""
        mine = self.arrays()
        if [(a.shape, a.dtype) for a in arrays] != [(a.shape, a.dtype) for a in mine]:
            return False
        state, static = eqx.partition(self._state, eqx.is_array)
        leaves, structure = jax.tree.flatten(state)
        learnt, rest = arrays[: len(leaves)], arrays[len(leaves) :]
        self._state = eqx.combine(structure.unflatten([jnp.array(a) for a in learnt]), static)
        self._moments = Moments(float(rest[0]), *rest[1:3]), Moments(float(rest[3]), *rest[4:6])
        self._past = Past(*rest[6:])
        return True

    def _scale(self, values: np.ndarray) -> _Scaled:
        """The network's inputs and targets, from these rows and earlier ones."""
        settings, (of_inputs, of_targets), count = self.settings, self._moments, len(values)
        inputs, truth = values[:, self._inputs], values[:, self._targets]
        of_inputs, mean, spread = follow_moments(of_inputs, inputs, settings.memory)
        inputs = np.clip((inputs - mean) / np.where(spread > 0, spread, 1.0), -CLIP, CLIP)
        before = lambda old, new: np.concatenate([old, new])[:count]  # noqa: E731  # `horizon` rows before
        naive = before(self._past.value, truth)
        change = settings.forecast == "change"
        of_targets, mean, spread = follow_moments(of_targets, truth - naive if change else truth, settings.memory)
        base = truth if change else mean
        of_old = before(self._past.spread, spread)
        wanted = (truth - before(self._past.base, base)) / np.where(of_old > 0, of_old, np.nan)
        return _Scaled(inputs, np.clip(wanted, -CLIP, CLIP), (of_inputs, of_targets), truth, naive, base, spread)

    def _forecasts(self, scaled: _Scaled, y: np.ndarray) -> Forecasts:
        if not np.isfinite(y).all():
            raise RunFailed(
                "a forecast is not finite: the weights have grown without bound; a learning_rate below "
                f"{self._optimiser.learning_rate}, or a clip, may help"
            )
        ahead = scaled.base + scaled.spread * y.astype(float)
        forecast = np.concatenate([self._past.ahead, ahead])[: len(ahead)]
        return Forecasts(scaled.truth, forecast, scaled.naive, ahead)

    def _padded(self, rows: np.ndarray, length: int) -> np.ndarray:
        """`[row, channel]` as `[length, 1, channel]`, zero behind the rows."""
        padded = np.zeros((length, 1, rows.shape[1]), self._dtype)
        padded[: len(rows), 0] = rows
        return padded


def squared_error(y: Any, targets: Any, mask: Any) -> Any:
    """`E = 1/2 sum_t mask_t |y_t - y*_t|^2` over the targets that are known (not NaN)."""
    return 0.5 * jnp.sum(mask[..., None] * jnp.where(jnp.isnan(targets), 0.0, y - targets) ** 2)
