"""Purifying a poisoned training set with generative models: PureGen (arXiv 2405.18627)."""
