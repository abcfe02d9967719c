"""The supervisor of a RealtimeAPI: worker processes, their restart, reload, the admin port."""
