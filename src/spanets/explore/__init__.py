"""The explorer: a local page, or files, that show what networks do to images and frequencies.

Panels are pure functions from models and settings to pictures and numbers (`panels.PANELS`). The
page (`app`, `server`) lays them out with gradio, which only these two modules import.
"""
