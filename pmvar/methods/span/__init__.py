"""SPAN: sixteen scenarios, spreads, credits and minima, as CME's algorithm has them."""
