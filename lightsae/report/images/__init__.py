"""The images of a report: found by sample, made small, packed into sheets."""
