"""Whole iterations of Algorithm 1, pygan's and others', side by side on this machine: what `pygan bench` runs.

`workloads` are the named shapes and their work, `providers` the ways to run them, `measure` the timing by turns,
`report` the table and the plots. The mathematics of every provider is checked before it is timed.
"""
