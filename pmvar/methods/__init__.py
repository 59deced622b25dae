"""Margin methods that stand beside the Monte Carlo."""
