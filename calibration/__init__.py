"""Estimation of risk-factor models from history, run offline. Imported as `pmvar.calibration`."""
