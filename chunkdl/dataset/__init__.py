"""Who is sampled: patients, their slides and labels, and the manifests that they come from.

Looks at names and sizes of files and never at pixels. Imports `slides` for what counts as a slide.
"""
