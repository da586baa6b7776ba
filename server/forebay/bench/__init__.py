"""Load benchmarks: a client for any OpenAI-compatible server, its figures, comparisons and reports."""
