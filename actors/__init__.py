"""The engine of Roomcast: actors, rooms and fan-out, on anyio and msgspec alone.

Reading order is dependency order: errors, limits, quota, messages, wire, lifecycle, mailbox, log,
rooms, ports, speech, connection, fanout, manager. A module imports only from those before it.
"""
