"""How a fault may end."""

RESUMED, UNHARMED, TOLD = "resumed, bit for bit", "unharmed, bit for bit", "an error names the file"
