"""Audit: published runs made again from their manifests."""
