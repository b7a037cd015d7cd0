"""Learning online from a table that keeps coming: `eprop stream`."""

from eprop.streams._forecaster import Forecaster as Forecaster
from eprop.streams._forecaster import Forecasts as Forecasts
from eprop.streams._settings import HandlingSettings as HandlingSettings
from eprop.streams._settings import StreamSettings as StreamSettings
from eprop.streams._start import DEFAULT_NETWORK as DEFAULT_NETWORK
from eprop.streams._start import DEFAULT_OPTIMISER as DEFAULT_OPTIMISER
from eprop.streams._start import start_stream as start_stream
from eprop.streams._start import stream_table as stream_table
from eprop.streams._stream import run_stream as run_stream
