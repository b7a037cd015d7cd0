"""Neuron models: what one neuron does in one step. None of them contains trace code."""

from eprop.neurons._base import Neuron as Neuron
from eprop.neurons._base import readout_output as readout_output
from eprop.neurons._base import recurrent_output as recurrent_output
from eprop.neurons._base import traced as traced
from eprop.neurons._filtered import Filtered as Filtered
from eprop.neurons._gated import GRU as GRU
from eprop.neurons._gated import LSTM as LSTM
from eprop.neurons._lif import ALIF as ALIF
from eprop.neurons._lif import LIF as LIF
from eprop.neurons._rate import Rate as Rate
from eprop.neurons._surrogate import SURROGATES as SURROGATES
from eprop.neurons._surrogate import Arctan as Arctan
from eprop.neurons._surrogate import FastSigmoid as FastSigmoid
from eprop.neurons._surrogate import Gaussian as Gaussian
from eprop.neurons._surrogate import Surrogate as Surrogate
from eprop.neurons._surrogate import Triangular as Triangular
from eprop.neurons._surrogate import spike as spike
