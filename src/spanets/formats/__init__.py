"""Formats of annotated images; COCO is the form between them."""
