"""Labelled images: decoding one, listing many, splitting them, and the order they are drawn in."""
