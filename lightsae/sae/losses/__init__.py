"""What is minimised: reconstruction, AuxK and penalties on the code, in one objective."""
