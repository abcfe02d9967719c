"""A replica: the supervisor of a RealtimeAPI, the pool of worker processes with restart and reload, the admin port."""
