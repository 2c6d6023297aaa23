"""The sparse autoencoder, its selection rule, its regularizers and its objective."""
