"""Fused operations of Top-k sparse autoencoders."""
