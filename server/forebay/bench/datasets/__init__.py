"""What is asked: made-up prompts of a wanted length, conversations, repetitions, and files of others."""

from forebay.bench.datasets.auto import DATASETS, DatasetOptions, make_sessions

__all__ = ["DATASETS", "DatasetOptions", "make_sessions"]
