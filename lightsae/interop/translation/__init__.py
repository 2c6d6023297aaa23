"""The terms of other formats in ours and back: weights, rules, normalisation, provenance."""
