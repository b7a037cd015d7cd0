"""Learning online from a table that keeps coming: `eprop stream`."""

from eprop.workshop.streams._forecaster import Forecaster as Forecaster
from eprop.workshop.streams._forecaster import Forecasts as Forecasts
from eprop.workshop.streams._settings import HandlingSettings as HandlingSettings
from eprop.workshop.streams._settings import StreamSettings as StreamSettings
from eprop.workshop.streams._start import DEFAULT_NETWORK as DEFAULT_NETWORK
from eprop.workshop.streams._start import DEFAULT_OPTIMISER as DEFAULT_OPTIMISER
from eprop.workshop.streams._start import start_stream as start_stream
from eprop.workshop.streams._start import stream_table as stream_table
from eprop.workshop.streams._stream import run_stream as run_stream
