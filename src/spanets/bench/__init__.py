"""Compares models by parameters, operations, time and memory."""

from spanets.bench.costs import count_costs, count_macs, count_parameters
from spanets_runtime.model_table import model_table

__all__ = ["count_costs", "count_macs", "count_parameters", "model_table"]
