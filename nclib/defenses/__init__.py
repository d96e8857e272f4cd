"""Defences at test time and at training time, one file each."""
