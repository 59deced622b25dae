"""Tails, components, gradients and the margin taken from them."""
