"""One arithmetic for rows in numpy and for whole batches in torch: what stain normalisation and
augmentation compute is written once.

`maths` names the functions, `numpy_maths` and `torch_maths` are them, `planes` takes images in and
out. Imports `errors`; torch only with a tensor in hand.
"""
