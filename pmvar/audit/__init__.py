"""Audit: published runs made again from their manifests, and the change from one to the next explained."""
