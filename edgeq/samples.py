"""What goes into a model: image folders and .npz files, preprocessed one sample at a time."""

from __future__ import annotations
