"""Scenario sets: simulated, or listed by hand; all that revaluation ever sees of the future."""

from pmvar.scenarios.scenario_set import ScenarioSet, ScenarioTile
from pmvar.scenarios.simulate import simulate
from pmvar.scenarios.stress import stress_scenarios

__all__ = ["ScenarioSet", "ScenarioTile", "simulate", "stress_scenarios"]
