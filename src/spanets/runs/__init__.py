"""Run folders: what lies in one, how a run is recorded, and how several are listed and compared."""
