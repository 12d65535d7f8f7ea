"""Tests of the engine: one file for each module, every case on asyncio and on trio."""
