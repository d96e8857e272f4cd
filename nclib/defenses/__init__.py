"""Defences at test time and at training time, one idea per file.

``adversarial_training`` and ``distillation`` (at training time), ``squeezing`` (coarser images),
``smoothing`` (a vote under noise, whose ``certificates`` survive a kill), ``partition`` (a vote of
parts of the training set), ``purification`` (images washed by generative models).
"""
