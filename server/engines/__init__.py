"""Speech engines that this server can call: one module each, imported when it is used."""
