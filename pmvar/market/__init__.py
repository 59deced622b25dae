"""The market as of one instant: prices, curves and surfaces."""
