"""Run the annotation app over a pickled record in a process of its own, to be killed: serve_app.py RECORD FOLDER PORT."""

import pickle
import sys
from pathlib import Path

from annotators.app.main import run_app
from tests.annotators.staged import Staged

if __name__ == "__main__":
    record, folder, port = sys.argv[1:]
    staged = Staged(pickle.loads(Path(record).read_bytes()))
    run_app(staged.capture, staged.points, staged.solve, staged.suggest, Path(folder), port=int(port))
