"""Times and memory of every way to a gradient, beside each other: what `eprop bench` reports."""

from eprop.workshop.bench._problem import Case as Case
from eprop.workshop.bench._report import TITLES as TITLES
from eprop.workshop.bench._report import bench_tables as bench_tables
from eprop.workshop.bench._report import size as size
from eprop.workshop.bench._run import check_not_refused as check_not_refused
from eprop.workshop.bench._run import run_bench as run_bench
from eprop.workshop.bench._run import settings_of as settings_of
from eprop.workshop.bench._run import start_bench as start_bench
from eprop.workshop.bench._settings import BenchSettings as BenchSettings
