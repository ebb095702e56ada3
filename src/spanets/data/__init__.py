"""Labelled images: sources, splits, samplers and loaders."""
