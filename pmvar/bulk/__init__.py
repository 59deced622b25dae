"""Runs of any size: planned from a memory budget, computed in blocks of accounts, resumed after whatever happens."""
