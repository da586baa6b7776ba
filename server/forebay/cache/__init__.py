"""The cache: what may be answered from what was answered before."""
