"""The engine of Roomcast: actors, rooms and fan-out, on anyio and msgspec alone.

Reading order is dependency order: errors, limits, quota, gates, pace, principal, meter, expiry,
revocation, messages, commands, refusals, statistics, made, wire, lifecycle, mailbox, channel,
timeline, log, rooms, ports, catalog, redial, replay, progress, intake, roles, line, speech,
microphone, connection, presence, fanout, membership, population, upkeep, access, selection,
publisher, census, manager. A module imports only from those before it.
"""
