"""Readers of data sets: folders, shards, Hugging Face's format, and data sets known by name."""
