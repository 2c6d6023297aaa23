"""Steering reports: a grid of strengths and numbers of latents, beside controls."""
