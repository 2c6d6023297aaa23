"""Reading shards: whole chunks, checked, in this process or in others."""
