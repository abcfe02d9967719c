"""A module that starts a thread when it is imported, and never ends it."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
