"""The engine of Roomcast: actors, rooms and fan-out, on anyio and msgspec alone.

Reading order is dependency order: errors, limits, quota, principal, messages, statistics, wire,
lifecycle, mailbox, channel, timeline, log, rooms, ports, catalog, replay, progress, intake, roles,
line, speech, microphone, refusals, connection, fanout, membership, upkeep, population, manager. A
module imports only from those before it.
"""
