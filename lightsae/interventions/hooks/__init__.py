"""Autoencoders inside the forward pass of any nn.Module: recording and editing their codes."""
