"""What `lightsae scaling` shows: tables and a figure."""
