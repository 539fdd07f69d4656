"""Other people's dataset layouts, in and out: one file per format, the list of them in `formats.py`."""
