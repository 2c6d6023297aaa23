"""Parts that some formats are read by: configurations and tensor names of several versions."""
