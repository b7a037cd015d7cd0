"""Chips: e-prop in the arithmetic that a neuromorphic chip has, and what it costs there."""

from eprop.chips import loihi as loihi
from eprop.chips import reckon as reckon
from eprop.chips._agreement import Agreement as Agreement
from eprop.chips._agreement import loihi_agreement as loihi_agreement
from eprop.chips._agreement import reckon_agreement as reckon_agreement
from eprop.chips._cost import Cost as Cost
from eprop.chips._cost import loihi_cost as loihi_cost
from eprop.chips._cost import loihi_training_cost as loihi_training_cost
from eprop.chips._cost import reckon_cost as reckon_cost
from eprop.chips._grid import Grid as Grid
from eprop.chips._grid import quantise as quantise
from eprop.chips._grid import unit_update as unit_update
from eprop.chips._quantised import Quantised as Quantised
from eprop.chips._quantised import QuantisedState as QuantisedState
from eprop.chips._rule import QuantisedEProp1 as QuantisedEProp1
from eprop.chips._rule import Spans as Spans
from eprop.chips._rule import measure_spans as measure_spans
from eprop.chips._updates import GridState as GridState
from eprop.chips._updates import GridUpdates as GridUpdates
from eprop.chips._updates import on_grids as on_grids
from eprop.chips._updates import weight_spans as weight_spans
