"""The speech engines that this server can call; each module is one engine, imported when it is used."""
