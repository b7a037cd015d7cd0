"""Times and memory of every way to a gradient, beside each other: what `eprop bench` reports."""

from eprop.bench._problem import Case as Case
