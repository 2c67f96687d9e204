"""The survey of a dataset: every slide is looked at once, and what was found is kept and shown.

`Survey` is what comes out; its table and its page are made from it. Imports up to `engine`, whose
loaders open slides and find tissue in the same way.
"""
