"""Risk-factor models: laws of the shocks, sampled scenario by scenario. Imported as `pmvar.models`."""
