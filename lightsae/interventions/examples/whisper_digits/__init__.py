"""A small Whisper that hears digits in drums: trained on the spot, then steered."""
