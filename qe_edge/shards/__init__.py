"""Folders of tables: each file is a shard, which is scored whole by one scorer and continued if it was interrupted.

- folder: the shards of a folder, and where their outputs go
- finished: which shards are finished, and by which run
- shard: one shard through a scorer
- attempts: how often a run has begun a shard
- actors: shards on several processes or machines, with Ray Data
"""
