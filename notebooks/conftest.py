"""Notebooks that come in several sizes run in that of the tests; kernels take the environment of their process."""

import os

os.environ.setdefault("NOTEBOOK_SIZE", "tiny")
