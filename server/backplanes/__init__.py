"""Where rooms live: the adapters of the Backplane port."""
