"""Experiments: each trains something small, prints a table and saves a figure."""
